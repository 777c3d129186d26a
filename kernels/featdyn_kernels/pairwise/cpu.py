"""Sums over all pairs on the CPU: distance tiles in the cache, reduced as they are made."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels._tiles.coordinates import scaled_pair
from featdyn_kernels._tiles.registers import ROWS, fill, padded_rows, panels, panels_per_tile, products, rows_per_tile
from featdyn_kernels._tiles.vectors import FAST, exp2
from featdyn_kernels.pairwise.scaling import scaling

Array = np.ndarray[Any, Any]

_GROUP = 64  # points that share one pass over the labels
_SMALL = 2**22  # multiply-adds below which a second thread costs more than it saves


def pair_sums(x: Array, y: Array, bandwidths: Array | None) -> tuple[float, float, float]:
    """See :func:`featdyn_kernels.pairwise.reference.pair_sums`."""
    a, b, factors, unit = _prepared(x, y, bandwidths)
    return unit * _sum(a, a, True, factors), unit * _sum(b, b, True, factors), unit * _sum(a, b, False, factors)


def labelled_sums(points: Array, members: Array, bandwidths: Array | None) -> tuple[Array, Array, Array]:
    """See :func:`featdyn_kernels.pairwise.reference.labelled_sums`."""
    a, _, factors, unit = _prepared(points, points, bandwidths)
    n, vectors = len(a), len(members)
    everyone = np.ones((1, n), a.dtype)
    rows, columns, start = padded_rows(a), panels(a), panels(np.zeros((n, 1), a.dtype))
    labels = panels(np.concatenate([members.astype(a.dtype), everyone]))
    parts: dict[int, tuple[Array, Array]] = {}  # by their first row: summed in a fixed order

    def work(first: int, stop: int) -> None:
        parts[first] = _labelled(rows, columns, start, labels, n, first * ROWS, stop * ROWS, vectors, factors)

    parallel_blocks(work, len(rows) // ROWS, min_block=1 + _SMALL // (ROWS * n * (a.shape[1] + vectors)))
    within = unit * np.sum([parts[first][0] for first in sorted(parts)], axis=0)
    row_sums = unit * np.concatenate([parts[first][1] for first in sorted(parts)])[:n]
    from_members = members @ row_sums
    return within, row_sums.sum() - 2.0 * from_members + within, from_members - within


def _prepared(x: Array, y: Array, bandwidths: Array | None) -> tuple[Array, Array, Array, float]:
    """Return both samples in the units of :func:`scaling`, the factors, and the unit of the sums."""
    extent = float(np.abs(y[: 2**10] - y[0].astype(np.float64)).max())
    scale, spread, factors, unit = scaling(bandwidths, extent)
    a, b = scaled_pair(x, y, np.full(y.shape[1], scale), spread)
    return a, b, factors.astype(b.dtype), unit


def _sum(a: Array, b: Array, same: bool, factors: Array) -> float:
    """Return the sum over ordered pairs of one from each, or of two different ones if ``same``."""
    rows, columns = padded_rows(a), panels(b)
    start = panels(np.zeros((len(b), 1), b.dtype))
    sums = np.zeros(len(rows))
    blocks = -(-len(rows) // rows_per_tile(b.shape[1]))

    def work(first: int, stop: int) -> None:
        _row_sums(rows, columns, start, len(b), first, stop, blocks, same, factors, sums)

    cost = 2 * rows_per_tile(b.shape[1]) * len(b) * b.shape[1]
    parallel_blocks(work, -(-blocks // 2), min_block=1 + _SMALL // cost)
    return float(sums[: len(a)].sum()) * (2.0 if same else 1.0)


@njit
def _row_sums(
    rows: Any,
    columns: Any,
    start: Any,
    n: int,
    first: int,
    stop: int,
    blocks: int,
    same: bool,
    factors: Any,
    sums: Any,
) -> None:
    """Sum over the columns (``same``: over those after the row) for row blocks t and blocks - 1 - t, first <= t < stop.

    One block from each end, because equal numbers of them are equal work in a triangle.
    """
    depth, width = columns.shape[1], columns.shape[2]
    step, group = panels_per_tile(depth, width, rows.itemsize), rows_per_tile(depth)
    tile = np.empty((group, step * width), rows.dtype)
    for p in range(0, columns.shape[0], step):
        q = min(p + step, columns.shape[0])
        offset = p * width
        count = min(q * width, n) - offset
        for t in range(2 * first, 2 * stop):
            block = t // 2 if t % 2 == 0 else blocks - 1 - t // 2
            g, g_stop = block * group, min((block + 1) * group, rows.shape[0])
            if (t % 2 == 1 and block == t // 2) or (same and g + 1 >= offset + count):
                continue
            fill(rows, g, g_stop, columns, p, q, start, tile)
            for i in range(g, g_stop):
                after = max(0, i + 1 - offset) if same else 0
                if factors.size == 0:
                    sums[i] += _distance_sum(tile, i - g, after, count)
                for f in factors:
                    sums[i] += _gaussian_sum(tile, i - g, after, count, f)


@njit
def _labelled(
    rows: Any, columns: Any, start: Any, labels: Any, n: int, first: int, stop: int, vectors: int, factors: Any
) -> Any:
    """Return the sums over ordered pairs with both labels (for each vector), and over all partners (for each row)."""
    depth, width = columns.shape[1], columns.shape[2]
    step = panels_per_tile(depth, width, rows.itemsize)
    tile = np.empty((_GROUP, step * width), rows.dtype)
    scratch = np.empty(step * width, rows.dtype)
    stride = tile.shape[1]
    part = np.empty((ROWS, width), rows.dtype)
    zeros = np.zeros(width, rows.dtype)
    both = np.zeros(labels.shape[0] * width)
    row_sums = np.zeros(stop - first)
    everyone, column = vectors // width, vectors % width
    for p in range(0, columns.shape[0], step):
        q = min(p + step, columns.shape[0])
        offset = p * width
        count = min(q * width, n) - offset
        for g in range(first, stop, _GROUP):
            g_stop = min(g + _GROUP, stop)
            fill(rows, g, g_stop, columns, p, q, start, tile)
            for i in range(g, g_stop):
                if factors.size == 0:
                    _distances(tile, i - g, count)
                else:
                    _gaussians(tile, i - g, count, factors, scratch)
                if 0 <= i - offset < count:
                    tile[i - g, i - offset] = 0.0
            for v in range(labels.shape[0]):
                for i in range(g, g_stop, ROWS):
                    at = (v * n + offset) * width
                    products(tile, (i - g) * stride, stride, labels, at, zeros, 0, 0, part, 0, width, count)
                    for r in range(min(ROWS, n - i)):
                        for w in range(width):
                            both[v * width + w] += labels[v, i + r, w] * part[r, w]
                        if v == everyone:
                            row_sums[i + r - first] += part[r, column]
    return both[:vectors], row_sums


@njit(fastmath=FAST)
def _gaussian_sum(tile: Any, r: int, first: int, stop: int, factor: Any) -> Any:
    total = factor - factor  # a zero of the tile's type
    for j in range(first, stop):
        total += exp2(-factor * tile[r, j])
    return total


@njit(fastmath=FAST)
def _distance_sum(tile: Any, r: int, first: int, stop: int) -> Any:
    total = tile[r, 0] - tile[r, 0]
    for j in range(first, stop):
        total += np.sqrt(tile[r, j])
    return total


@njit(fastmath=FAST)
def _gaussians(tile: Any, r: int, stop: int, factors: Any, squares: Any) -> None:
    for j in range(stop):
        squares[j] = tile[r, j]
        tile[r, j] = 0.0
    for f in factors:
        for j in range(stop):
            tile[r, j] += exp2(-f * squares[j])


@njit(fastmath=FAST)
def _distances(tile: Any, r: int, stop: int) -> None:
    for j in range(stop):
        tile[r, j] = np.sqrt(tile[r, j])
