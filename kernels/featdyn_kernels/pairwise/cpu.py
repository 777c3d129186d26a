"""Sums over all pairs on the CPU: distance tiles in the cache, reduced as they are made."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._threads import parallel_blocks
from featdyn_kernels._tiles.coordinates import scaled_pair
from featdyn_kernels._tiles.registers import ROWS, SMALL, panels, rows_per_tile
from featdyn_kernels._tiles.tiles import GROUP, fill_tile, pairs, tile_of, tiles, weigh
from featdyn_kernels._tiles.vectors import exp2_in_place, exp2_sum, root_in_place, root_sum
from featdyn_kernels.pairwise.scaling import scaling

Array = np.ndarray[Any, Any]

PIECE = 4 * GROUP  # rows that one thread sums: sums do not depend on how many threads there are


def pair_sums(x: Array, y: Array, bandwidths: Array | None) -> tuple[float, float, float]:
    """See :func:`featdyn_kernels.pairwise.reference.pair_sums`."""
    a, b, factors, unit = _prepared(x, y, bandwidths)
    return unit * _sum(a, a, True, factors), unit * _sum(b, b, True, factors), unit * _sum(a, b, False, factors)


def labelled_sums(points: Array, members: Array, bandwidths: Array | None) -> tuple[Array, Array, Array]:
    """See :func:`featdyn_kernels.pairwise.reference.labelled_sums`."""
    a, _, factors, unit = _prepared(points, points, bandwidths)
    n, vectors = len(a), len(members)
    found, labels = pairs(a, a), panels(np.concatenate([members, np.ones((1, n), bool)]).astype(a.dtype))
    pieces = -(-len(found.rows) // PIECE)
    parts: list[Any] = [None] * pieces

    def work(first: int, stop: int) -> None:
        for k in range(first, stop):
            rows = k * PIECE, min((k + 1) * PIECE, len(found.rows))
            parts[k] = _labelled(found, labels, *rows, vectors, factors)

    parallel_blocks(work, pieces, min_block=1 + SMALL // (PIECE * n * (a.shape[1] + vectors)))
    within = unit * np.sum([both for both, _ in parts], axis=0)
    row_sums = unit * np.concatenate([sums for _, sums in parts])[:n]
    from_members = np.where(members, row_sums, 0.0).sum(1)  # a product would be summed as BLAS likes
    return within, row_sums.sum() - 2.0 * from_members + within, from_members - within


def _prepared(x: Array, y: Array, bandwidths: Array | None) -> tuple[Array, Array, Array, float]:
    """Return both samples in the units of :func:`scaling`, the factors, and the unit of the sums."""
    extent = float(np.abs(y[: 2**10] - y[0].astype(np.float64)).max())
    scale, spread, factors, unit = scaling(bandwidths, extent)
    a, b = scaled_pair(x, y, np.full(y.shape[1], scale), spread)
    return a, b, factors.astype(b.dtype), unit


def _sum(a: Array, b: Array, same: bool, factors: Array) -> float:
    """Return the sum over ordered pairs of one from each, or of two different ones if ``same``."""
    found, group = pairs(a, b), rows_per_tile(b.shape[1])
    rows = len(found.rows)
    sums = np.zeros(rows)
    blocks = -(-rows // group)
    half = -(-blocks // 2)

    def work(first: int, stop: int) -> None:
        # Blocks from each end, because equal numbers of them are equal work in a triangle.
        _row_sums(found, first * group, min(stop * group, rows), same, factors, sums)
        _row_sums(found, max(half, blocks - stop) * group, min((blocks - first) * group, rows), same, factors, sums)

    parallel_blocks(work, half, min_block=1 + SMALL // (2 * group * b.size))
    return float(sums[: len(a)].sum()) * (2.0 if same else 1.0)


@njit
def _row_sums(pairs: Any, first: int, stop: int, same: bool, factors: Any, sums: Any) -> None:
    """Sum over the columns, ``same``: over those after the row."""
    tile, zero = tile_of(pairs, rows_per_tile(pairs.rows.shape[1])), pairs.rows.dtype.type(0)
    nothing = np.inf if factors.size else 0.0
    for k in range(tiles(pairs, first, stop, tile)):
        g, g_stop, offset, count = fill_tile(pairs, first, stop, k, tile, nothing, same)
        for i in range(g, g_stop):
            if same:
                tile[i - g, : max(0, min(count, i + 1 - offset))] = nothing
            if factors.size == 0:
                sums[i] += root_sum(tile, i - g, count)
            for f in factors:
                sums[i] += exp2_sum(tile, i - g, count, zero, f)


@njit
def _labelled(pairs: Any, labels: Any, first: int, stop: int, vectors: int, factors: Any) -> Any:
    """Return the sums over ordered pairs with both labels (for each vector), and over all partners (for each row)."""
    width = labels.shape[2]
    tile, part = tile_of(pairs, GROUP), np.empty((ROWS, width), pairs.rows.dtype)
    both = np.zeros(labels.shape[0] * width)
    row_sums = np.zeros(stop - first)
    zero, everyone, column = pairs.rows.dtype.type(0), vectors // width, vectors % width
    for k in range(tiles(pairs, first, stop, tile)):
        g, g_stop, offset, count = fill_tile(pairs, first, stop, k, tile, 0.0, False)
        for i in range(g, g_stop):
            if factors.size == 0:
                root_in_place(tile, i - g, count)
            else:
                exp2_in_place(tile, i - g, count, zero, factors)
            if 0 <= i - offset < count:
                tile[i - g, i - offset] = 0.0
        for v in range(labels.shape[0]):
            for i in range(g, g_stop, ROWS):
                weigh(tile, i - g, count, labels, v, offset, part)
                for r in range(min(ROWS, pairs.n - i)):
                    for w in range(width):
                        both[v * width + w] += labels[v, i + r, w] * part[r, w]
                    if v == everyone:
                        row_sums[i + r - first] += part[r, column]
    return both[:vectors], row_sums
