"""Processes forked from one that has imported everything already, Dask's workers among them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from featdyn.compute import Workers

Value = TypeVar("Value")
# One server for all tests: the first to start a process decides what it has imported.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "featdyn.training.stage", "featdyn.testing", "sklearn.datasets", "xarray", "zarr", "zarr.storage", "dask.array",
        "torch._dynamo", "torch.distributed.tensor", "distributed", "featdyn.analysis.features.density.compute",
        "featdyn.analysis.features.drift.compute", "featdyn.analysis.gradient_noise.noise.compute",
        "featdyn.analysis.composites.consistency.compute",
    ]
)  # fmt: skip


def start(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Start a process that calls a function of a light module."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def alone(function: Callable[..., Value], *arguments: Any) -> Value:
    """Return what a function of a module returns in a process of its own, where no other test has left anything."""
    ours, theirs = CONTEXT.Pipe()
    process = start(_answer, theirs, function, arguments)
    theirs.close()
    try:
        found: Value = ours.recv()
    finally:
        process.join()
    return found


def _answer(to: Connection, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    to.send(function(*arguments))


@contextmanager
def forked_workers(**options: Any) -> Iterator[Workers]:
    """Start worker processes, each of which takes seconds to import everything where it is not forked.

    Those of ``test_compute`` are started as they are for users.
    """
    import dask
    import distributed  # noqa: F401 - or its settings would go with ours

    from featdyn.compute import workers

    forkserver.ensure_running()  # before Dask says what to import
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        workers(scheduler="processes", **options) as found,
    ):
        yield found
