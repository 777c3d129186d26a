"""Dask clusters of this machine: threads of this process, processes, or one process for each GPU."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import dask
from distributed import LocalCluster, Nanny, SpecCluster
from distributed.scheduler import Scheduler

import featdyn_kernels
from featdyn.compute.options import ComputeOptions
from featdyn.errors import ComputeError

# Freed memory goes back to the system: a worker's size is what its limit is held against. glibc would keep blocks of
# up to 32 MiB in an arena for each thread (density on two threads: 1.4 GB instead of 2.1).
RETURNED = 2**22
MALLOPT = {"MMAP_THRESHOLD": -3, "TRIM_THRESHOLD": -1}
DASHBOARD = "127.0.0.1:0"
# Memory is planned before the work starts, and there is nothing to spill: what a task holds it needs. A worker beyond
# its limit is stopped and its task goes to another one.
MEMORY = {f"distributed.worker.memory.{stage}": False for stage in ("target", "spill", "pause")}


@contextmanager
def cluster(options: ComputeOptions) -> Iterator[Any]:
    """Start a cluster and end it."""
    cores = featdyn_kernels.cores()
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(MEMORY))
        if options.gpus is not None:
            yield stack.enter_context(_environment_kept(lambda: _gpus(options)))
            return
        workers, here = options.workers or cores, options.scheduler == "threads"
        if here:
            return_memory()
            stack.enter_context(_serial_kernels())
        else:
            stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": environment(cores // workers)}))
        yield stack.enter_context(
            _environment_kept(
                lambda: LocalCluster(
                    n_workers=1 if here else workers, threads_per_worker=workers if here else 1, processes=not here,
                    memory_limit=options.memory_limit or "auto", dashboard_address=DASHBOARD,
                    silence_logs=logging.CRITICAL,
                )
            )
        )  # fmt: skip


@contextmanager
def _gpus(options: ComputeOptions) -> Iterator[Any]:
    """Start one worker process for each GPU, by dask-cuda where it is installed."""
    devices = visible_gpus()
    if not devices:
        raise ComputeError("--gpus all: torch finds no GPU here")
    limit = options.memory_limit or "auto"
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        threads = max(1, featdyn_kernels.cores() // len(devices))
        shared = {"nthreads": 1, "memory_limit": limit}
        given = {device: {"CUDA_VISIBLE_DEVICES": device, **environment(threads)} for device in devices}
        workers = {device: {"cls": Nanny, "options": {**shared, "env": env}} for device, env in given.items()}
        scheduler = {"cls": Scheduler, "options": {"dashboard_address": DASHBOARD}}
        with SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL) as found:
            yield found
        return
    with LocalCUDACluster(
        CUDA_VISIBLE_DEVICES=devices, memory_limit=limit, dashboard_address=DASHBOARD, silence_logs=logging.CRITICAL
    ) as found:
        yield found


@contextmanager
def _environment_kept(start: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """Start a cluster, and give this process its environment back.

    Dask's nannies leave there what the workers that they start begin with: one thread for kernels, torch and BLAS.
    """
    before = dict(os.environ)
    left: list[str] = []

    def put_back() -> None:
        for name in left:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in left if name in before})

    with ExitStack() as stack:
        stack.callback(put_back)  # a worker that was lost has been started anew since
        try:
            found = stack.enter_context(start())
        finally:
            left += [name for name, value in os.environ.items() if before.get(name) != value]
            put_back()
        yield found


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def environment(threads: int) -> dict[str, str]:
    """Return what a worker process starts with: so many threads for kernels, torch and BLAS."""
    n = str(max(1, threads))
    names = ("FEATDYN_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**dict.fromkeys(names, n), **{f"MALLOC_{name}_": str(RETURNED) for name in MALLOPT}}


def return_memory() -> None:
    """Let this process give back what it frees; nothing where the C library is not glibc."""
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        for option in MALLOPT.values():
            libc.mallopt(option, RETURNED)


@contextmanager
def _serial_kernels() -> Iterator[None]:
    """Keep kernels, torch and BLAS on the thread that calls them."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    featdyn_kernels.set_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        featdyn_kernels.set_threads(None)
        torch.set_num_threads(threads)
