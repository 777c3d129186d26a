"""One iteration of the solver on the CPU, and the arrays that it works in."""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

from featdyn_kernels import _simd as simd
from featdyn_kernels._jit import njit
from featdyn_kernels.moebius.cpu import FIRST, strided
from featdyn_kernels.moebius.sparse.leaf import solve as solve_leaf
from featdyn_kernels.moebius.sparse.schur import ROTATE, SOLVE

# Rows of the workspace (ARRAYS, 2**n * lanes): the problem, the state, and three arrays to compute in.
VALUES, AND, OR, SLACK, PRICE, LEFT, RIGHT, SPLIT, ARRAYS = range(9)
# Rows of the lanes' own numbers (NUMBERS, lanes): the bound, the step sizes of coefficients and slack, the first ones,
# the next ones, and the L1 that rounding makes.
BOUND, STEP, SLACK_STEP, FIRST_STEP, NEXT_STEP, NEXT_SLACK_STEP, ROUNDING, NUMBERS = range(8)

_ROTATE, _SOLVE = ROTATE, SOLVE  # what Numba compiles in must be a global of the module


@njit
def log2(size: int) -> int:
    """Return the number of bits of a power of two, less one."""
    n = 0
    while 1 << n < size:
        n += 1
    return n


@njit(specialised=False)
def transform(f: Any, n: int, sign: Any, adjoint: bool) -> None:
    """Transform a row of the workspace."""
    for start in range(0, 1 << n, 1 << min(n, FIRST)):
        _low(f, start, n, sign, adjoint)
    _high(f, n, sign, adjoint)


@njit(specialised=False)
def _low(f: Any, start: int, n: int, sign: Any, adjoint: bool) -> None:
    """Transform the variables that a block of the first-level cache holds, in the block at entry ``start``."""
    lanes = simd.lanes(f)
    lane_bits = log2(lanes)
    strided(f, start * lanes, lane_bits, lane_bits + min(n, FIRST), 0, lanes, 4, sign, adjoint)


@njit(specialised=False)
def _high(f: Any, n: int, sign: Any, adjoint: bool) -> None:
    lane_bits = log2(simd.lanes(f))
    first = lane_bits + min(n, FIRST)
    strided(f, 0, first, lane_bits + n, 0, 1 << first, 2, sign, adjoint)


@register_jitable(inline="always")
def copy(source: Any, target: Any) -> None:
    """Copy whole registers."""
    for i in range(0, source.size, simd.lanes(source)):
        simd.store(target, i, simd.load(source, i, 1))


@register_jitable(inline="always")
def clip(x: Any, low: Any, high: Any) -> Any:
    """Return every lane of x, held between those of ``low`` and ``high``."""
    above = simd.where_less(x, low, low, x)
    return simd.where_less(high, above, high, above)


@njit
def iterate(work: Any, numbers: Any, inverse: Any, tables: Any, n: int, relaxation: Any) -> None:
    """Take one step of the method that :mod:`featdyn_kernels.moebius.sparse` describes."""
    one = work.dtype.type(1)
    prices, left, right = work[PRICE], work[LEFT], work[RIGHT]
    last = (1 << n) - 1
    _coefficients(prices, left, work[AND], numbers[STEP], n, 0, one, False, relaxation)
    _coefficients(prices, right, work[OR], numbers[STEP], n, last, -one, True, relaxation)
    _residual(work, numbers, relaxation)
    _solve_coupled(left, inverse, tables)
    factor = simd.splat(-relaxation, 1)
    for i in range(0, prices.size, simd.lanes(prices)):
        simd.store(prices, i, factor * simd.load(left, i, 1) + simd.load(prices, i, 1))


@njit(specialised=False)
def _coefficients(
    prices: Any, target: Any, coefficients: Any, step: Any, n: int, free: int, sign: Any, adjoint: bool, relaxation: Any
) -> None:
    """Step the coefficients c and set ``target`` to ``T (2 c_new - c_old)``.

    ``c_new = soft(c_old + sign * step * T^* prices, step)``; T is the zeta transform or, with ``adjoint``, its adjoint;
    the coefficient ``free`` costs nothing.
    """
    lanes, one = simd.lanes(prices), prices.dtype.type(1)
    copy(prices, target)
    _high(target, n, one, not adjoint)
    high = simd.load(step, 0, 1)
    low = simd.splat(-one, 1) * high
    rate, factor = simd.splat(sign, 1) * high, simd.splat(relaxation, 1)
    for start in range(0, 1 << n, 1 << min(n, FIRST)):  # prices in, coefficients out, while the block is in cache
        _low(target, start, n, one, not adjoint)
        for t in range(start, start + (1 << min(n, FIRST))):
            old = simd.load(coefficients, t * lanes, 1)
            new = rate * simd.load(target, t * lanes, 1) + old
            if t != free:
                new = new - clip(new, low, high)
            change = new - old
            simd.store(target, t * lanes, new + change)
            simd.store(coefficients, t * lanes, factor * change + old)
        _low(target, start, n, one, adjoint)
    _high(target, n, one, adjoint)


@njit
def _residual(work: Any, numbers: Any, relaxation: Any) -> None:
    """Step the slack q and set ``left`` to ``left - right - (2 q_new - q_old) - values``."""
    values, slack, prices, left, right = work[VALUES], work[SLACK], work[PRICE], work[LEFT], work[RIGHT]
    lanes = simd.lanes(values)
    minus, factor = simd.splat(-values.dtype.type(1), 1), simd.splat(relaxation, 1)
    high, step = simd.load(numbers[BOUND], 0, 1), simd.load(numbers[SLACK_STEP], 0, 1)
    low, back = minus * high, minus * step
    for i in range(0, values.size, lanes):
        value, old = simd.load(values, i, 1), simd.load(slack, i, 1)
        new = back * simd.load(prices, i, 1) + old
        if i == 0:  # the empty set costs |value + slack|
            new = new + value
            new = new - clip(new, back, step) - value
        new = clip(new, low, high)
        change = new - old
        simd.store(slack, i, factor * change + old)
        simd.store(left, i, simd.load(left, i, 1) - simd.load(right, i, 1) - (new + change) - value)


@njit
def _solve_coupled(f: Any, inverse: Any, tables: Any) -> None:
    """Replace f by the solution x of ``(step * (Z Z^T + Z^T Z) + slack_step * I) x = f``."""
    operations, pairs, turns, places, vectors, spectrum_at, vectors_at = tables
    lanes = simd.lanes(f)
    minus = simd.splat(-f.dtype.type(1), 1)
    for k in range(len(operations)):
        kind, start, stop, span = operations[k]
        if kind == _SOLVE:
            solve_leaf(f, places, start, vectors, vectors_at[stop], inverse, spectrum_at[stop] * lanes, stop)
            continue
        for r in range(start, stop):
            cosine, sine = simd.splat(turns[r, 0], 1), simd.splat(turns[r, 1], 1)
            if kind != _ROTATE:
                sine = minus * sine
            back = minus * sine
            i, j = pairs[r]
            for at in range(0, span, lanes):
                a, b = simd.load(f, i + at, 1), simd.load(f, j + at, 1)
                simd.store(f, i + at, cosine * a + sine * b)
                simd.store(f, j + at, cosine * b + back * a)
