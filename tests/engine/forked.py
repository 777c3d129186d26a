"""Processes forked from one that has imported everything already."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["featdyn.training.stage", "featdyn.store", "sklearn.datasets", "torch", "xarray", "zarr", "zarr.storage"]
)


def start(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Start a process that calls a function of a light module."""
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process
