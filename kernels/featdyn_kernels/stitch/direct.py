"""Convolution of any size and stride, and matrix products, by the direct sum.

A register tile holds some neighbouring outputs of one image row times some vectors of output channels; it gathers all
taps and input channels before it is written once, with bias, residual and ReLU. Nothing like im2col is ever laid out.
Numbers that are multiplied are float32, or bfloat16 with float32 sums.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from featdyn_kernels._jit import njit
from featdyn_kernels._simd import BF16
from featdyn_kernels._simd.emitter import intrinsic
from featdyn_kernels.stitch.panels import LANES, PANELS, WIDTHS, emitter, over_inputs, pack

COLUMNS = (4, 8, 8)
"""Neighbouring outputs that meet each width of panel in registers: 16 sums hide the latency of two multipliers and
waste little on images that are 8 wide."""


def transform_weight(weight: NDArray[Any], rounded: int = 0) -> NDArray[np.float32]:
    """Return weights in the kernel's order, flat, from (outputs, inputs, rows, columns).

    If they are to be ``rounded`` to bfloat16, which is left to the caller, inputs are laid out in pairs.
    """
    return pack(weight.transpose(2, 3, 1, 0), 2 if rounded else 1)


@intrinsic
def _tile(
    typing: Any, kind: Any, x: Any, i: Any, j: Any, height: Any, width: Any, inputs: Any, outputs: Any, taps_i: Any,
    taps_j: Any, stride: Any, u: Any, bias: Any, residual: Any, floor: Any, y: Any, valid: Any, zero: Any, trash: Any,
) -> Any:  # fmt: skip
    """Compute one register tile, ``COLUMNS[kind]`` outputs by ``WIDTHS[kind]`` channels; kinds 3 to 5 in bfloat16.

    Of the outputs, which begin at ``y`` and read inputs from row i and column j on, the first ``valid`` are written.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, x, i, j, height, width, inputs, outputs, taps_i, taps_j, stride, u, bias, residual, least, y, *rest = args
        valid, zero, trash = rest
        e = emitter(builder)

        def inside(value: Any, limit: Any) -> Any:
            return builder.icmp_unsigned("<", value, limit)  # a negative number is a huge unsigned one

        def tile(vectors: int, columns: int, rounded: bool) -> None:
            steps = builder.lshr(inputs, e.integer(1)) if rounded else inputs  # of four bytes
            pixel = builder.mul(steps, e.integer(4))

            def over_rows(row: Any, carried: list[Any]) -> list[Any]:
                source_i = builder.add(i, row)
                row_inside, line = inside(source_i, height), builder.mul(source_i, width)

                def over_columns(column: Any, carried: list[Any]) -> list[Any]:
                    sources = []
                    for n in range(columns):
                        source_j = builder.add(builder.add(j, column), builder.mul(stride, e.integer(n)))
                        address = builder.add(x, builder.mul(builder.add(line, source_j), pixel))
                        sources.append(e.choose(builder.and_(row_inside, inside(source_j, width)), address, zero))
                    return e.loop(steps, carried, over_inputs(e, sources, vectors, rounded))

                return e.loop(taps_j, carried, over_columns)

            _, *sums = e.loop(taps_i, [u, *[e.constant(0)] * (vectors * columns)], over_rows)
            adds, floor = builder.icmp_unsigned("!=", residual, e.integer(0)), e.splat(least)
            shift = [e.load(e.at(bias, e.integer(4 * LANES * k))) for k in range(vectors)]
            for n in range(columns):
                used = builder.icmp_signed(">", valid, e.integer(n))
                for k in range(vectors):
                    offset = e.at(e.integer(4 * LANES * k), outputs, 4 * n)
                    source = e.choose(builder.and_(used, adds), builder.add(residual, offset), zero)
                    total = e.add(e.add(sums[n * vectors + k], shift[k]), e.load(source))
                    e.store(e.clamp(total, floor), e.choose(used, builder.add(y, offset), trash))

        tiles = list(zip(PANELS, COLUMNS, strict=True))
        e.switch(kind, [partial(tile, *size, rounded) for rounded in (False, BF16) for size in tiles])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 14, types.float32, *[types.intp] * 4), codegen


@intrinsic
def _round(typing: Any, x: Any, y: Any) -> Any:
    """Copy one vector of float32 as bfloat16."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = emitter(builder)
        (e.store_rounded if BF16 else e.store)(e.load(args[0]), args[1])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


def scratch_size(pixels: int, inputs: int, rounded: int) -> int:
    """Return how many floats of scratch memory one call needs, for inputs of so many pixels in all."""
    return LANES + (pixels * inputs // 2 if rounded else 0)


@njit
def convolve(
    x: int, u: int, bias: int, residual: int, y: int, zero: int, scratch: int,
    images: int, height: int, width: int, inputs: int, out_height: int, out_width: int, outputs: int,
    taps_i: int, taps_j: int, stride_i: int, stride_j: int, padding_i: int, padding_j: int, rounded: int, floor:
    np.float32,
) -> None:  # fmt: skip
    """Compute ``max(conv(x) + bias + residual, floor)``; arguments are addresses of float32 arrays.

    x, residual and y are (images, height, width, inputs) and twice (images, out_height, out_width, outputs); a residual
    of 0 means none. u is from :func:`transform_weight`, and outputs is a multiple of ``LANES``; bias is (outputs,). At
    zero are ``max(inputs, LANES)`` zeros, at scratch ``scratch_size(...)`` floats of the calling thread's own. With
    ``rounded`` 1 products are of bfloat16 numbers and ``u`` holds such (inputs are then a multiple of ``LANES``; needs
    ``BF16``), with 0 of float32. The floor is 0 for a ReLU, minus infinity for none.
    """
    trash, size = scratch, 2 if rounded else 4
    if rounded:
        copy = scratch + 4 * LANES
        for n in range(0, images * height * width * inputs, LANES):
            _round(x + 4 * n, copy + 2 * n)
        x = copy
    k = 0
    while k < outputs:
        panel = 0 if k + WIDTHS[0] <= outputs else 1 if k + WIDTHS[1] <= outputs else 2
        weights, shift = u + size * taps_i * taps_j * inputs * k, bias + 4 * k
        for line in range(images * out_height):
            image, top = (
                x + size * (line // out_height) * height * width * inputs,
                line % out_height * stride_i - padding_i,
            )
            for j in range(0, out_width, COLUMNS[panel]):
                offset = 4 * ((line * out_width + j) * outputs + k)
                _tile(
                    panel + 3 * rounded, image, top, j * stride_j - padding_j, height, width, inputs, outputs, taps_i,
                    taps_j, stride_j, weights, shift, residual + offset if residual else 0, floor, y + offset,
                    out_width - j, zero, trash,
                )  # fmt: skip
        k += WIDTHS[panel]
