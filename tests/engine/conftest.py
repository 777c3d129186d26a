"""What tests share: one small recorded run, to be read only, and workers, of which processes take seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from featdyn.compute import Workers

SMALL = (
    "training.epochs=2",
    "training.batch_size=128",
    "checkpoints.first_epoch=2",
    "probes.train=40",
    "probes.test=33",
    "probes.corrupted=7",
    "capture.batch=32",
)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits recipe, two epochs, with a consistency result."""
    from featdyn.analysis import analyses
    from featdyn.analysis.record import record
    from featdyn.training import load
    from featdyn.training.stage import train

    store = tmp_path_factory.mktemp("run") / "run.zarr"
    train(load("digits", SMALL), store)
    record(store, analyses()["consistency"], {})
    return store


@pytest.fixture(scope="session")
def processes() -> Iterator[Workers]:
    """Two worker processes."""
    from featdyn.compute import workers

    with workers(scheduler="processes", workers=2) as found:
        yield found


@pytest.fixture
def clusters(processes: Workers) -> Iterator[dict[str, Workers]]:
    """Workers by the name of their scheduler.

    Threads are opened anew for each test, in no time: while they are open, kernels are serial in the whole process.
    """
    from featdyn.compute import workers

    with workers(scheduler="threads", workers=2) as threads:
        yield {"threads": threads, "processes": processes}
