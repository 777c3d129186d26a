"""The largest eigenvalues of many small symmetric matrices, each in a lane of the registers.

LAPACK goes through one small matrix at a time, in steps that wait for each other. Here a register holds one element of
8 or 16 matrices: Householder's reflections make them tridiagonal, with the update of one column and the product of the
next in one pass over what is left (`A - vw' - wv'`, then `Au`), and bisection by Sturm's counts finds the values.
Errors are those of LAPACK: a small multiple of rounding times the largest eigenvalue. A matrix's bits do not depend on
its neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from featdyn_kernels import _simd as simd
from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks

Array = np.ndarray[Any, Any]

_TOGETHER = 4
"""Values that are bisected at once: their divisions overlap."""
_BEYOND = 8
"""Halvings beyond the digits of a number: the first interval is wider than the largest eigenvalue."""
_PIVOT = 1e-3
"""Of rounding times the norm: what a smaller pivot is replaced by, which moves a value by no more than this."""


def eigvalsh(a: Array, k: int) -> Array:
    """Return the k largest values (B, k), ascending, of ``a`` (B, n, n), float32 or float64, finite in the lower half.

    Computed in the precision of ``a``.
    """
    batch, n, _ = a.shape
    lanes = simd.REGISTER // a.itemsize
    found = np.empty((batch, k), a.dtype)
    steps = np.finfo(a.dtype).nmant + 1 + _BEYOND

    def work(start: int, stop: int) -> None:
        matrices, vectors = simd.aligned_empty(n * n * lanes, a.dtype), simd.aligned_empty(6 * n * lanes, a.dtype)
        values = simd.aligned_empty((k + _TOGETHER) * lanes, a.dtype)
        for first in range(start, stop, lanes):
            _solve(a, first, min(first + lanes, stop), found, matrices, vectors, values, steps)

    parallel_blocks(work, batch, align=lanes)
    return found


@njit
def _solve(a: Any, first: int, last: int, found: Any, matrices: Any, vectors: Any, values: Any, steps: int) -> None:
    lanes, n, k = simd.lanes(matrices), a.shape[1], found.shape[1]
    size = n * lanes
    d, e, v, w, u, y = (
        vectors[:size], vectors[size : 2 * size], vectors[2 * size : 3 * size], vectors[3 * size : 4 * size],
        vectors[4 * size : 5 * size], vectors[5 * size :],
    )  # fmt: skip
    scales = np.ones(lanes, a.dtype)
    _gather(a, first, last, matrices, scales)
    _tridiagonal(matrices, n, d, e, v, w, u, y)
    _bisect(d, e, n, k, values, steps)
    for lane in range(last - first):
        for m in range(k):
            found[first + lane, k - 1 - m] = values[m * lanes + lane] * scales[lane]


@njit
def _gather(a: Any, first: int, last: int, matrices: Any, scales: Any) -> None:
    """Put matrices side by side, each over a power of two near its largest element: squares must not overflow."""
    lanes, n = simd.lanes(matrices), a.shape[1]
    for lane in range(lanes):
        b = min(first + lane, last - 1)  # lanes that are left over repeat the last matrix
        largest = a.dtype.type(0)
        for i in range(n):
            for j in range(i + 1):
                largest = max(largest, abs(a[b, i, j]))
        if largest > 0:
            scales[lane] = 2.0 ** np.floor(np.log2(largest))
        for i in range(n):
            for j in range(i + 1):
                matrices[(i * n + j) * lanes + lane] = a[b, i, j] / scales[lane]


@register_jitable
def _less_twice(x: Any, y: Any) -> Any:
    return x - (y + y)


@njit
def _tridiagonal(a: Any, n: int, d: Any, e: Any, v: Any, w: Any, u: Any, y: Any) -> None:
    """Reduce the lower halves of ``a`` (n, n, lanes) to diagonals ``d`` and ``e``; the rest is room, (n, lanes) each.

    ``v`` and ``w`` are those of the column before, whose update waits for the pass that needs its result.
    """
    lanes, end = simd.lanes(a), n * simd.lanes(a)
    zero, one = simd.splat(a.dtype.type(0), 1), simd.splat(a.dtype.type(1), 1)
    half = simd.splat(a.dtype.type(0.5), 1)
    for i in range(0, end, lanes):
        simd.store(v, i, zero)
        simd.store(w, i, zero)
    for k in range(n - 1):
        column, below = k * lanes, (k + 1) * lanes
        vk, wk = simd.load(v, column, 1), simd.load(w, column, 1)
        simd.store(d, column, _less_twice(simd.load(a, k * end + column, 1), vk * wk))
        squares, leading = zero, zero
        for i in range(below, end, lanes):
            x = simd.load(a, i * n + column, 1) - simd.load(v, i, 1) * wk - simd.load(w, i, 1) * vk
            simd.store(u, i, x)
            simd.store(y, i, zero)
            if i > below:
                squares = squares + x * x
            else:
                leading = x
        # u = (1, x / (leading - beta)), H = 1 - tau u u'; nothing is reflected where the rest is zero
        norm = simd.sqrt(leading * leading + squares)
        beta = simd.where_less(zero, leading, zero - norm, norm)
        beta = simd.where_less(zero, squares, beta, leading)
        divisor = simd.where_less(zero, squares, leading - beta, one)
        tau = simd.where_less(zero, squares, zero - divisor / simd.where_less(zero, squares, beta, one), zero)
        inverse = simd.where_less(zero, squares, one / divisor, zero)
        simd.store(e, column, beta)
        simd.store(u, below, one)
        for i in range(below + lanes, end, lanes):
            simd.store(u, i, simd.load(u, i, 1) * inverse)
        _update_and_multiply(a, n, k + 1, v, w, u, y)
        dot = zero
        for i in range(below, end, lanes):
            dot = dot + simd.load(y, i, 1) * simd.load(u, i, 1)
        dot = dot * tau * half
        for i in range(below, end, lanes):
            x = simd.load(u, i, 1)
            simd.store(w, i, tau * (simd.load(y, i, 1) - dot * x))
            simd.store(v, i, x)
    i = end - lanes
    simd.store(e, i, zero)
    simd.store(d, i, _less_twice(simd.load(a, n * end - lanes, 1), simd.load(v, i, 1) * simd.load(w, i, 1)))


@njit
def _update_and_multiply(a: Any, n: int, start: int, v: Any, w: Any, u: Any, y: Any) -> None:
    """Subtract ``vw' + wv'`` from what is left of ``a`` and add its product with ``u`` to ``y``, two rows at a time."""
    lanes, end = simd.lanes(a), n * simd.lanes(a)
    first = start * lanes
    if (n - start) % 2:
        t = _less_twice(simd.load(a, start * end + first, 1), simd.load(v, first, 1) * simd.load(w, first, 1))
        simd.store(a, start * end + first, t)
        simd.store(y, first, simd.load(y, first, 1) + t * simd.load(u, first, 1))
        start += 1
    for i in range(start, n, 2):
        p, q = i * lanes, (i + 1) * lanes
        v0, w0, u0 = simd.load(v, p, 1), simd.load(w, p, 1), simd.load(u, p, 1)
        v1, w1, u1 = simd.load(v, q, 1), simd.load(w, q, 1), simd.load(u, q, 1)
        upper, lower = i * end, (i + 1) * end
        s0 = s1 = simd.splat(a.dtype.type(0), 1)
        for j in range(first, p, lanes):
            vj, wj, uj = simd.load(v, j, 1), simd.load(w, j, 1), simd.load(u, j, 1)
            t0 = simd.load(a, upper + j, 1) - v0 * wj - w0 * vj
            t1 = simd.load(a, lower + j, 1) - v1 * wj - w1 * vj
            simd.store(a, upper + j, t0)
            simd.store(a, lower + j, t1)
            s0 = s0 + t0 * uj
            s1 = s1 + t1 * uj
            simd.store(y, j, simd.load(y, j, 1) + t0 * u0 + t1 * u1)
        t0 = _less_twice(simd.load(a, upper + p, 1), v0 * w0)
        t1 = simd.load(a, lower + p, 1) - v1 * w0 - w1 * v0
        t2 = _less_twice(simd.load(a, lower + q, 1), v1 * w1)
        simd.store(a, upper + p, t0)
        simd.store(a, lower + p, t1)
        simd.store(a, lower + q, t2)
        simd.store(y, p, simd.load(y, p, 1) + s0 + t0 * u0 + t1 * u1)
        simd.store(y, q, simd.load(y, q, 1) + s1 + t1 * u0 + t2 * u1)


@njit
def _bisect(d: Any, e: Any, n: int, k: int, values: Any, steps: int) -> None:
    """Find the k largest values, descending, of tridiagonal matrices ``d``, ``e``; the squares of ``e`` replace it."""
    lanes, end = simd.lanes(d), n * simd.lanes(d)
    zero, one = simd.splat(d.dtype.type(0), 1), simd.splat(d.dtype.type(1), 1)
    for m in range(k + _TOGETHER):
        values[m * lanes : (m + 1) * lanes] = m + 0.5
    lowest, highest, before = simd.load(d, 0, 1), simd.load(d, 0, 1), zero
    for i in range(0, end, lanes):  # Gershgorin's circles
        x, after = simd.load(d, i, 1), simd.absolute(simd.load(e, i, 1))
        simd.store(e, i, after * after)
        low, high = x - (before + after), x + (before + after)
        lowest, highest = simd.where_less(low, lowest, low, lowest), simd.where_less(highest, high, high, highest)
        before = after
    norm = simd.where_less(simd.absolute(lowest), highest, highest, zero - lowest)
    norm = simd.where_less(zero, norm, norm, one)
    least = simd.repeated(simd.splat(d.dtype.type(_PIVOT * np.finfo(d.dtype).eps), 1) * norm, _TOGETHER)
    half, none = simd.splat(d.dtype.type(0.5), _TOGETHER), simd.splat(d.dtype.type(0), _TOGETHER)
    every = simd.splat(d.dtype.type(1), _TOGETHER)
    for m in range(0, k * lanes, _TOGETHER * lanes):
        rank = simd.load(values, m, _TOGETHER)
        below, above = simd.repeated(lowest, _TOGETHER), simd.repeated(highest, _TOGETHER)
        for _ in range(steps):
            middle = (below + above) * half
            pivot, count, square = every, none, none
            for i in range(0, end, lanes):  # as many values lie above the middle as pivots are positive
                pivot = simd.repeated(simd.load(d, i, 1), _TOGETHER) - middle - square / pivot
                count = count + simd.where_less(none, pivot, every, none)
                least_of_sign = simd.where_less(none, pivot, least, none - least)
                pivot = simd.where_less(simd.absolute(pivot), least, least_of_sign, pivot)
                square = simd.repeated(simd.load(e, i, 1), _TOGETHER)
            below = simd.where_less(rank, count, middle, below)
            above = simd.where_less(rank, count, above, middle)
        simd.store(values, m, (below + above) * half)
