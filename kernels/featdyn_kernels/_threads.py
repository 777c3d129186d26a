"""The one thread knob of the CPU kernels, and the loop that uses it.

Numba's own ``parallel=True`` aborts the process when two threads enter it on the default threading layer, which is what
Dask's threaded scheduler does (numba#9288). So every CPU kernel here is serial and releases the GIL, and this file
spreads row blocks over a thread pool of ours: safe from any number of calling threads, and one kernel instead of two
twins.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_local = threading.local()
_pool: ThreadPoolExecutor | None = None
_threads: int | None = None


def cores() -> int:
    """Return how many processors this process may run on; without affinity (macOS, Windows) how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_threads() -> int:
    """Return how many threads one CPU kernel call uses.

    The value given to :func:`set_threads`, else the environment variable ``FEATDYN_THREADS``, else :func:`cores`.
    """
    if _threads is not None:
        return _threads
    return int(os.environ.get("FEATDYN_THREADS", 0)) or cores()


def set_threads(n: int | None) -> None:
    """Set how many threads one CPU kernel call uses: 1 inside workers that are themselves parallel, None: default."""
    global _pool, _threads
    if n is not None and n < 1:
        raise ValueError(f"threads must be at least 1, got {n}")
    with _lock:
        _threads = n
        _pool = None  # calls in flight keep their own reference; the old pool ends with the last of them


def _shared_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(get_threads(), thread_name_prefix="featdyn", initializer=_mark_worker)
        return _pool


def _mark_worker() -> None:
    _local.worker = True


def _forget_pool() -> None:
    global _pool, _lock, _blas_users
    _pool, _lock = None, threading.Lock()
    if _blas_users:  # of threads that are not here
        _blas_users = 0
        _blas_limit.close()


# A forked child inherits the pool object but none of its threads: it must start its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def parallel_blocks(work: Callable[[int, int], None], n: int, *, min_block: int = 1, align: int = 1) -> None:
    """Call ``work(start, stop)`` for contiguous blocks that cover ``range(n)``, one per thread.

    ``work`` releases the GIL (``numba.njit(nogil=True)``) and writes only what belongs to its rows. A block is never
    shorter than ``min_block``, so that tiny inputs stay on the calling thread, and its limits are multiples of
    ``align``, for kernels that work on tiles of rows.
    """
    threads = min(get_threads(), max(1, n // max(1, min_block)))
    if threads == 1 or getattr(_local, "worker", False):  # nested calls run in place: waiting on the own pool deadlocks
        if n:
            work(0, n)
        return
    step = -(-n // threads)
    step += -step % align
    limits = [(start, min(start + step, n)) for start in range(0, n, step)]
    futures = [_shared_pool().submit(work, *limit) for limit in limits[1:]]
    _local.worker = True  # the block that the caller takes itself must not queue behind the pool's
    try:
        work(*limits[0])
    finally:
        _local.worker = False
        for future in futures:
            future.exception()  # wait for all: no block may still write when the caller sees an error
    for future in futures:
        future.result()


_blas_users, _blas_limit = 0, contextlib.ExitStack()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS and LAPACK on the threads that call them, for all of this process until the last of its users leaves.

    Their number of threads is the process's: were each of two users to put back what it found, they would leave it low.
    """
    global _blas_users
    with _lock:
        _blas_users += 1
        if _blas_users == 1:
            _blas_limit.enter_context(controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            _blas_users = max(0, _blas_users - 1)  # 0 already in a child that was forked meanwhile
            if _blas_users == 0:
                _blas_limit.close()


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep torch's own operations on the calling thread, so that threads of ours side by side do not each start a team.

    ``torch.set_num_threads`` would not do: it also sets what threads started later begin with.
    """
    import torch

    torch.get_num_threads()  # torch's set-up of a new thread, which would undo the limit if it came later
    with controller().limit(limits=1, user_api="openmp"):
        yield


def controller() -> ThreadpoolController:
    """Return the threads of all BLAS and OpenMP libraries that are loaded now."""
    return _controller("torch" in sys.modules, "scipy.linalg" in sys.modules)


@functools.cache
def _controller(*loaded: bool) -> ThreadpoolController:
    """Find the libraries, which takes milliseconds; torch and SciPy bring some of their own."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
