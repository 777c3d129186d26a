"""Processes forked from one that has imported everything already."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

# One server for all tests: the first to start a process decides what it has imported.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "featdyn.training.stage", "featdyn.store", "sklearn.datasets", "xarray", "zarr", "zarr.storage", "dask.array",
        "torch._dynamo", "torch.distributed.tensor",
    ]
)  # fmt: skip


def start(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Start a process that calls a function of a light module."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process
