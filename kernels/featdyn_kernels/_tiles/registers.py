"""Register tiles: sums of squared differences, sums of products and 2**x at the full width of the processor.

Written in LLVM IR because no loop that Numba can be given keeps a tile of sums in registers, and because BLAS is no
way out: on AMD Zen 5 both MKL 2024.2 and OpenBLAS (numpy 2.4) stay at half width, 50 and 57 multiply-adds per
nanosecond and core, where this tile reaches 115 to 120 (d = 64 to 512, float32, one core, best of 60). It also takes
differences at that speed, since Zen 5 adds and multiplies in different units: |x - y|^2 is computed as written and
loses nothing to cancellation, which the matrix-product form |x|^2 + |y|^2 - 2xy does.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

Array = np.ndarray[Any, Any]


def _host_features() -> dict[str, bool]:
    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:  # not every platform can tell
        return {}


_FEATURES = _host_features()
_VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx2") else 16
_VECTORS = 2 if _FEATURES.get("avx512f") else 1  # 8 x 2 sums fit in the 32 registers of AVX-512, 8 x 1 in 16

ROWS = 8  # rows of a register tile
_PANEL_ROW_BYTES = _VECTORS * _VECTOR_BYTES
# A tile of distances has _COLUMNS columns, so that 8 rows of it stay in the first-level cache. Of its panels, _DEPTH
# dimensions are taken at a time and _PANEL_BYTES at most, so that they stay in the second level.
_COLUMNS = 512
_DEPTH = 512
_PANEL_BYTES = 2**18
_DEEP_ROWS = 64  # rows of a tile whose panels are taken in several passes


def panel_width(dtype: np.dtype[Any]) -> int:
    """Return the number of columns of a register tile."""
    return _PANEL_ROW_BYTES // dtype.itemsize


def panels(x: Array) -> Array:
    """Return the rows of ``x (N, K)`` as ``(ceil(N / P), K, P)`` with P :func:`panel_width`, zero-padded."""
    width = panel_width(x.dtype)
    packed = np.zeros((-(-len(x) // width), x.shape[1], width), x.dtype)
    _pack(x, packed)
    return packed


def padded_rows(x: Array) -> Array:
    """Return ``x (M, K)`` with zero rows up to a multiple of ``ROWS``, contiguous."""
    return np.pad(x, ((0, -len(x) % ROWS), (0, 0))) if len(x) % ROWS else np.ascontiguousarray(x)


@njit(nogil=True, cache=True)
def panels_per_tile(depth: int, width: int) -> int:
    """Return how many panels of ``width`` columns a tile of distances over ``depth`` dimensions takes."""
    columns = min(_COLUMNS, _PANEL_BYTES * width // (min(depth, _DEPTH) * _PANEL_ROW_BYTES))
    return max(1, columns // width)


@njit(nogil=True, cache=True)
def rows_per_tile(depth: int) -> int:
    """Return how many rows a tile of distances over ``depth`` dimensions takes."""
    return ROWS if depth <= _DEPTH else _DEEP_ROWS


@njit(nogil=True, cache=True)
def _pack(x: Any, packed: Any) -> None:
    width = packed.shape[2]
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            packed[i // width, k, i % width] = x[i, k]


def _register_tile(combine: Any) -> Any:
    """Return an intrinsic that computes one tile, ``out[r, c] = start[r, c] + sum_k combine(a[r, k], b[k, c])``.

    Arrays come with an offset (in elements, C order) and the stride of their rows, not as slices: a slice costs Numba
    two atomic reference counts, several times the tile itself when few dimensions are summed.
    """

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        _context, a, a_at, a_stride, b, b_at, start, start_at, start_stride, out, out_at, out_stride, length
    ):
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            def data(position: int) -> Any:
                base = make_array(signature.args[position])(context, builder, args[position]).data
                return builder.gep(base, [args[position + 1]])

            index = args[11].type
            scalar = context.get_data_type(a.dtype)
            lanes = _VECTOR_BYTES // (a.dtype.bitwidth // 8)
            vector = ir.VectorType(scalar, lanes)
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f{a.dtype.bitwidth}"
            )

            def at(pointer: Any, offset: Any) -> Any:
                return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

            def row(pointer: Any, stride: Any, r: int) -> Any:
                return builder.gep(pointer, [builder.mul(stride, index(r))])

            def load(pointer: Any, offset: Any) -> Any:
                return builder.load(at(pointer, offset), align=a.dtype.bitwidth // 8)

            def broadcast(value: Any) -> Any:
                empty = ir.Constant(vector, ir.Undefined)
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                return builder.shuffle_vector(builder.insert_element(empty, value, ir.IntType(32)(0)), empty, zeros)

            a_data, b_data, start_data, out_data = data(0), data(3), data(5), data(8)
            cells = [(r, c) for r in range(ROWS) for c in range(_VECTORS)]
            a_rows = [row(a_data, args[2], r) for r in range(ROWS)]
            first = {(r, c): load(row(start_data, args[7], r), index(c * lanes)) for r, c in cells}
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(index)
            sums = {cell: builder.phi(vector) for cell in cells}
            k_b = builder.mul(k, index(_VECTORS * lanes))
            columns = [load(b_data, builder.add(k_b, index(c * lanes))) for c in range(_VECTORS)]
            heads = [broadcast(builder.load(builder.gep(a_rows[r], [k]))) for r in range(ROWS)]
            new = {(r, c): combine(builder, fma, heads[r], columns[c], sums[r, c]) for r, c in cells}
            k_next = builder.add(k, index(1))
            k.add_incoming(index(0), before)
            k.add_incoming(k_next, loop)
            for cell, total in sums.items():
                total.add_incoming(first[cell], before)
                total.add_incoming(new[cell], loop)
            builder.cbranch(builder.icmp_signed("<", k_next, args[11]), loop, after)
            builder.position_at_end(after)
            for (r, c), total in new.items():
                builder.store(total, at(row(out_data, args[10], r), index(c * lanes)), align=a.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(
            a, a_at, a_stride, b, b_at, start, start_at, start_stride, out, out_at, out_stride, length
        ), codegen

    return tile


def _squared_difference(builder: Any, fma: Any, x: Any, y: Any, total: Any) -> Any:
    difference = builder.fsub(x, y)
    return builder.call(fma, [difference, difference, total])


def _product(builder: Any, fma: Any, x: Any, y: Any, total: Any) -> Any:
    return builder.call(fma, [x, y, total])


squared_differences = _register_tile(_squared_difference)
products = _register_tile(_product)


@njit(nogil=True, cache=True)
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
        for i in range(first, stop, ROWS):
            for p in range(first_panel, stop_panel):
                row, column, out = (
                    i * depth + k,
                    (p * depth + k) * width,
                    (i - first) * stride + (p - first_panel) * width,
                )
                if k == 0:
                    squared_differences(
                        rows, row, depth, columns, column, start, p * width, 0, tile, out, stride, length
                    )
                else:
                    squared_differences(rows, row, depth, columns, column, tile, out, stride, tile, out, stride, length)
