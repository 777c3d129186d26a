"""3x3 convolution of stride 1 by Winograd's F(4x4, 3x3): 36 multiplications where the direct sum takes 144.

Each tile of 4x4 outputs needs 6x6 inputs. Both are transformed by small constant matrices, channel by channel, and between
the transforms stand 36 matrix products over channels (Lavin, Gray, "Fast algorithms for convolutional neural networks",
2016). Some tiles at a time go through all three stages, so that they stay in the second-level cache.

Rounding errors are about ten times those of the direct sum (2e-5 of the largest output at 64 channels), which is why
callers compare the two best logits with a bound before they trust an argmax.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from featdyn_kernels.stitch.simd import LANES, PANELS, VECTOR, WIDE, Emitter, pack

G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
TILES = 24
"""Tiles that go through the stages together; a multiple of every number of rows below. AMD EPYC (Zen 5), 16 to 64 channels:
24 and 48 are within 5 % of each other, 96 halves the speed (its 36 planes no longer fit the second-level cache)."""

# Tiles that meet each panel of weights in registers: products fill 24 of 32 registers, or 12 of 16.
ROWS = (6, 12, 24) if WIDE else (6, 12, 12)


def transform_weight(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Return the transformed weights of a convolution, (36 inputs outputs,), from (outputs, inputs, 3, 3)."""
    transformed = np.einsum("ai,kcij,bj->abck", G, weight.astype(np.float64), G, optimize=True)
    return pack(transformed.reshape(36, *transformed.shape[2:]))


def scratch_size(inputs: int, outputs: int) -> int:
    """Return how many floats of scratch memory one call needs."""
    return LANES + 36 * TILES * (inputs + outputs)


def _forward(e: Emitter, d: list[Any]) -> list[Any]:
    """Transform six inputs (the matrix B' of the paper)."""
    p, q = e.fma(-4, d[2], d[4]), e.fma(-4, d[1], d[3])
    r, s = e.sub(d[4], d[2]), e.sub(d[3], d[1])
    first, last = e.fma(-5, d[2], e.fma(4, d[0], d[4])), e.fma(-5, d[3], e.fma(4, d[1], d[5]))
    return [first, e.add(p, q), e.sub(p, q), e.fma(2, s, r), e.fma(-2, s, r), last]


def _backward(e: Emitter, m: list[Any]) -> list[Any]:
    """Transform six products to four outputs (the matrix A' of the paper)."""
    p, q, r, s = e.add(m[1], m[2]), e.sub(m[1], m[2]), e.add(m[3], m[4]), e.sub(m[3], m[4])
    return [e.add(e.add(m[0], p), r), e.fma(2, s, q), e.fma(4, r, p), e.add(e.fma(8, s, q), m[5])]


def _input_transform(border: bool) -> Any:
    """Make the kernel that transforms 6x6 inputs; at a border, those outside the image are zero."""

    @intrinsic
    def transform(typing: Any, x: Any, row: Any, column: Any, rows: Any, columns: Any, zero: Any, v: Any, plane: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, row, column, rows, columns, zero, v, plane = args
            e = Emitter(builder)
            half = []
            for i in range(6):
                addresses = [e.at(e.at(x, row, i), column, j) for j in range(6)]
                if border:
                    inside = [builder.and_(e.bit(rows, i), e.bit(columns, j)) for j in range(6)]
                    addresses = [e.choose(*pair, zero) for pair in zip(inside, addresses, strict=True)]
                half.append(_forward(e, [e.load(address) for address in addresses]))
            for j in range(6):
                for i, value in enumerate(_forward(e, [line[j] for line in half])):
                    e.store(value, e.at(v, plane, 6 * i + j))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), codegen

    return transform


def _output_transform(border: bool) -> Any:
    """Make the kernel that writes 4x4 outputs, ``max(products + bias + residual, floor)``; at a border, only some of them."""

    @intrinsic
    def transform(
        typing: Any, m: Any, plane: Any, bias: Any, residual: Any, residual_row: Any, residual_column: Any, floor: Any,
        y: Any, row: Any, column: Any, rows: Any, columns: Any, zero: Any, trash: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            m, plane, bias, residual, residual_row, residual_column, floor, y, row, column, rows, columns, zero, trash = args
            e = Emitter(builder)
            half = [_backward(e, [e.load(e.at(m, plane, 6 * i + j)) for i in range(6)]) for j in range(6)]
            shift, floor = e.load(bias), e.splat(floor)
            for i in range(4):
                for j, value in enumerate(_backward(e, [half[k][i] for k in range(6)])):
                    source = e.at(e.at(residual, residual_row, i), residual_column, j)
                    target = e.at(e.at(y, row, i), column, j)
                    if border:
                        inside = builder.and_(e.bit(rows, i), e.bit(columns, j))
                        source, target = e.choose(inside, source, zero), e.choose(inside, target, trash)
                    e.store(e.clamp(e.add(e.add(value, shift), e.load(source)), floor), target)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6, types.float32, *[types.intp] * 7), codegen

    return transform


def _product(vectors: int, rows: int) -> Any:
    """Make the kernel that multiplies ``rows`` tiles by ``vectors`` vectors of weights, kept in registers."""

    @intrinsic
    def product(typing: Any, v: Any, u: Any, m: Any, inputs: Any, outputs: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v, u, m, inputs, outputs = args
            e = Emitter(builder)
            lines = [e.at(v, inputs, 4 * i) for i in range(rows)]
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            channel, weights = builder.phi(v.type), builder.phi(v.type)
            sums = [[builder.phi(VECTOR) for _ in range(vectors)] for _ in range(rows)]
            channel.add_incoming(e.integer(0), before)
            weights.add_incoming(u, before)
            panel = [e.load(e.at(weights, e.integer(4 * LANES * k))) for k in range(vectors)]
            for line, total in zip(lines, sums, strict=True):
                value = e.broadcast(e.at(line, channel, 4))
                for k in range(vectors):
                    phi = total[k]
                    phi.add_incoming(e.constant(0), before)
                    total[k] = e.fma(value, panel[k], phi)
                    phi.add_incoming(total[k], loop)
            following = builder.add(channel, e.integer(1))
            channel.add_incoming(following, loop)
            weights.add_incoming(e.at(weights, e.integer(4 * LANES * vectors)), loop)
            builder.cbranch(builder.icmp_signed("<", following, inputs), loop, after)
            builder.position_at_end(after)
            for i, total in enumerate(sums):
                for k in range(vectors):
                    e.store(total[k], e.at(e.at(m, outputs, 4 * i), e.integer(4 * LANES * k)))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), codegen

    return product


_transform_input, _transform_input_border = _input_transform(False), _input_transform(True)
_transform_output, _transform_output_border = _output_transform(False), _output_transform(True)
_wide, _middle, _narrow = (_product(*tile) for tile in zip(PANELS, ROWS, strict=True))
_WIDE, _MIDDLE, _NARROW = (LANES * vectors for vectors in PANELS)
_WIDE_ROWS, _MIDDLE_ROWS, _NARROW_ROWS = ROWS


@numba.njit(nogil=True, cache=True)
def _products(v: int, u: int, m: int, tiles: int, inputs: int, outputs: int) -> None:
    """Multiply all 36 planes of tiles by their weights."""
    k = 0
    while k < outputs:
        width = _WIDE if k + _WIDE <= outputs else _MIDDLE if k + _MIDDLE <= outputs else _NARROW
        for plane in range(36):
            vp, up = v + 4 * plane * TILES * inputs, u + 4 * inputs * (36 * k + plane * width)
            mp = m + 4 * (plane * TILES * outputs + k)
            if width == _WIDE:
                for t in range(0, tiles, _WIDE_ROWS):
                    _wide(vp + 4 * t * inputs, up, mp + 4 * t * outputs, inputs, outputs)
            elif width == _MIDDLE:
                for t in range(0, tiles, _MIDDLE_ROWS):
                    _middle(vp + 4 * t * inputs, up, mp + 4 * t * outputs, inputs, outputs)
            else:
                for t in range(0, tiles, _NARROW_ROWS):
                    _narrow(vp + 4 * t * inputs, up, mp + 4 * t * outputs, inputs, outputs)
        k += width


@numba.njit(nogil=True, cache=True, error_model="numpy")
def convolve(
    x: int, u: int, bias: int, residual: int, y: int, zero: int, scratch: int,
    images: int, height: int, width: int, inputs: int, outputs: int, floor: np.float32,
) -> None:  # fmt: skip
    """Compute ``max(conv(x) + bias + residual, floor)`` with padding 1; arguments are addresses of float32 arrays.

    Parameters
    ----------
    x, residual, y
        (images, height, width, inputs) and twice (images, height, width, outputs); a residual of 0 means none.
    u
        From :func:`transform_weight`; inputs and outputs are multiples of ``LANES``.
    bias
        (outputs,).
    zero, scratch
        ``LANES`` zeros; ``scratch_size(inputs, outputs)`` floats of the calling thread's own.
    floor
        0 for a ReLU, minus infinity for none.
    """
    down, right = -(-height // 4), -(-width // 4)
    total = images * down * right
    # Bytes from one row, column or plane to the next.
    down_x, right_x, plane_v = 4 * width * inputs, 4 * inputs, 4 * TILES * inputs
    down_y, right_y, plane_m = 4 * width * outputs, 4 * outputs, 4 * TILES * outputs
    down_r, right_r = (down_y, right_y) if residual else (0, 0)
    trash, v = scratch, scratch + 4 * LANES
    m = v + 4 * 36 * TILES * inputs
    for first in range(0, total, TILES):
        tiles = min(TILES, total - first)
        for t in range(tiles):
            image, tile = divmod(first + t, down * right)
            i, j = 4 * (tile // right), 4 * (tile % right)
            # Bit r is set where row i - 1 + r lies in the image; columns alike.
            rows = (62 if i == 0 else 63) & ((1 << (height - i + 1)) - 1 if height - i < 5 else 63)
            columns = (62 if j == 0 else 63) & ((1 << (width - j + 1)) - 1 if width - j < 5 else 63)
            corner = x + 4 * inputs * ((image * height + i - 1) * width + j - 1)
            target = v + 4 * t * inputs
            if rows & columns == 63:
                for c in range(0, 4 * inputs, 4 * LANES):
                    _transform_input(corner + c, down_x, right_x, rows, columns, zero, target + c, plane_v)
            else:
                for c in range(0, 4 * inputs, 4 * LANES):
                    _transform_input_border(corner + c, down_x, right_x, rows, columns, zero, target + c, plane_v)
        _products(v, u, m, tiles, inputs, outputs)
        for t in range(tiles):
            image, tile = divmod(first + t, down * right)
            i, j = 4 * (tile // right), 4 * (tile % right)
            rows, columns = (1 << min(4, height - i)) - 1, (1 << min(4, width - j)) - 1
            offset = 4 * outputs * ((image * height + i) * width + j)
            source, target = m + 4 * t * outputs, y + offset
            other, across = (residual + offset, 1) if residual else (zero, 0)
            if rows & columns == 15:
                for k in range(0, 4 * outputs, 4 * LANES):
                    _transform_output(
                        source + k, plane_m, bias + k, other + k * across, down_r, right_r, floor, target + k, down_y, right_y,
                        rows, columns, zero, trash,
                    )
            else:
                for k in range(0, 4 * outputs, 4 * LANES):
                    _transform_output_border(
                        source + k, plane_m, bias + k, other + k * across, down_r, right_r, floor, target + k, down_y, right_y,
                        rows, columns, zero, trash,
                    )
