"""Small matrix products on one thread.

OpenBLAS shares out even a 128 x 128 product; its threads then wait for each other longer than they work, the more so
where other processes want the processors too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from featdyn_kernels._threads import one_blas_thread

_SMALL = 512  # rows up to which one thread does the work


def one_thread(n: int) -> AbstractContextManager[None]:
    """Keep BLAS on the calling thread for matrices of up to 512 rows."""
    return one_blas_thread() if n <= _SMALL else nullcontext()
