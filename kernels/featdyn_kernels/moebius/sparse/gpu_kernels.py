"""The solver's Triton kernels; a program of ``step_kernel`` and ``look_kernel`` holds one sample in registers.

The two kinds of coefficients are two rows of one tile: those of AND, whose transform is Z, and those of OR, indexed by
complements, whose transform is -Z^T. So one call transforms both, each row in its own direction.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from featdyn_kernels.moebius.gpu import butterflies
from featdyn_kernels.moebius.sparse import settings

# Rows of the workspace (ARRAYS, batch, 2**n): the problem, the state, what is left to add to the prices (as
# residual, then solved for, in the basis of the blocks), and the split that was looked at.
VALUES, COEFFICIENTS, SLACK, PRICE, MOVE, SPLIT, ARRAYS = 0, 1, 3, 4, 5, 6, 7
# Rows of the samples' own numbers (NUMBERS, batch).
BOUND, STEP, SLACK_STEP, FIRST_STEP, ROUNDING, NUMBERS = range(6)

# What a kernel reads must be a constant expression. (An argument of 1 is one too, and has no `.to`.)
_VALUES, _COEFFICIENTS, _SLACK = tl.constexpr(VALUES), tl.constexpr(COEFFICIENTS), tl.constexpr(SLACK)
_PRICE, _MOVE, _SPLIT = tl.constexpr(PRICE), tl.constexpr(MOVE), tl.constexpr(SPLIT)
_BOUND, _STEP, _SLACK_STEP = tl.constexpr(BOUND), tl.constexpr(STEP), tl.constexpr(SLACK_STEP)
_FIRST_STEP, _ROUNDING = tl.constexpr(FIRST_STEP), tl.constexpr(ROUNDING)
_COEFFICIENT_FACTOR, _SLACK_FACTOR = tl.constexpr(settings.COEFFICIENT_STEP), tl.constexpr(settings.SLACK_STEP)
_RANGE = tl.constexpr(settings.STEP_RANGE)


@triton.jit
def step_kernel(
    running_ptr,  # (running,)
    work_ptr,  # (ARRAYS, batch, 2**n)
    numbers_ptr,  # (NUMBERS, batch)
    high_ptr,  # (2**HIGH, 2**HIGH)
    low_ptr,  # (2**LOW, 2**LOW)
    batch,
    pending,
    relaxation,
    HIGH: tl.constexpr,
    LOW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Move the prices as solved for, step coefficients and slack, and leave the residual to solve for."""
    N: tl.constexpr = HIGH + LOW
    SIZE: tl.constexpr = 1 << N
    sample = tl.load(running_ptr + tl.program_id(0))
    work, array = work_ptr + sample * SIZE, tl.full((), SIZE, tl.int64) * batch
    own = numbers_ptr + sample
    entry, kind = tl.arange(0, SIZE), tl.arange(0, 2)
    y = _moved_prices(work, array, high_ptr, low_ptr, pending, HIGH, LOW, PRECISION)

    step = tl.load(own + _STEP * batch)
    sign, free = _sign(y, kind), entry[None, :] == kind[:, None] * (SIZE - 1)
    at = work + (_COEFFICIENTS + kind[:, None]) * array + entry[None, :]
    old = tl.load(at)
    new = old + step * sign * butterflies(_both(y), 1 - kind[:, None, None, None], 1.0, 0, N)
    new = tl.where(free, new, new - _clip(new, -step, step))
    change = new - old
    tl.store(at, relaxation * change + old)
    tables = butterflies(new + change, kind[:, None, None, None], 1.0, 0, N)

    values, old = tl.load(work + _VALUES * array + entry), tl.load(work + _SLACK * array + entry)
    step, bound = tl.load(own + _SLACK_STEP * batch), tl.load(own + _BOUND * batch)
    new = old - step * y
    # The empty set costs |value + slack|.
    new = tl.where(entry == 0, new - _clip(new + values, -step, step), new)
    new = _clip(new, -bound, bound)
    change = new - old
    tl.store(work + _SLACK * array + entry, relaxation * change + old)
    residual = tl.sum(sign * tables, 0) - (new + change) - values
    _store_move(work + _MOVE * array, residual, high_ptr, low_ptr, HIGH, LOW, PRECISION)


@triton.jit
def solve_kernel(
    running_ptr,  # (running,)
    work_ptr,  # (ARRAYS, batch, size)
    numbers_ptr,  # (NUMBERS, batch)
    places_ptr,  # (blocks, WIDTH)
    vectors_ptr,  # (blocks, WIDTH, WIDTH)
    spectrum_ptr,  # (blocks, WIDTH)
    batch,
    running,
    size,
    SAMPLES: tl.constexpr,
    WIDTH: tl.constexpr,
    PART: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Replace residuals x by the solutions of ``(step * (Z Z^T + Z^T Z) + slack_step * I) move = x``."""
    row, column, block = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES), tl.arange(0, WIDTH), tl.program_id(1)
    inside = row < running
    sample = tl.load(running_ptr + row, inside, 0)
    place = tl.load(places_ptr + block * WIDTH + column)
    move = work_ptr + tl.full((), _MOVE, tl.int64) * batch * size
    at, mask = move + sample[:, None] * size + place[None, :], inside[:, None] & (place >= 0)[None, :]
    step = tl.load(numbers_ptr + _STEP * batch + sample, inside, 1.0)
    slack_step = tl.load(numbers_ptr + _SLACK_STEP * batch + sample, inside, 1.0)
    x = tl.load(at, mask, 0.0)
    solution = tl.zeros_like(x)
    for first in range(0, WIDTH, PART):
        part = first + tl.arange(0, PART)
        vectors = tl.load(vectors_ptr + (block * WIDTH + column)[:, None] * WIDTH + part[None, :])
        eigenvalues = step[:, None] * tl.load(spectrum_ptr + block * WIDTH + part)[None, :] + slack_step[:, None]
        along = _product(x, vectors, PRECISION) / eigenvalues
        solution += _product(along, tl.trans(vectors), PRECISION)
    tl.store(at, solution, mask)


@triton.jit
def look_kernel(
    running_ptr,  # (running,)
    work_ptr,  # (ARRAYS, batch, 2**n)
    numbers_ptr,  # (NUMBERS, batch)
    high_ptr,  # (2**HIGH, 2**HIGH)
    low_ptr,  # (2**LOW, 2**LOW)
    unsolved_ptr,  # (running,)
    batch,
    pending,
    tolerance,
    adapt,
    HIGH: tl.constexpr,
    LOW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Find the split and its gap; set whether the gap is too large and, if ``adapt``, the next steps."""
    N: tl.constexpr = HIGH + LOW
    SIZE: tl.constexpr = 1 << N
    sample = tl.load(running_ptr + tl.program_id(0))
    work, array = work_ptr + sample * SIZE, tl.full((), SIZE, tl.int64) * batch
    own = numbers_ptr + sample
    entry, kind = tl.arange(0, SIZE), tl.arange(0, 2)
    y = _moved_prices(work, array, high_ptr, low_ptr, pending, HIGH, LOW, PRECISION)
    values, slack = tl.load(work + _VALUES * array + entry), tl.load(work + _SLACK * array + entry)
    sign, free = _sign(y, kind), entry[None, :] == kind[:, None] * (SIZE - 1)

    # What the coefficients leave unexplained is shared in halves between AND and OR.
    coefficients = tl.load(work + (_COEFFICIENTS + kind[:, None]) * array + entry[None, :])
    tables = butterflies(coefficients, kind[:, None, None, None], 1.0, 0, N)
    tl.store(work + _SPLIT * array + entry, tl.sum(tables, 0) / 2)
    rest = _both((values + slack - tl.sum(sign * tables, 0)) / 2)
    found = coefficients + sign * butterflies(rest, kind[:, None, None, None], -1.0, 0, N)
    primal = tl.sum(tl.sum(tl.where(free, 0.0, tl.abs(coefficients)), 1), 0)
    l1 = tl.sum(tl.sum(tl.where(free, 0.0, tl.abs(found)), 1), 0)

    # The lower bound, as in certificate.py.
    empty, bound = tl.load(work + _VALUES * array), tl.load(own + _BOUND * batch)
    nearest = _clip(tl.zeros_like(empty), empty - bound, empty + bound)
    l1 += tl.abs(tl.load(work + _SLACK * array) + empty) - tl.abs(nearest)
    total = tl.sum(y, 0)
    reduced = butterflies(_both(y), 1 - kind[:, None, None, None], 1.0, 0, N) - kind[:, None] * total
    reduced = tl.where(free, 0.0, tl.abs(reduced))
    worth = tl.where(entry == 0, (y - total) * nearest, y * values - bound * tl.abs(y))
    largest = tl.max(tl.max(reduced, 1), 0)
    gap = l1 - tl.sum(worth, 0) / tl.where(largest > 1.0, largest, 1.0)
    enough, rounding = tolerance * l1, tl.load(own + _ROUNDING * batch)
    solved = gap <= tl.where(enough < rounding, rounding, enough)
    tl.store(unsolved_ptr + tl.program_id(0), solved == 0)

    if adapt:
        first, dual = tl.load(own + _FIRST_STEP * batch), tl.sum(tl.sum(reduced, 1), 0)
        _adapt(own + _STEP * batch, first, _COEFFICIENT_FACTOR, primal, dual)
        _adapt(own + _SLACK_STEP * batch, first, _SLACK_FACTOR, tl.sum(tl.abs(slack), 0), tl.sum(tl.abs(y), 0))


@triton.jit
def _adapt(step_ptr, first, FACTOR: tl.constexpr, primal, dual):
    """Move a step half way, on a log scale, to ``FACTOR`` times the size of the primal over that of the dual."""
    wanted = tl.where(dual > 0, FACTOR * primal / tl.where(dual > 0, dual, 1.0), first * _RANGE)
    tl.store(step_ptr, tl.sqrt(tl.load(step_ptr) * _clip(wanted, first / _RANGE, first * _RANGE)))


@triton.jit
def _clip(x, low, high):
    above = tl.where(x < low, low, x)
    return tl.where(high < above, high, above)


@triton.jit
def _both(x):
    return tl.broadcast_to(x[None, :], (2, x.shape[0]))


@triton.jit
def _sign(x, kind):
    """Return 1 for the row of AND and -1 for that of OR."""
    return (1 - 2 * kind[:, None]).to(x.dtype)


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=a.dtype)


@triton.jit
def _moved_prices(
    work, array, high_ptr, low_ptr, pending, HIGH: tl.constexpr, LOW: tl.constexpr, PRECISION: tl.constexpr
):
    """Return the prices after the move, as they are also stored."""
    at = work + _PRICE * array + tl.arange(0, 1 << (HIGH + LOW))
    if HIGH:
        a, b = tl.arange(0, 1 << HIGH), tl.arange(0, 1 << LOW)
        move = tl.load(work + _MOVE * array + (a[:, None] * (1 << LOW) + b[None, :]))
        move = _product(tl.load(high_ptr + a[:, None] * (1 << HIGH) + a[None, :]), move, PRECISION)
        move = _product(move, tl.load(low_ptr + b[None, :] * (1 << LOW) + b[:, None]), PRECISION)
        move = tl.reshape(move, (1 << (HIGH + LOW),))
    else:
        move = tl.load(work + _MOVE * array + tl.arange(0, 1 << LOW))
    y = tl.load(at) - pending * move
    tl.store(at, y)
    return y


@triton.jit
def _store_move(target, x, high_ptr, low_ptr, HIGH: tl.constexpr, LOW: tl.constexpr, PRECISION: tl.constexpr):
    """Store x in the basis of the blocks."""
    if HIGH:
        a, b = tl.arange(0, 1 << HIGH), tl.arange(0, 1 << LOW)
        x = tl.reshape(x, (1 << HIGH, 1 << LOW))
        x = _product(tl.load(high_ptr + a[None, :] * (1 << HIGH) + a[:, None]), x, PRECISION)
        x = _product(x, tl.load(low_ptr + b[:, None] * (1 << LOW) + b[None, :]), PRECISION)
        tl.store(target + (a[:, None] * (1 << LOW) + b[None, :]), x)
    else:
        tl.store(target + tl.arange(0, 1 << LOW), x)
