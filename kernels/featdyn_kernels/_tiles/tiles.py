"""All pairs of some rows with all columns: tiles of squared distances, each reduced while it is in the cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from featdyn_kernels._jit import njit
from featdyn_kernels._tiles.registers import fill, padded_rows, panels, panels_per_tile, products

Array = np.ndarray[Any, Any]

GROUP = 64  # rows of a tile that meets many weight vectors, which they share one pass over


class Pairs(NamedTuple):
    """Rows and columns as :func:`fill` wants them, and how many of the columns are no padding."""

    rows: Any
    columns: Any
    start: Any
    n: int


def pairs(rows: Array, points: Array, start: Array | None = None) -> Pairs:
    """Return the pairs of ``rows (M, d)`` with ``points (N, d)``; ``start (N,)`` is added to squared distances."""
    start = np.zeros(len(points), points.dtype) if start is None else start
    return Pairs(padded_rows(rows), panels(points), panels(start[:, None]), len(points))


@njit
def tile_of(pairs: Any, group: int) -> Any:
    """Return memory for tiles of ``group`` rows."""
    _, depth, width = pairs.columns.shape
    return np.empty((group, panels_per_tile(depth, width, pairs.rows.itemsize) * width), pairs.rows.dtype)


@njit
def tiles(pairs: Any, first: int, stop: int, tile: Any) -> Any:
    """Return how many tiles cover the rows from ``first`` to ``stop``."""
    group, columns = tile.shape
    return -(-(stop - first) // group) * -(-pairs.n // columns)


@njit
def fill_tile(
    pairs: Any, first: int, stop: int, k: int, tile: Any, beyond: float, above: bool
) -> tuple[int, int, int, int]:
    """Fill tile k of those, and return its rows from and to, its first column, and how many there are.

    Tiles of the same columns follow each other. Up to a whole panel, what lies behind the last column is ``beyond``.
    ``above``: a tile without a column beyond its first row has no rows.
    """
    group, columns = tile.shape
    width = pairs.columns.shape[2]
    groups = -(-(stop - first) // group)
    offset, g = k // groups * columns, first + k % groups * group
    count = min(columns, pairs.n - offset)
    if above and g + 1 >= offset + count:
        return g, g, offset, count
    g_stop, p = min(g + group, stop), offset // width
    fill(pairs.rows, g, g_stop, pairs.columns, p, p + -(-count // width), pairs.start, tile)
    for i in range(g_stop - g):
        for j in range(count, -(-count // width) * width):
            tile[i, j] = beyond
    return g, g_stop, offset, count


@njit
def weigh(tile: Any, r: int, count: int, weights: Any, v: int, first: int, part: Any) -> None:
    """Write the sums of ``ROWS`` rows of a tile, from row ``r`` on, under the weights of panel ``v``.

    ``weights`` are :func:`panels` of (vectors, N); the tile's first column is their column ``first``; ``part`` is
    (ROWS, width).
    """
    stride, (_, n, width) = tile.shape[1], weights.shape
    zeros = np.zeros(width, tile.dtype)
    products(tile, r * stride, stride, weights, (v * n + first) * width, zeros, 0, 0, part, 0, width, count)
