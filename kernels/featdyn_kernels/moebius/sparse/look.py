"""What the solver on the CPU looks at every few iterations: the gap of every lane, and the steps to take next."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels import _simd as simd
from featdyn_kernels._jit import njit
from featdyn_kernels.moebius.sparse import settings
from featdyn_kernels.moebius.sparse import step as row
from featdyn_kernels.moebius.sparse.step import clip, copy, transform

_FACTORS = settings.COEFFICIENT_STEP, settings.SLACK_STEP
_RANGE = settings.STEP_RANGE


@njit
def look(work: Any, numbers: Any, n: int, tolerance: Any, enough: Any, gap: Any) -> None:
    """Set ``gap`` and the gap that is small ``enough`` of every lane, the split of that gap, and the next steps."""
    lanes = simd.lanes(work)
    zero, bound = simd.splat(work.dtype.type(0), 1), simd.load(numbers[row.BOUND], 0, 1)
    empty = simd.load(work[row.VALUES], 0, 1)
    nearest = clip(zero, empty - bound, empty + bound)  # the empty set's share of L1 is never less
    l1, size = _primal(work, n)
    worth, reduced = _dual(work, n, bound, nearest)
    l1 = l1 - simd.absolute(nearest)
    wanted, lost = simd.splat(tolerance, 1) * l1, simd.load(numbers[row.ROUNDING], 0, 1)
    simd.store(enough, 0, simd.where_less(wanted, lost, lost, wanted))
    simd.store(gap, 0, l1 - worth)
    slack_size, price_size = zero, zero
    for i in range(0, work.shape[1], lanes):
        slack_size = slack_size + simd.absolute(simd.load(work[row.SLACK], i, 1))
        price_size = price_size + simd.absolute(simd.load(work[row.PRICE], i, 1))
    first = numbers[row.FIRST_STEP]
    _next(numbers[row.STEP], numbers[row.NEXT_STEP], first, _FACTORS[0], size, reduced)
    _next(numbers[row.SLACK_STEP], numbers[row.NEXT_SLACK_STEP], first, _FACTORS[1], slack_size, price_size)


@njit
def _primal(work: Any, n: int) -> Any:
    """Set the split, and return its L1 and the sum of the coefficients' sizes.

    What the coefficients leave unexplained is shared in halves between AND and OR.
    """
    lanes, one = simd.lanes(work), work.dtype.type(1)
    left, right = work[row.LEFT], work[row.RIGHT]
    copy(work[row.AND], left)
    copy(work[row.OR], right)
    transform(left, n, one, False)
    transform(right, n, one, True)
    half = simd.splat(work.dtype.type(0.5), 1)
    for i in range(0, left.size, lanes):
        a, o = simd.load(left, i, 1), simd.load(right, i, 1)
        simd.store(work[row.SPLIT], i, half * (a + o))
        rest = half * (simd.load(work[row.VALUES], i, 1) + simd.load(work[row.SLACK], i, 1) - a + o)
        simd.store(left, i, rest)
        simd.store(right, i, rest)
    transform(left, n, -one, False)
    transform(right, n, -one, True)
    l1 = simd.absolute(simd.load(work[row.VALUES], 0, 1) + simd.load(work[row.SLACK], 0, 1))
    size = simd.splat(one - one, 1)
    last = (1 << n) - 1
    for t in range(1 << n):
        a, o = simd.load(work[row.AND], t * lanes, 1), simd.load(work[row.OR], t * lanes, 1)
        if t != 0:
            l1 = l1 + simd.absolute(a + simd.load(left, t * lanes, 1))
            size = size + simd.absolute(a)
        if t != last:
            l1 = l1 + simd.absolute(o - simd.load(right, t * lanes, 1))
            size = size + simd.absolute(o)
    return l1, size


@njit
def _dual(work: Any, n: int, bound: Any, nearest: Any) -> Any:
    """Return the lower bound less ``|nearest|``, and the sum of the reduced prices' sizes.

    See :mod:`featdyn_kernels.moebius.sparse.certificate`.
    """
    lanes, one = simd.lanes(work), work.dtype.type(1)
    left, right, prices = work[row.LEFT], work[row.RIGHT], work[row.PRICE]
    copy(prices, left)
    copy(prices, right)
    transform(left, n, one, True)
    transform(right, n, one, False)
    last = (1 << n) - 1
    everything = simd.load(right, last * lanes, 1)
    largest = simd.splat(one, 1)
    reduced = worth = simd.splat(one - one, 1)
    for t in range(1 << n):
        a, o = simd.absolute(simd.load(left, t * lanes, 1)), simd.load(right, t * lanes, 1)
        if t != 0:
            price = simd.load(prices, t * lanes, 1)
            largest = simd.where_less(largest, a, a, largest)
            reduced = reduced + a
            worth = worth + (price * simd.load(work[row.VALUES], t * lanes, 1) - bound * simd.absolute(price))
        if t != last:
            o = simd.absolute(o - everything)
            largest = simd.where_less(largest, o, o, largest)
            reduced = reduced + o
    return (worth + (simd.load(prices, 0, 1) - everything) * nearest) / largest, reduced


@njit
def _next(steps: Any, following: Any, first: Any, factor: float, primal: Any, dual: Any) -> None:
    """Move steps half way, on a log scale, to ``factor`` times the size of the primal over that of the dual."""
    sizes = np.empty((2, steps.size), steps.dtype)
    simd.store(sizes[0], 0, primal)
    simd.store(sizes[1], 0, dual)
    for lane in range(steps.size):
        least, most = first[lane] / _RANGE, first[lane] * _RANGE
        wanted = factor * sizes[0, lane] / sizes[1, lane] if sizes[1, lane] > 0 else most
        following[lane] = np.sqrt(steps[lane] * min(max(wanted, least), most))
