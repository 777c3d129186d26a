"""Convolution of any size and stride, and matrix products, by the direct sum.

A register tile holds some neighbouring outputs of one image row times some vectors of output channels; it gathers all taps
and input channels before it is written once, with bias, residual and ReLU. Nothing like im2col is ever laid out.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from featdyn_kernels.stitch.simd import LANES, PANELS, Emitter, pack

# Neighbouring outputs that meet each panel of weights in registers: 16 sums hide the latency of two multipliers and waste
# little on maps that are 8 wide.
COLUMNS = (4, 8, 8)


def transform_weight(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Return weights in the kernel's order, flat, from (outputs, inputs, rows, columns)."""
    return pack(weight.transpose(2, 3, 1, 0))


def _tile(vectors: int, columns: int) -> Any:
    """Make the kernel of one register tile."""

    @intrinsic
    def tile(
        typing: Any, x: Any, i: Any, j: Any, height: Any, width: Any, inputs: Any, outputs: Any, taps_i: Any, taps_j: Any,
        stride: Any, u: Any, bias: Any, residual: Any, floor: Any, y: Any, valid: Any, zero: Any, trash: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, i, j, height, width, inputs, outputs, taps_i, taps_j, stride, u, bias, residual, floor, y, *rest = args
            valid, zero, trash = rest
            e = Emitter(builder)
            x_column, y_column = builder.mul(inputs, e.integer(4)), builder.mul(outputs, e.integer(4))
            x_row = builder.mul(x_column, width)

            def inside(value: Any, limit: Any) -> Any:
                return builder.icmp_unsigned("<", value, limit)  # a negative number is a huge unsigned one

            def loop(count: Any, carried: list[Any], body: Any) -> list[Any]:
                """Emit ``for k in range(count): carried = body(k, carried)``; the count is at least one."""
                before, start, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
                builder.branch(start)
                builder.position_at_end(start)
                k, phis = builder.phi(count.type), [builder.phi(value.type) for value in carried]
                results = body(k, phis)
                following = builder.add(k, e.integer(1))
                for phi, first, again in zip([k, *phis], [e.integer(0), *carried], [following, *results], strict=True):
                    phi.add_incoming(first, before)
                    phi.add_incoming(again, builder.block)
                builder.cbranch(builder.icmp_signed("<", following, count), start, after)
                builder.position_at_end(after)
                return results

            def over_rows(row: Any, carried: list[Any]) -> list[Any]:
                source_i = builder.add(i, row)
                row_inside, line = inside(source_i, height), builder.add(x, builder.mul(source_i, x_row))

                def over_columns(column: Any, carried: list[Any]) -> list[Any]:
                    sources = []
                    for n in range(columns):
                        source_j = builder.add(builder.add(j, column), builder.mul(stride, e.integer(n)))
                        address = builder.add(line, builder.mul(source_j, x_column))
                        sources.append(e.choose(builder.and_(row_inside, inside(source_j, width)), address, zero))

                    def over_inputs(channel: Any, carried: list[Any]) -> list[Any]:
                        weights, *sums = carried
                        panel = [e.load(e.at(weights, e.integer(4 * LANES * k))) for k in range(vectors)]
                        for n, source in enumerate(sources):
                            value = e.broadcast(e.at(source, channel, 4))
                            for k in range(vectors):
                                sums[n * vectors + k] = e.fma(value, panel[k], sums[n * vectors + k])
                        return [e.at(weights, e.integer(4 * LANES * vectors)), *sums]

                    return loop(inputs, carried, over_inputs)

                return loop(taps_j, carried, over_columns)

            _, *sums = loop(taps_i, [u, *[e.constant(0)] * (vectors * columns)], over_rows)
            floor = e.splat(floor)
            shift = [e.load(e.at(bias, e.integer(4 * LANES * k))) for k in range(vectors)]
            for n in range(columns):
                used = builder.icmp_signed(">", valid, e.integer(n))
                for k in range(vectors):
                    step = e.integer(4 * LANES * k)
                    adds = builder.and_(used, builder.icmp_unsigned("!=", residual, e.integer(0)))
                    source = e.choose(adds, e.at(e.at(residual, y_column, n), step), zero)
                    target = e.choose(used, e.at(e.at(y, y_column, n), step), trash)
                    total = e.add(e.add(sums[n * vectors + k], shift[k]), e.load(source))
                    e.store(e.clamp(total, floor), target)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 13, types.float32, *[types.intp] * 4), codegen

    return tile


_wide, _middle, _narrow = (_tile(*tile) for tile in zip(PANELS, COLUMNS, strict=True))
_WIDE, _MIDDLE, _NARROW = (LANES * vectors for vectors in PANELS)
_WIDE_COLUMNS, _MIDDLE_COLUMNS, _NARROW_COLUMNS = COLUMNS


@numba.njit(nogil=True, cache=True, error_model="numpy")
def convolve(
    x: int, u: int, bias: int, residual: int, y: int, zero: int, trash: int,
    images: int, height: int, width: int, inputs: int, out_height: int, out_width: int, outputs: int,
    taps_i: int, taps_j: int, stride_i: int, stride_j: int, padding_i: int, padding_j: int, floor: np.float32,
) -> None:  # fmt: skip
    """Compute ``max(conv(x) + bias + residual, floor)``; arguments are addresses of float32 arrays.

    Parameters
    ----------
    x, residual, y
        (images, height, width, inputs) and twice (images, out_height, out_width, outputs); a residual of 0 means none.
    u
        From :func:`transform_weight`; outputs is a multiple of ``LANES``.
    bias
        (outputs,).
    zero, trash
        ``max(inputs, LANES)`` zeros; ``LANES`` floats of the calling thread's own.
    floor
        0 for a ReLU, minus infinity for none.
    """
    k = 0
    while k < outputs:
        width_k = _WIDE if k + _WIDE <= outputs else _MIDDLE if k + _MIDDLE <= outputs else _NARROW
        weights, shift = u + 4 * taps_i * taps_j * inputs * k, bias + 4 * k
        for line in range(images * out_height):
            source, top = x + 4 * (line // out_height) * height * width * inputs, line % out_height * stride_i - padding_i
            j = 0
            while j < out_width:
                left, valid, offset = j * stride_j - padding_j, out_width - j, 4 * ((line * out_width + j) * outputs + k)
                other = residual + offset if residual else 0
                if width_k == _WIDE:
                    _wide(
                        source, top, left, height, width, inputs, outputs, taps_i, taps_j, stride_j, weights, shift,
                        other, floor, y + offset, valid, zero, trash,
                    )  # fmt: skip
                    j += _WIDE_COLUMNS
                elif width_k == _MIDDLE:
                    _middle(
                        source, top, left, height, width, inputs, outputs, taps_i, taps_j, stride_j, weights, shift,
                        other, floor, y + offset, valid, zero, trash,
                    )  # fmt: skip
                    j += _MIDDLE_COLUMNS
                else:
                    _narrow(
                        source, top, left, height, width, inputs, outputs, taps_i, taps_j, stride_j, weights, shift,
                        other, floor, y + offset, valid, zero, trash,
                    )  # fmt: skip
                    j += _NARROW_COLUMNS
        k += width_k
