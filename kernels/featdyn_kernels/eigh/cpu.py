"""LAPACK in float64, whatever the matrices came in: those of a batch spread over threads, each on one.

Of many small matrices the values alone are :mod:`featdyn_kernels.eigh.lanes`'. Solvers of our own for values and
vectors were taken out: of a batch of small float64 matrices LAPACK's values alone cost what ours took for both (0.7
times at n = 64, 0.4 at 128; Zen 3, one core), and no analysis gained.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import scipy.linalg

from featdyn_kernels._threads import get_threads, one_blas_thread, parallel_blocks
from featdyn_kernels._versions import simd
from featdyn_kernels.eigh.cholesky_qr import orthonormal

Array = np.ndarray[Any, Any]

LARGEST, REGISTER = 256, 64  # rows of a matrix, and bytes of one element of all, from and to which lanes pay
LONE = 512  # rows of a lone matrix above which BLAS may use its threads, and with them change the last bits
# LAPACK's route to a few eigenpairs pays up to this share of all: on 2 Zen 5 cores, 10 of 1,024 took 0.2 to 0.3, and a
# quarter of them 1.2 to 1.5, of the time of all.
FEW = 8
TOGETHER = 2**14  # elements of small matrices that go through one call
PIECE = 2**13  # terms of a product that are summed by one thread: sums do not depend on how many threads there are


def eigh(a: Array, k: int) -> tuple[Array, Array]:
    """Return values (B, k) and vectors (B, n, k) of ``a`` (B, n, n), float32 or float64."""
    batch, n, _ = a.shape
    values, vectors = np.empty((batch, k), a.dtype), np.empty((batch, n, k), a.dtype)

    def solve(rows: slice) -> None:
        matrices, finite = _usable(a[rows])
        if k * FEW <= n:
            found = [scipy.linalg.eigh(m, subset_by_index=[n - k, n - 1], driver="evr") for m in matrices]
            values[rows], vectors[rows] = (np.stack(part) for part in zip(*found, strict=True))
        else:
            every, sides = np.linalg.eigh(matrices)
            values[rows], vectors[rows] = every[:, n - k :], sides[:, :, n - k :]
        values[rows][~finite], vectors[rows][~finite] = np.nan, np.nan

    _spread(solve, batch, n)
    return values, vectors


def eigvalsh(a: Array, k: int) -> Array:
    """Return values (B, k) of ``a`` (B, n, n), float32 or float64."""
    batch, n, _ = a.shape
    if simd() and n <= LARGEST and batch * a.itemsize >= REGISTER:
        from featdyn_kernels.eigh import lanes

        usable, finite = _finite(a)
        values: Array = lanes.eigvalsh(usable, k)
        values[~finite] = np.nan
        return values
    values = np.empty((batch, k), a.dtype)

    def solve(rows: slice) -> None:
        matrices, finite = _usable(a[rows])
        values[rows] = np.linalg.eigvalsh(matrices)[:, n - k :]
        values[rows][~finite] = np.nan

    _spread(solve, batch, n)
    return values


def gram_eigh(x: Array, k: int) -> tuple[Array, Array]:
    """Return values (..., k) and vectors (..., F, k) of ``x^T x`` for ``x`` (..., N, F), float32 or float64."""
    lead, (samples, features) = x.shape[:-2], x.shape[-2:]
    wide = x.reshape(-1, samples, features).astype(np.float64)
    turned = wide.swapaxes(1, 2)
    if features <= samples:
        values, vectors = eigh(_products(turned), k)
    else:
        values, sides = eigh(_products(wide), k)
        with one_blas_thread(), np.errstate(invalid="ignore"):
            vectors = orthonormal(turned @ sides)
    return values.reshape(*lead, k).astype(x.dtype), vectors.reshape(*lead, features, k).astype(x.dtype)


def _spread(solve: Callable[[slice], None], batch: int, n: int) -> None:
    """Call ``solve`` for the matrices of a batch, some at a time."""
    together = max(1, TOGETHER // n**2)

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, together):
            solve(slice(first, min(first + together, stop)))

    # A lone matrix is LAPACK's to spread.
    with nullcontext() if batch == 1 and n > LONE and get_threads() > 1 else one_blas_thread():
        parallel_blocks(work, batch)


def _usable(a: Array) -> tuple[Array, Array]:
    """Return lower triangles in float64, and which are finite; others are zero."""
    usable, finite = _finite(a)
    return np.tril(usable).astype(np.float64), finite


def _finite(a: Array) -> tuple[Array, Array]:
    """Return matrices, and which are finite where they are read, in the lower triangle; others are zero."""
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.asarray(np.isfinite(a.sum((1, 2))))  # the usual case, at the price of one pass
    if not finite.all():
        finite = np.asarray(np.isfinite(np.tril(a)).all((1, 2)))
        a = np.where(finite[:, None, None], a, a.dtype.type(0))
    return a, finite


def _products(rows: Array) -> Array:
    """Return ``rows @ rows^T`` (B, n, n) of rows (B, n, m), summed in pieces of ``m``."""
    batch, n, length = rows.shape
    pieces = -(-length // PIECE)
    parts = np.empty((pieces, batch, n, n))

    def work(start: int, stop: int) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes NaN in the end
            for task in range(start, stop):
                piece, b = divmod(task, batch)
                part = rows[b, :, piece * PIECE : (piece + 1) * PIECE]
                parts[piece, b] = part @ part.T

    with one_blas_thread():
        parallel_blocks(work, pieces * batch)
    return np.asarray(parts.sum(0))
