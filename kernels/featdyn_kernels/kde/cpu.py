"""Gaussian kernel sums on the CPU: distance tiles in the cache, a running minimum per query, nothing of size M x N."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels._tiles.coordinates import scaled_pair
from featdyn_kernels._tiles.registers import ROWS, SMALL, panels, rows_per_tile
from featdyn_kernels._tiles.tiles import GROUP, fill_tile, pairs, tile_of, tiles, weigh
from featdyn_kernels._tiles.vectors import exp2_in_place, exp2_sum, nearest
from featdyn_kernels.kde.whitening import whitening

Array = np.ndarray[Any, Any]

_CHUNK = 1024  # queries whose sums are held at once: 8 KiB for each weight vector


def log_density(queries: Array, samples: Array, bandwidth: Any, weights: Array | None) -> Array:
    """See :func:`featdyn_kernels.kde.log_density`."""
    white = whitening(bandwidth, samples.shape[1])
    rows, points = scaled_pair(queries, samples, white.scale)
    relative = None if weights is None else weights / weights.max()
    total = len(samples) if relative is None else relative.sum()
    return np.asarray(_log_sums(rows, points, relative) - np.log(total) + white.log_peak)


def log_density_many(queries: Array, samples: Array, bandwidth: Any, weights: Array) -> Array:
    """See :func:`featdyn_kernels.kde.log_density_many`."""
    white = whitening(bandwidth, samples.shape[1])
    rows, points = scaled_pair(queries, samples, white.scale)
    relative = weights / weights.max(axis=1, keepdims=True)
    found, columns = pairs(rows, points), panels(relative.astype(points.dtype))
    result = np.empty((len(weights), len(found.rows)))

    def work(first: int, stop: int) -> None:
        _many_sums(found, columns, first, stop, result)

    cost = len(points) * (points.shape[1] + len(weights))
    parallel_blocks(work, len(found.rows), min_block=1 + SMALL // cost, align=ROWS)
    result = result[:, : len(rows)]
    for r in np.flatnonzero(np.isnan(result).any(axis=1)):  # a weight vector that is zero near some queries
        lost = np.isnan(result[r])
        result[r, lost] = _log_sums(rows[lost], points, relative[r])
    return np.asarray(result - np.log(relative.sum(axis=1, keepdims=True)) + white.log_peak)


def _log_sums(rows: Array, points: Array, weights: Array | None) -> Array:
    """Return the natural log of ``sum_j weights[j] 2**(-|rows[i] - points[j]|^2)``; weights at most 1."""
    dtype, start = points.dtype, None
    if weights is not None:
        with np.errstate(divide="ignore"):
            start = np.minimum(0.0 - np.log2(weights), np.finfo(dtype).max).astype(dtype)
    found = pairs(rows, points, start)
    least = np.full(len(found.rows), np.finfo(dtype).max, dtype)
    sums = np.zeros(len(found.rows))

    def work(first: int, stop: int) -> None:
        _single_sums(found, first, stop, least, sums)

    parallel_blocks(work, len(found.rows), min_block=1 + SMALL // points.size, align=ROWS)
    far = least == np.finfo(dtype).max  # a distance beyond float64: its log is -inf, rightly rounded
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(far, 0.0, sums)) - np.log(2.0) * least.astype(np.float64)
    return np.asarray(logs[: len(rows)])


@njit
def _single_sums(pairs: Any, first: int, stop: int, least: Any, sums: Any) -> None:
    """Add the samples into ``sums[i]``, in units of the ``2**-least[i]`` of the nearest sample so far."""
    tile, one = tile_of(pairs, rows_per_tile(pairs.rows.shape[1])), pairs.rows.dtype.type(1)
    for k in range(tiles(pairs, first, stop, tile)):
        g, g_stop, _, count = fill_tile(pairs, first, stop, k, tile, np.inf, False)
        for i in range(g, g_stop):
            near = nearest(tile, i - g, count)
            if near < least[i]:
                sums[i] *= 2.0 ** (np.float64(near) - np.float64(least[i]))
                least[i] = near
            sums[i] += exp2_sum(tile, i - g, count, least[i], one)


@njit
def _many_sums(pairs: Any, weights: Any, first: int, stop: int, result: Any) -> None:
    """Write the natural log of each weight vector's sum, NaN where float32 (float64) lost it to underflow."""
    width, number = weights.shape[2], pairs.rows.dtype.type
    tile, part = tile_of(pairs, GROUP), np.empty((ROWS, width), pairs.rows.dtype)
    one = np.ones(1, pairs.rows.dtype)
    # Each term is right to 2**-126 (2**-1022) of the nearest sample's: below this sum that is not precise enough.
    lost = pairs.n * 2.0 ** (-100 if pairs.rows.itemsize == 4 else -965)
    for c in range(first, stop, _CHUNK):
        c_stop = min(c + _CHUNK, stop)
        sums = np.zeros((c_stop - c, weights.shape[0] * width))
        least = np.full(c_stop - c, np.float64(np.finfo(pairs.rows.dtype).max))
        for k in range(tiles(pairs, c, c_stop, tile)):
            g, g_stop, offset, count = fill_tile(pairs, c, c_stop, k, tile, np.inf, False)
            for i in range(g, g_stop):
                near = nearest(tile, i - g, count)
                if near < least[i - c]:
                    sums[i - c] *= 2.0 ** (near - least[i - c])
                    least[i - c] = near
                exp2_in_place(tile, i - g, count, number(least[i - c]), one)
            for v in range(weights.shape[0]):
                for i in range(g, g_stop, ROWS):
                    weigh(tile, i - g, count, weights, v, offset, part)
                    for r in range(ROWS):
                        for w in range(width):
                            sums[i - c + r, v * width + w] += part[r, w]
        for i in range(c, c_stop):
            for r in range(result.shape[0]):
                total = sums[i - c, r]
                result[r, i] = np.log(total) - np.log(2.0) * least[i - c] if total > lost else np.nan
