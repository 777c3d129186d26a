"""One small recorded run, shared by the tests that only read it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL = (
    "training.epochs=2",
    "training.batch_size=128",
    "checkpoints.first_epoch=2",
    "probes.train=40",
    "probes.test=33",
    "probes.corrupted=7",
    "capture.batch=32",
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where there is one, for tests in which thousands of small files come and go."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


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
