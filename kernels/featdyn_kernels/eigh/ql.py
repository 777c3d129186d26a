"""From tridiagonal to diagonal, one matrix per lane: implicit QL with Wilkinson shifts.

As in EISPACK's tql2 (Golub and Van Loan, section 8.3.3). In each sweep every lane works on its own unreduced block;
where a lane is idle its rotation is the identity. The rotations of several sweeps are collected and applied to a few
components of all eigenvectors at a time, which stay in the first-level cache meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._simd import absolute, lanes, load, splat, sqrt, store, tile, where_less

SWEEPS = 16  # collected before they are applied: their rotations stay in the second-level cache
BLOCK = 8  # eigenvector components rotated together, one register each


@njit
def iterate(
    diagonal: Any, off_diagonal: Any, basis: Any, rotations: Any, window: Any, n: int, stride: int, limit: int
) -> None:
    """Run sweeps, at most ``limit * n``, until every lane is diagonal; ``window`` then holds n for those that are."""
    width = lanes(diagonal)
    firsts, lasts = np.zeros(SWEEPS, np.int64), np.zeros(SWEEPS, np.int64)
    start, count = 0, 0
    for _ in range(limit * n):
        low, high, shift = _blocks(diagonal, off_diagonal, start, n)
        store(window, 0, low)
        store(window, width, high)
        start, last = n, 0
        for b in range(width):
            start, last = min(start, int(window[b])), max(last, int(window[width + b]))
        if start == n:
            break
        _sweep(diagonal, off_diagonal, rotations, count * 2 * n * width, start, last, low, high, shift)
        firsts[count], lasts[count] = start, last
        count += 1
        if count == SWEEPS:
            _rotate(basis, rotations, firsts, lasts, count, n, stride)
            count = 0
    _rotate(basis, rotations, firsts, lasts, count, n, stride)
    store(window, 0, _blocks(diagonal, off_diagonal, 0, n)[0])


@njit
def _blocks(diagonal: Any, off_diagonal: Any, start: int, n: int) -> Any:
    """Return each lane's first unreduced block [low, high] (low = n: there is none) and ``d_high - shift`` for it.

    Couplings that are small enough to be neglected become zero.
    """
    width, number = lanes(diagonal), diagonal.dtype.type
    zero, half, one = splat(number(0), 1), splat(number(0.5), 1), splat(number(1), 1)
    relative = splat(number(np.finfo(diagonal.dtype).eps), 1)
    # Largest elements are near 1: what is this small is rounding error, also where both neighbours vanish (low rank).
    absolute_floor = splat(number(np.finfo(diagonal.dtype).eps / 8), 1)
    begun, ended = zero, zero
    low, high = splat(number(n), 1), zero
    d_low, d_next, e_low, d_high = zero, zero, one, zero
    here = load(diagonal, start * width, 1)
    for i in range(start, n):
        following = load(diagonal, min(i + 1, n - 1) * width, 1)
        coupling = load(off_diagonal, i * width, 1)
        floor = relative * (absolute(here) + absolute(following)) + absolute_floor
        coupled = where_less(floor, absolute(coupling), one, zero)
        store(off_diagonal, i * width, coupled * coupling)  # for good: the floor sinks with its neighbours
        position = splat(number(i), 1)
        begins = coupled * (one - begun)
        low = where_less(half, begins, position, low)
        d_low = where_less(half, begins, here, d_low)
        d_next = where_less(half, begins, following, d_next)
        e_low = where_less(half, begins, coupling, e_low)
        begun = begun + begins
        ends = begun * (one - coupled) * (one - ended)
        high = where_less(half, ends, position, high)
        d_high = where_less(half, ends, here, d_high)
        ended = ended + ends
        here = following
    ratio = (d_next - d_low) / (e_low + e_low)
    root = sqrt(ratio * ratio + one)
    return low, high, d_high - d_low + e_low / (ratio + where_less(ratio, zero, zero - root, root))


@njit
def _sweep(
    diagonal: Any, off_diagonal: Any, rotations: Any, at: int, first: int, last: int, low: Any, high: Any, g: Any
) -> None:
    """Do one implicit QL sweep over [low, high] of every lane, from below; keep its rotations from offset ``at`` on."""
    width, number = lanes(diagonal), diagonal.dtype.type
    zero, half, one = splat(number(0), 1), splat(number(0.5), 1), splat(number(1), 1)
    s, c, p = one, one, zero
    below = load(diagonal, last * width, 1)
    for i in range(last - 1, first - 1, -1):
        position = splat(number(i), 1)
        active = where_less(position, low, zero, where_less(position, high, one, zero))
        here, coupling = load(diagonal, i * width, 1), load(off_diagonal, i * width, 1)
        f, b = s * coupling, c * coupling
        r = sqrt(f * f + g * g)
        inverse = one / where_less(zero, r, r, one)
        s1, c1 = f * inverse, where_less(zero, r, g * inverse, one)
        d = below - p
        t = (here - d) * s1 + (c1 + c1) * b
        p1 = s1 * t
        store(diagonal, (i + 1) * width, where_less(half, active, d + p1, below))
        bulge = where_less(position + one, high, r, zero)  # a lane's first rotation leaves its block's end uncoupled
        store(off_diagonal, (i + 1) * width, where_less(half, active, bulge, load(off_diagonal, (i + 1) * width, 1)))
        s, c = where_less(half, active, s1, s), where_less(half, active, c1, c)
        p, g = where_less(half, active, p1, p), where_less(half, active, c1 * t - b, g)
        ends = active * where_less(low, position, zero, one)
        below = where_less(half, ends, here - p, here)
        store(off_diagonal, i * width, where_less(half, ends, g, coupling))
        store(rotations, at + 2 * i * width, where_less(half, active, c, one))
        store(rotations, at + (2 * i + 1) * width, where_less(half, active, s, zero))
    store(diagonal, first * width, below)


@njit
def _rotate(basis: Any, rotations: Any, firsts: Any, lasts: Any, count: int, n: int, stride: int) -> None:
    """Apply ``count`` sweeps of rotations to the rows of ``basis``, a few columns at a time."""
    width = lanes(basis)
    for column in range(0, n * width, BLOCK * width):
        for sweep in range(count):
            carried = load(basis, lasts[sweep] * stride * width + column, BLOCK)
            for i in range(lasts[sweep] - 1, firsts[sweep] - 1, -1):
                at = (sweep * n + i) * 2 * width
                c, s = tile(load(rotations, at, 1), BLOCK), tile(load(rotations, at + width, 1), BLOCK)
                row = i * stride * width + column
                x = load(basis, row, BLOCK)
                store(basis, row + stride * width, s * x + c * carried)
                carried = c * x - s * carried
            store(basis, firsts[sweep] * stride * width + column, carried)
