"""Many small matrices share the lanes of a register; the rest go to LAPACK; what fails is tried again in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._simd import REGISTER
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels.eigh import lanes, lapack
from featdyn_kernels.eigh.warning import warn_of_retry

# Above this size a group of matrices leaves the caches, and LAPACK's divide and conquer does less arithmetic than QL.
# On 2 Zen 5 cores, float32, per core: 5.5 times torch.linalg.eigh at n = 64, 3.5 at 128 and 200, 2 at 256.
LARGEST = 256


def eigh(a: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return values (B, k) and vectors (B, n, k) of ``a`` (B, n, n), float32 or float64."""
    a = np.ascontiguousarray(a)
    values, vectors, converged = _solve(a, k)
    failed = np.flatnonzero(~converged)
    if failed.size:
        warn_of_retry(failed.size, a.shape, str(a.dtype))
        for i in failed:
            values[i], vectors[i] = insist(a[i].astype(np.float64), k)
    return values, vectors.transpose(0, 2, 1)


def _solve(a: np.ndarray[Any, Any], k: int) -> tuple[Any, Any, Any]:
    batch, n, _ = a.shape
    values, vectors, converged = np.empty((batch, k), a.dtype), np.empty((batch, k, n), a.dtype), np.ones(batch, bool)
    width = REGISTER // a.itemsize
    rest = batch % width
    # A group that is not full costs as much as a full one.
    together = 0 if n > LARGEST else batch if rest >= 2 + n // 32 else batch - rest
    parallel_blocks(
        lambda start, stop: lanes.solve(a[start:stop], values[start:stop], vectors[start:stop], converged[start:stop]),
        together,
        min_block=width,
        align=width,
    )
    for i in range(together, batch):
        converged[i] = lapack.solve(a[i], values[i], vectors[i])
    return values, vectors, converged


def insist(a: np.ndarray[Any, Any], k: int) -> tuple[Any, Any]:
    """Return the largest k eigenvalues of one float64 matrix, and vectors as rows, by whichever way gets there."""
    values, vectors = np.empty(k), np.empty((k, len(a)))
    if lapack.solve(a, values, vectors):
        return values, vectors
    converged = np.empty(1, bool)
    lanes.solve(a[None], values[None], vectors[None], converged)
    if not converged[0]:
        raise np.linalg.LinAlgError(f"a matrix of shape {a.shape} did not converge in float64")
    return values, vectors
