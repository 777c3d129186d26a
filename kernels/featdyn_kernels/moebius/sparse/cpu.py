"""The sparsification solver on the CPU: one sample in each lane of a register, so that every step is full width.

Row t of an array of shape (2**n, lanes) holds entry t of all samples. A lane whose sample is solved takes the next one,
and no sample's result depends on what its neighbours are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels import _simd as simd
from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels.moebius.sparse import settings
from featdyn_kernels.moebius.sparse import step as row
from featdyn_kernels.moebius.sparse.look import look
from featdyn_kernels.moebius.sparse.schur import plan
from featdyn_kernels.moebius.sparse.step import iterate, log2, transform

Array = np.ndarray[Any, Any]

_CHECK, _ADAPTING, _RELAXATION, _FIRST = settings.CHECK, settings.ADAPTING, settings.RELAXATION, settings.FIRST_STEP


def solve(
    values: Array, bound: Array, split: Array, slack: Array, prices: Array, tolerance: float, iterations: int
) -> Array:
    """See :func:`featdyn_kernels.moebius.sparse.reference.solve`."""
    batch, size = values.shape
    n, lanes, kind = size.bit_length() - 1, simd.REGISTER // values.itemsize, values.dtype
    found = plan(n)
    tables = (
        found.operations * np.array([1, 1, 1, lanes]),
        found.pairs * lanes,
        found.turns.astype(kind),
        found.places * lanes,
        found.vectors.astype(kind),
        found.spectrum_at,
        found.vectors_at,
    )
    spectrum, limits = found.spectrum.astype(kind), np.array([tolerance, settings.rounding(n, kind)], kind)
    taken = np.zeros(batch, np.int64)

    def block(start: int, stop: int) -> None:
        work = simd.aligned_empty(row.ARRAYS * size * lanes, kind).reshape(row.ARRAYS, -1)
        work[...] = 0
        numbers = simd.aligned_empty(row.NUMBERS * lanes, kind).reshape(row.NUMBERS, lanes)
        numbers[...] = 1
        inverse = simd.aligned_empty(len(spectrum) * lanes, kind)
        arrays = tuple(array[start:stop] for array in (values, bound, split, slack, prices, taken))
        _solve(arrays, limits, iterations, tables, spectrum, work, numbers, inverse)

    parallel_blocks(block, batch, min_block=lanes)
    return taken


@njit
def _solve(
    arrays: Any, limits: Any, iterations: int, tables: Any, spectrum: Any, work: Any, numbers: Any, inverse: Any
) -> None:
    """Solve the samples of one thread."""
    values, _, split, slack, prices, taken = arrays
    batch, size = values.shape
    lanes, n = simd.lanes(values), log2(size)
    sample = np.full(lanes, -1)
    entered = np.zeros(lanes, np.bool_)
    enough, gap = np.zeros(lanes, values.dtype), np.zeros(lanes, values.dtype)
    waiting = busy = 0
    while waiting < batch or busy > 0:
        for lane in range(lanes):
            entered[lane] = sample[lane] < 0 and waiting < batch
            if entered[lane]:
                _enter(arrays, waiting, work, numbers, lane, limits[1])
                sample[lane] = waiting
                waiting += 1
                busy += 1
        _start(work, n, entered)
        _invert(numbers, spectrum, inverse)
        for k in range(_CHECK):
            relaxation = _RELAXATION if k < _CHECK - 1 else 1.0  # a look is at a point that the proximal steps gave
            iterate(work, numbers, inverse, tables, n, values.dtype.type(relaxation))
        look(work, numbers, n, limits[0], enough, gap)
        for lane in range(lanes):
            k = sample[lane]
            if k < 0:
                continue
            taken[k] += _CHECK
            if taken[k] <= _ADAPTING:
                numbers[row.STEP, lane] = numbers[row.NEXT_STEP, lane]
                numbers[row.SLACK_STEP, lane] = numbers[row.NEXT_SLACK_STEP, lane]
            if gap[lane] <= enough[lane] or taken[k] >= iterations:
                for t in range(size):
                    split[k, t] = work[row.SPLIT, t * lanes + lane]
                    slack[k, t] = work[row.SLACK, t * lanes + lane]
                    prices[k, t] = work[row.PRICE, t * lanes + lane]
                sample[lane] = -1
                busy -= 1


@njit(specialised=False)
def _enter(arrays: Any, sample: int, work: Any, numbers: Any, lane: int, rounding: Any) -> None:
    """Put a sample into a lane, and what its coefficients start from into the arrays to compute in."""
    values, bound, split, slack, prices, _ = arrays
    lanes = simd.lanes(values)
    reach = values.dtype.type(0)
    for t in range(values.shape[1]):
        i = t * lanes + lane
        work[row.VALUES, i] = values[sample, t]
        work[row.SLACK, i] = slack[sample, t]
        work[row.PRICE, i] = prices[sample, t]
        half = (values[sample, t] + slack[sample, t]) / 2
        work[row.LEFT, i] = half + split[sample, t]
        work[row.RIGHT, i] = half - split[sample, t]
        reach = max(reach, abs(values[sample, t] - values[sample, 0]))
    step = _FIRST * reach if reach > 0 else 1.0  # a constant table is solved as it comes
    numbers[row.BOUND, lane] = bound[sample]
    numbers[row.STEP, lane] = numbers[row.SLACK_STEP, lane] = numbers[row.FIRST_STEP, lane] = step
    numbers[row.ROUNDING, lane] = rounding * reach


@njit
def _start(work: Any, n: int, entered: Any) -> None:
    """Set the coefficients of the lanes that were entered."""
    any_entered = False
    for lane in range(entered.size):
        any_entered = any_entered or entered[lane]
    if not any_entered:
        return
    lanes = simd.lanes(work)
    minus = work.dtype.type(-1)
    transform(work[row.LEFT], n, minus, False)
    transform(work[row.RIGHT], n, minus, True)
    for i in range(work.shape[1]):
        if entered[i % lanes]:
            work[row.AND, i] = work[row.LEFT, i]
            work[row.OR, i] = -work[row.RIGHT, i]


@njit
def _invert(numbers: Any, spectrum: Any, inverse: Any) -> None:
    """Set ``inverse`` to ``1 / (step * eigenvalue + slack_step)``."""
    lanes = simd.lanes(inverse)
    for k in range(spectrum.size):
        for lane in range(lanes):
            inverse[k * lanes + lane] = 1 / (numbers[row.STEP, lane] * spectrum[k] + numbers[row.SLACK_STEP, lane])
