"""Blocks of 4 x 4 pairs of times, summed along the features in registers.

Each value that is loaded serves four pairs, and the 16 sums stay in registers; a chunk of features of eight points fits
the first-level cache. The sums of a chunk are float32, chunks are added up in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._simd import lanes, load, splat, store
from featdyn_kernels._threads import parallel_blocks

SIDE = 4  # pairs of a block are SIDE x SIDE: 16 sums and 8 operands of AVX-512's 32 registers
CHUNK = 1024  # features: eight points of 4 KiB


def squared_distances(paths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """See :func:`featdyn_kernels.paths.squared_distances`; ``paths`` is contiguous float32 or float64."""
    n, steps, width = paths.shape
    out = np.zeros((n, steps, steps))
    if n and width:
        work = max(1, steps * steps * width)
        parallel_blocks(lambda i, j: _paths(paths, i, j, out), n, min_block=max(1, 2**18 // work))
    return out


@njit
def _paths(paths: Any, first: int, stop: int, out: Any) -> None:
    steps, width = paths.shape[1], paths.shape[2]
    flat = paths.reshape(-1)
    sums = np.empty(SIDE * SIDE * lanes(paths), paths.dtype)
    for n in range(first, stop):
        for start in range(0, width, CHUNK):
            length = min(CHUNK, width - start)
            for a in range(0, steps, SIDE):
                for b in range(a, steps, SIDE):
                    _block(flat, n * steps * width + start, width, steps, a, b, length, sums, out[n])
        for i in range(steps):
            for j in range(i):
                out[n, i, j] = out[n, j, i]


@njit
def _block(flat: Any, origin: int, width: int, steps: int, a: int, b: int, length: int, sums: Any, out: Any) -> None:
    """Add what ``length`` features give to the distances between times ``a`` to a + 3 and ``b`` to b + 3."""
    # Beyond the last time the last one stands in; what it gives is not kept.
    a0, b0 = origin + a * width, origin + b * width
    a1, b1 = origin + min(a + 1, steps - 1) * width, origin + min(b + 1, steps - 1) * width
    a2, b2 = origin + min(a + 2, steps - 1) * width, origin + min(b + 2, steps - 1) * width
    a3, b3 = origin + min(a + 3, steps - 1) * width, origin + min(b + 3, steps - 1) * width
    zero = splat(flat.dtype.type(0), 1)
    s00, s01, s02, s03 = zero, zero, zero, zero
    s10, s11, s12, s13 = zero, zero, zero, zero
    s20, s21, s22, s23 = zero, zero, zero, zero
    s30, s31, s32, s33 = zero, zero, zero, zero
    step = lanes(flat)
    whole = length - length % step
    for k in range(0, whole, step):
        y0, y1 = load(flat, b0 + k, 1), load(flat, b1 + k, 1)
        y2, y3 = load(flat, b2 + k, 1), load(flat, b3 + k, 1)
        x = load(flat, a0 + k, 1)
        s00, s01 = s00 + (x - y0) * (x - y0), s01 + (x - y1) * (x - y1)
        s02, s03 = s02 + (x - y2) * (x - y2), s03 + (x - y3) * (x - y3)
        x = load(flat, a1 + k, 1)
        s10, s11 = s10 + (x - y0) * (x - y0), s11 + (x - y1) * (x - y1)
        s12, s13 = s12 + (x - y2) * (x - y2), s13 + (x - y3) * (x - y3)
        x = load(flat, a2 + k, 1)
        s20, s21 = s20 + (x - y0) * (x - y0), s21 + (x - y1) * (x - y1)
        s22, s23 = s22 + (x - y2) * (x - y2), s23 + (x - y3) * (x - y3)
        x = load(flat, a3 + k, 1)
        s30, s31 = s30 + (x - y0) * (x - y0), s31 + (x - y1) * (x - y1)
        s32, s33 = s32 + (x - y2) * (x - y2), s33 + (x - y3) * (x - y3)
    store(sums, 0, s00), store(sums, step, s01), store(sums, 2 * step, s02), store(sums, 3 * step, s03)
    store(sums, 4 * step, s10), store(sums, 5 * step, s11), store(sums, 6 * step, s12), store(sums, 7 * step, s13)
    store(sums, 8 * step, s20), store(sums, 9 * step, s21), store(sums, 10 * step, s22), store(sums, 11 * step, s23)
    store(sums, 12 * step, s30), store(sums, 13 * step, s31), store(sums, 14 * step, s32), store(sums, 15 * step, s33)
    for i in range(min(SIDE, steps - a)):
        for j in range(min(SIDE, steps - b)):
            total = 0.0
            for lane in range(step):
                total += sums[(i * SIDE + j) * step + lane]
            x, y = origin + (a + i) * width, origin + (b + j) * width
            for k in range(whole, length):
                total += (flat[x + k] - flat[y + k]) * (flat[x + k] - flat[y + k])
            out[a + i, b + j] += total
