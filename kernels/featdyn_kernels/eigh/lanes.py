"""Eigenpairs of one register's worth of symmetric matrices at once: one matrix per lane.

All lanes do the same arithmetic, so nothing is ever summed across a register, and small matrices cost as little per
element as large ones. Arrays are flat: element (i, j) of lane b is ``x[(i * stride + j) * lanes + b]``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._simd import REGISTER, aligned_empty, lanes
from featdyn_kernels.eigh.ql import BLOCK, SWEEPS, iterate
from featdyn_kernels.eigh.tridiagonal import accumulate, tridiagonalise

LIMIT = 30  # sweeps per eigenvalue before a matrix counts as not converged, as in LAPACK


def stride_of(n: int) -> int:
    """Return the row stride: whole blocks, an odd number of them, so that rows do not share the same cache sets."""
    return (-(-n // BLOCK) | 1) * BLOCK


def solve(a: Any, values: Any, vectors: Any, converged: Any, limit: int = LIMIT) -> None:
    """Write the largest ``values.shape[1]`` eigenvalues, ascending, and their vectors as rows.

    Parameters
    ----------
    a : array, shape (B, n, n)
        float32 or float64; lower triangles are read.
    values, vectors : arrays, shapes (B, k), (B, k, n)
        Of the same dtype. NaN where a matrix holds NaN or infinity.
    converged : bool array, shape (B,)
        False where ``limit`` sweeps per eigenvalue were not enough; values and vectors are then unusable.
    limit : int
        For the tests.
    """
    n, width = a.shape[1], REGISTER // a.itemsize
    stride = stride_of(n)
    matrix, basis = (aligned_empty(stride * stride * width, a.dtype) for _ in range(2))
    rotations = aligned_empty(SWEEPS * n * 2 * width, a.dtype)
    lines = [aligned_empty(max(2, stride) * width, a.dtype) for _ in range(5)]
    _solve(a, values, vectors, converged, limit, stride, matrix, basis, rotations, *lines)


@njit
def _solve(
    a: Any,
    values: Any,
    vectors: Any,
    converged: Any,
    limit: int,
    stride: int,
    matrix: Any,
    basis: Any,
    rotations: Any,
    diagonal: Any,
    off_diagonal: Any,
    u: Any,
    q: Any,
    p: Any,
) -> None:
    n, width = a.shape[1], lanes(a)
    exponents, finite = np.empty(width, np.int64), np.empty(width, np.bool_)
    for first in range(0, len(a), width):
        last = min(first + width, len(a))
        _pack(a[first:last], matrix, stride, exponents, finite)
        tridiagonalise(matrix, n, stride, diagonal, off_diagonal, u, q, p)
        accumulate(matrix, basis, n, stride)
        iterate(diagonal, off_diagonal, basis, rotations, u, n, stride, limit)
        for b in range(last - first):
            converged[first + b] = u[b] == n
        _unpack(diagonal, basis, n, stride, exponents, finite, values[first:last], vectors[first:last])


@njit
def _pack(a: Any, matrix: Any, stride: int, exponents: Any, finite: Any) -> None:
    """Copy lower triangles into lanes, scaled by powers of two to largest elements in [1/2, 1); zero if not finite."""
    n, width = a.shape[1], lanes(matrix)
    for b in range(width):
        largest = 0.0
        finite[b] = True
        if b < a.shape[0]:
            for i in range(n):
                for j in range(i + 1):
                    size = abs(a[b, i, j])
                    largest = max(largest, size)
                    finite[b] &= size < math.inf  # not so for NaN
        usable = finite[b] and largest > 0
        exponents[b] = max(math.frexp(largest)[1], -1000) if usable else 0
        scale = math.ldexp(1.0, -exponents[b])
        for i in range(n):
            for j in range(i + 1):
                matrix[(i * stride + j) * width + b] = a[b, i, j] * scale if usable else 0.0


@njit
def _unpack(
    diagonal: Any, basis: Any, n: int, stride: int, exponents: Any, finite: Any, values: Any, vectors: Any
) -> None:
    """Sort, undo the scaling, and copy the largest eigenvalues and their vectors to their matrices."""
    width, k = lanes(diagonal), values.shape[1]
    for b in range(values.shape[0]):
        if not finite[b]:
            values[b] = math.nan
            vectors[b] = math.nan
            continue
        lane = diagonal[b : n * width : width]
        order = np.argsort(lane)[n - k :]
        for j in range(k):
            values[b, j] = math.ldexp(float(lane[order[j]]), exponents[b])
            row = order[j] * stride * width + b
            for i in range(n):
                vectors[b, j, i] = basis[row + i * width]
