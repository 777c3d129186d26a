"""Register tiles: sums of squared differences and of products at the full width of the processor.

BLAS is no way out: on AMD Zen 5 both MKL 2024.2 and OpenBLAS (numpy 2.4) stay at half width, 50 and 57 multiply-adds
per nanosecond and core, where this tile reaches 115 to 120 (d = 64 to 512, float32, one core, best of 60). It also
takes differences at that speed, since Zen 5 adds and multiplies in different units: |x - y|^2 is computed as written
and loses nothing to cancellation, which the matrix-product form |x|^2 + |y|^2 - 2xy does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from featdyn_kernels._jit import njit
from featdyn_kernels._simd import REGISTER, WIDE, broadcast, load, store

Array = np.ndarray[Any, Any]


ROWS = 4  # rows of a register tile
SMALL = 2**22  # multiply-adds below which a second thread costs more than it saves
REGISTERS = 4 if WIDE else 1  # 4 x 4 sums and their operands fit in its 32 registers, 4 x 1 halved in 16

# A tile of distances has _COLUMNS columns and _FLAT_ROWS rows, so that it stays in the first-level cache, and fewer
# columns where their panels would exceed _PANEL_BYTES of the second. Above _DEPTH dimensions, these are taken in
# several passes, each panel's for _DEEP_ROWS rows. On one Zen 5 core, float32, d = 1 to 16,384: 256 to 1,024 columns,
# 64 to 512 dimensions, 8 to 64 rows and four times the bytes change speed by less than 10 %.
_COLUMNS = 512
_FLAT_ROWS = 8
_PANEL_BYTES = 2**18
_DEPTH = 512
_DEEP_ROWS = 64


def panels(x: Array) -> Array:
    """Return the rows of ``x (N, K)`` as ``(ceil(N / P), K, P)``, P the width of a register tile, zero-padded."""
    width = REGISTERS * REGISTER // x.itemsize
    packed = np.zeros((-(-len(x) // width), x.shape[1], width), x.dtype)
    _pack(x, packed)
    return packed


def padded_rows(x: Array) -> Array:
    """Return ``x (M, K)`` with zero rows up to a multiple of ``ROWS``, contiguous."""
    return np.pad(x, ((0, -len(x) % ROWS), (0, 0))) if len(x) % ROWS else np.ascontiguousarray(x)


@njit
def panels_per_tile(depth: int, width: int, itemsize: int) -> int:
    """Return how many panels of ``width`` columns a tile of distances over ``depth`` dimensions takes."""
    return max(1, min(_COLUMNS, _PANEL_BYTES // (depth * itemsize)) // width)


@njit
def rows_per_tile(depth: int) -> int:
    """Return how many rows a tile of distances over ``depth`` dimensions takes."""
    return _FLAT_ROWS if depth <= _DEPTH else _DEEP_ROWS


@njit
def _pack(x: Any, packed: Any) -> None:
    width = packed.shape[2]
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            packed[i // width, k, i % width] = x[i, k]


def _register_tile(term: Any) -> Any:
    """Return a function that writes ``out[r, c] = start[r, c] + sum_k term(a[r, k], b[k, c])`` for one tile.

    Arrays come with an offset (in elements, C order) and the stride of their rows, not as slices: a slice costs Numba
    two atomic reference counts, several times the tile itself when few dimensions are summed.
    """

    @register_jitable
    def tile(
        a: Any, a_at: int, a_stride: int, b: Any, b_at: int, start: Any, start_at: int, start_stride: int, out: Any,
        out_at: int, out_stride: int, depth: int,
    ) -> None:  # fmt: skip
        width = b.shape[b.ndim - 1]
        sum0 = load(start, start_at, REGISTERS)
        sum1 = load(start, start_at + start_stride, REGISTERS)
        sum2 = load(start, start_at + 2 * start_stride, REGISTERS)
        sum3 = load(start, start_at + 3 * start_stride, REGISTERS)
        for k in range(depth):
            column = load(b, b_at + k * width, REGISTERS)
            sum0 = sum0 + term(broadcast(a, a_at + k, REGISTERS), column)
            sum1 = sum1 + term(broadcast(a, a_at + a_stride + k, REGISTERS), column)
            sum2 = sum2 + term(broadcast(a, a_at + 2 * a_stride + k, REGISTERS), column)
            sum3 = sum3 + term(broadcast(a, a_at + 3 * a_stride + k, REGISTERS), column)
        store(out, out_at, sum0)
        store(out, out_at + out_stride, sum1)
        store(out, out_at + 2 * out_stride, sum2)
        store(out, out_at + 3 * out_stride, sum3)

    return tile


@njit
def _squared_difference(x: Any, y: Any) -> Any:
    return (x - y) * (x - y)


@njit
def _product(x: Any, y: Any) -> Any:
    return x * y


squared_differences = _register_tile(_squared_difference)
products = _register_tile(_product)


@njit
def fill(
    rows: Any, first: int, stop: int, columns: Any, first_panel: int, stop_panel: int, start: Any, tile: Any
) -> None:
    """Write ``start[j] + |rows[i] - columns[j]|^2`` for rows ``first`` to ``stop`` and whole panels of columns.

    ``rows (M, K)``; ``columns`` and ``start`` from :func:`panels` of ``(N, K)`` and ``(N, 1)``; ``tile`` at least
    ``(stop - first, panels * P)``; ``stop - first`` is a multiple of ``ROWS``.
    """
    depth, width, stride = rows.shape[1], columns.shape[2], tile.shape[1]
    for k in range(0, depth, _DEPTH):
        length = min(_DEPTH, depth - k)
        for p in range(first_panel, stop_panel):
            for i in range(first, stop, ROWS):
                row, column = i * depth + k, (p * depth + k) * width
                out = (i - first) * stride + (p - first_panel) * width
                if k == 0:
                    squared_differences(
                        rows, row, depth, columns, column, start, p * width, 0, tile, out, stride, length
                    )
                else:
                    squared_differences(rows, row, depth, columns, column, tile, out, stride, tile, out, stride, length)
