"""Moments of maps that are stored channels first, ``(N, F, P)``, without a transposed copy of them.

A sample's channels are rows of positions, and products of two rows are sums along both. Each sample is centred by its
own means; those means are a sample of their own, in float64, whose scatter is the missing part (Chan, Golub, LeVeque
1979). Deviations from them are never larger, in sum of squares, than those from the mean of all samples, so the bounds
of :mod:`featdyn_kernels.moments.cpu` hold here as well; and float32 carries sums of ``CHAIN`` registers, then of a few
such sums, then float64 takes over.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._half import numeric, widen
from featdyn_kernels._jit import njit
from featdyn_kernels._simd import (
    REGISTER,
    absolute,
    aligned_empty,
    load,
    smallest,
    splat,
    store,
    total,
    where_less,
    widened,
)
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels.moments import cpu
from featdyn_kernels.moments.result import Moments

ROWS, COLUMNS = 4, 2  # of a register tile: twice 8 sums and 6 operands; its loads take less time than its products
CHAIN = 16  # registers of products that are summed before the next longer sum takes over
# Positions, of one sample or of several side by side, whose products are summed before float64 takes over: the rows of
# a tile stay in L1. Rows of a multiple of 4 kB would compete for the same lines of it, so one register stands between.
PANEL = 1024
# Elsewhere rows are faster. On a Zen 5 core, in ns for a byte of float16: 16 channels of 1,024 positions 0.2 instead of
# 0.8, 64 of 64 0.4 instead of 0.9, 128 of 64 0.6 instead of 0.9; but 256 of 49 as long, 128 of 16 1.5 instead of 0.9.
WIDEST, FEWEST = 128, 32
LANES = REGISTER // 4
PIECE = 2**16  # positions that one thread takes: sums do not depend on how many threads there are


def accumulate(features: Any) -> Moments | None:
    """Return the moments of maps ``(N, F, P)``, or None where rows are faster, or float64 is needed."""
    x = numeric(features, "features")
    n, width, positions = x.shape
    if n == 0 or width > WIDEST or positions < FEWEST or x.dtype == np.float64:
        return None
    length = max(1, PIECE // positions)
    padded = -(-width // ROWS) * ROWS
    means = np.empty((n, width))
    pieces = np.zeros((-(-n // length), padded, padded))
    reach = np.zeros((len(pieces), width), np.float32)

    def work(first: int, stop: int) -> None:
        side = -(-positions // (2 * LANES)) * 2 * LANES
        together = max(1, PANEL // side)
        packed = aligned_empty(padded * (together * side + LANES), np.float32)
        packed[:] = 0
        for piece in range(first, stop):
            rows = slice(piece * length, (piece + 1) * length)
            _add_maps(x[rows], side, together, packed, means[rows], pieces[piece], reach[piece])

    parallel_blocks(work, len(pieces))
    most = reach.max(axis=0)
    if np.any((most > cpu.LARGEST) | ((most > 0) & (most < cpu.SMALLEST))):
        return None
    upper = np.triu(pieces.sum(axis=0)[:width, :width])
    between = cpu.accumulate(means, None, None, 0)
    scatter = upper + np.triu(upper, 1).T + positions * between.scatter
    return Moments(n * positions, between.mean, scatter)


@njit
def _add_maps(x: Any, side: int, together: int, packed: Any, means: Any, scatter: Any, reach: Any) -> None:
    """Write the means of samples, add their own scatter, and take the largest deviation of each channel."""
    positions, stride = x.shape[2], together * side + LANES
    for first in range(0, x.shape[0], together):
        samples = min(together, x.shape[0] - first)
        for i in range(samples):
            for c in range(x.shape[1]):
                row = x[first + i, c]
                start = c * stride + i * side
                target = packed[start : start + side]
                for j in range(positions):
                    target[j] = widen(row[j])
                target[positions:] = 0
                sums = splat(0.0, 4)
                for j in range(0, side, 2 * LANES):
                    sums = sums + widened(load(target, j, 2))
                mean = total(sums) / positions
                means[first + i, c] = mean
                target[positions:] = target[0]  # of no effect on the largest deviation
                reach[c] = max(reach[c], _centre(target, mean))
                target[positions:] = 0
        for start in range(0, samples * side, PANEL):
            stop = min(start + PANEL, samples * side)
            for i in range(0, len(scatter), ROWS):
                for j in range(i, len(scatter), COLUMNS):
                    _register_tile(packed, stride, start, stop, i, j, scatter)


@njit
def _centre(target: Any, mean: float) -> Any:
    """Take the mean from a row; return its largest deviation."""
    # The mean in two parts, so that the rounding error is relative to the deviation, not to the mean.
    high = target.dtype.type(mean)
    first, second = splat(high, 1), splat(target.dtype.type(mean - high), 1)
    most = splat(target.dtype.type(0), 1)
    for j in range(0, target.size, LANES):
        deviation = (load(target, j, 1) - first) - second
        store(target, j, deviation)
        size = absolute(deviation)
        most = where_less(most, size, size, most)
    return -smallest(splat(target.dtype.type(0), 1) - most)


@njit
def _register_tile(packed: Any, stride: int, start: int, stop: int, i: int, j: int, scatter: Any) -> None:
    """Add the products of rows ``i`` to ``i + 3`` and rows ``j`` and ``j + 1``, positions ``start:stop``."""
    a, b = i * stride, j * stride
    zero = splat(packed.dtype.type(0), 1)
    t0, t1, t2, t3, u0, u1, u2, u3 = zero, zero, zero, zero, zero, zero, zero, zero
    for chain in range(start, stop, CHAIN * LANES):
        s0, s1, s2, s3, r0, r1, r2, r3 = zero, zero, zero, zero, zero, zero, zero, zero
        for k in range(chain, min(chain + CHAIN * LANES, stop), LANES):
            x0, x1 = load(packed, a + k, 1), load(packed, a + stride + k, 1)
            x2, x3 = load(packed, a + 2 * stride + k, 1), load(packed, a + 3 * stride + k, 1)
            y, z = load(packed, b + k, 1), load(packed, b + stride + k, 1)
            s0, s1, s2, s3 = s0 + x0 * y, s1 + x1 * y, s2 + x2 * y, s3 + x3 * y
            r0, r1, r2, r3 = r0 + x0 * z, r1 + x1 * z, r2 + x2 * z, r3 + x3 * z
        t0, t1, t2, t3 = t0 + s0, t1 + s1, t2 + s2, t3 + s3
        u0, u1, u2, u3 = u0 + r0, u1 + r1, u2 + r2, u3 + r3
    left, right = scatter[i : i + ROWS, j], scatter[i : i + ROWS, j + 1]
    left[0] += total(t0)
    left[1] += total(t1)
    left[2] += total(t2)
    left[3] += total(t3)
    right[0] += total(u0)
    right[1] += total(u1)
    right[2] += total(u2)
    right[3] += total(u3)
