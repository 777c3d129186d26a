"""3x3 convolution of stride 1 by Winograd's F(4x4, 3x3): 36 multiplications where the direct sum takes 144.

Each tile of 4x4 outputs needs 6x6 inputs. Both are transformed by small constant matrices, channel by channel, and
between the transforms stand 36 matrix products over channels (Lavin, Gray, "Fast algorithms for convolutional neural
networks", 2016). Some tiles at a time go through all three stages, so that they stay in the second-level cache. In the
products, numbers are float32, or bfloat16 with float32 sums.

Rounding errors are twice those of the direct sum in float32 and five times in bfloat16, which is why callers do not
trust an argmax where the two best logits are close.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from featdyn_kernels._jit import njit
from featdyn_kernels._simd import BF16, WIDE
from featdyn_kernels._simd.emitter import Emitter, intrinsic
from featdyn_kernels.stitch.panels import LANES, PANELS, WIDTHS, emitter, over_inputs, pack

NEAR, FAR = 0.75, 1.5
"""The transform evaluates polynomials at 0, +-NEAR, +-FAR and infinity. The usual 1 and 2 make errors 2.3 times as
large when products are bfloat16 (1.2 % of the outputs' deviation against 2.9 %, direct sum 0.26 %; 64 channels after a
ReLU). Of all such pairs from simple fractions, 2/3 and 3/2 are 5 % better still, but 2/3 is no float32 number."""
TILES = 24
"""Tiles that go through the stages together; a multiple of all ROWS. AMD EPYC (Zen 5), 16 to 64 channels: 24 and 48
are within 5 % of each other, 96 halves the speed (its 36 planes no longer fit the second-level cache)."""
ROWS = (6, 12, 24) if WIDE else (6, 12, 12)
"""Tiles that meet each width of panel in registers: sums then take 24 of 32 registers, or 12 of 16."""


def _weight_transform() -> NDArray[np.float64]:
    points = np.array([0, NEAR, -NEAR, FAR, -FAR])
    scale = [np.prod([p - q for q in points if q != p]) for p in points]
    return np.vstack([points[:, None] ** np.arange(3) / np.array(scale)[:, None], [0, 0, 1]])


def transform_weight(weight: NDArray[Any], rounded: int = 0) -> NDArray[np.float32]:
    """Return the transformed weights of a convolution, (36 inputs outputs,), from (outputs, inputs, 3, 3).

    If they are to be ``rounded`` to bfloat16, which is left to the caller, inputs are laid out in pairs.
    """
    g = _weight_transform()
    transformed = np.einsum("ai,kcij,bj->abck", g, weight.astype(np.float64), g, optimize=True)
    return pack(transformed.reshape(36, *transformed.shape[2:]), 2 if rounded else 1)


def scratch_size(inputs: int, outputs: int) -> int:
    """Return how many floats of scratch memory one call needs."""
    return LANES + 36 * TILES * (inputs + outputs)


def _forward(e: Emitter, d: list[Any]) -> list[Any]:
    """Transform six inputs (the matrix B' of the paper)."""
    p, q = e.fma(-FAR * FAR, d[2], d[4]), e.fma(-FAR * FAR, d[1], d[3])
    r, s = e.fma(-NEAR * NEAR, d[2], d[4]), e.fma(-NEAR * NEAR, d[1], d[3])
    product, total = (NEAR * FAR) ** 2, NEAR * NEAR + FAR * FAR
    first = e.fma(-total, d[2], e.fma(product, d[0], d[4]))
    last = e.fma(-total, d[3], e.fma(product, d[1], d[5]))
    return [first, e.fma(NEAR, q, p), e.fma(-NEAR, q, p), e.fma(FAR, s, r), e.fma(-FAR, s, r), last]


def _backward(e: Emitter, m: list[Any]) -> list[Any]:
    """Transform six products to four outputs (the matrix A' of the paper)."""
    p, q, r, s = e.add(m[1], m[2]), e.sub(m[1], m[2]), e.add(m[3], m[4]), e.sub(m[3], m[4])
    return [
        e.add(e.add(m[0], p), r),
        e.fma(NEAR, q, e.mul(FAR, s)),
        e.fma(NEAR**2, p, e.mul(FAR**2, r)),
        e.fma(NEAR**3, q, e.fma(FAR**3, s, m[5])),
    ]


@intrinsic
def _transform_input(
    typing: Any, kind: Any, x: Any, row: Any, column: Any, rows: Any, columns: Any, zero: Any, v: Any, plane: Any
) -> Any:
    """Transform the 6x6 inputs at ``x`` to 36 planes of ``v``.

    Kind: 0 in the inside, 1 at a border, where those outside the image (bit of ``rows`` or ``columns`` not set) are
    zero; 2 and 3 alike, stored as bfloat16.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, x, row, column, rows, columns, zero, v, plane = args
        e = emitter(builder)

        def transform(border: bool, rounded: bool) -> None:
            half = []
            for i in range(6):
                addresses = [e.at(e.at(x, row, i), column, j) for j in range(6)]
                if border:
                    inside = [builder.and_(e.bit(rows, i), e.bit(columns, j)) for j in range(6)]
                    addresses = [e.choose(*pair, zero) for pair in zip(inside, addresses, strict=True)]
                half.append(_forward(e, [e.load(address) for address in addresses]))
            for j in range(6):
                for i, value in enumerate(_forward(e, [line[j] for line in half])):
                    (e.store_rounded if rounded else e.store)(value, e.at(v, plane, 6 * i + j))

        e.switch(kind, [partial(transform, b, r) for r in (False, BF16) for b in (False, True)])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), codegen


@intrinsic
def _transform_output(
    typing: Any, kind: Any, m: Any, plane: Any, bias: Any, residual: Any, residual_row: Any, residual_column: Any,
    floor: Any, y: Any, row: Any, column: Any, rows: Any, columns: Any, zero: Any, trash: Any,
) -> Any:  # fmt: skip
    """Write 4x4 outputs, ``max(transformed m + bias + residual, floor)``; of kind 1, only those whose bits are set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, m, plane, bias, residual, residual_row, residual_column, least, y, row, column, *rest = args
        rows, columns, zero, trash = rest
        e = emitter(builder)

        def transform(border: bool) -> None:
            half = [_backward(e, [e.load(e.at(m, plane, 6 * i + j)) for i in range(6)]) for j in range(6)]
            shift, floor = e.load(bias), e.splat(least)
            for i in range(4):
                for j, value in enumerate(_backward(e, [half[k][i] for k in range(6)])):
                    source = e.at(e.at(residual, residual_row, i), residual_column, j)
                    target = e.at(e.at(y, row, i), column, j)
                    if border:
                        inside = builder.and_(e.bit(rows, i), e.bit(columns, j))
                        source, target = e.choose(inside, source, zero), e.choose(inside, target, trash)
                    e.store(e.clamp(e.add(e.add(value, shift), e.load(source)), floor), target)

        e.switch(kind, [partial(transform, False), partial(transform, True)])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7, types.float32, *[types.intp] * 8), codegen


@intrinsic
def _multiply(typing: Any, kind: Any, v: Any, u: Any, m: Any, inputs: Any, outputs: Any) -> Any:
    """Multiply ``ROWS[kind]`` tiles by a panel of weights ``WIDTHS[kind]`` wide; kinds 3 to 5 alike, in bfloat16."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, v, u, m, inputs, outputs = args
        e = emitter(builder)

        def multiply(vectors: int, rows: int, rounded: bool) -> None:
            steps = builder.lshr(inputs, e.integer(1)) if rounded else inputs  # of four bytes
            lines = [e.at(v, steps, 4 * i) for i in range(rows)]
            zeros = [e.constant(0)] * (rows * vectors)
            _, *sums = e.loop(steps, [u, *zeros], over_inputs(e, lines, vectors, rounded))
            for i in range(rows):
                for k in range(vectors):
                    e.store(sums[i * vectors + k], e.at(e.at(m, outputs, 4 * i), e.integer(4 * LANES * k)))

        tiles = list(zip(PANELS, ROWS, strict=True))
        e.switch(kind, [partial(multiply, *tile, rounded) for rounded in (False, BF16) for tile in tiles])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


@njit
def convolve(
    x: int, u: int, bias: int, residual: int, y: int, zero: int, scratch: int,
    images: int, height: int, width: int, inputs: int, outputs: int, rounded: int, floor: np.float32,
) -> None:  # fmt: skip
    """Compute ``max(conv(x) + bias + residual, floor)`` with padding 1; arguments are as for the direct sum's
    ``convolve``.

    Inputs and outputs are multiples of ``LANES``, of which many zeros are at ``zero``; scratch memory is
    ``scratch_size(inputs, outputs)`` floats.
    """
    down, right = -(-height // 4), -(-width // 4)
    total = images * down * right
    # Bytes of a number, then from one row, column or plane to the next.
    size = 2 if rounded else 4
    down_x, right_x, plane_v = 4 * width * inputs, 4 * inputs, size * TILES * inputs
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
            target, kind = v + size * t * inputs, (rows & columns != 63) + 2 * rounded
            for c in range(0, inputs, LANES):
                _transform_input(
                    kind, corner + 4 * c, down_x, right_x, rows, columns, zero, target + size * c, plane_v
                )  # fmt: skip
        k = 0
        while k < outputs:
            panel = 0 if k + WIDTHS[0] <= outputs else 1 if k + WIDTHS[1] <= outputs else 2
            for plane in range(36):
                weights, products = u + size * inputs * (36 * k + plane * WIDTHS[panel]), m + plane * plane_m + 4 * k
                for t in range(0, tiles, ROWS[panel]):
                    _multiply(
                        panel + 3 * rounded, v + plane * plane_v + size * t * inputs, weights,
                        products + 4 * t * outputs, inputs, outputs,
                    )  # fmt: skip
            k += WIDTHS[panel]
        for t in range(tiles):
            image, tile = divmod(first + t, down * right)
            i, j = 4 * (tile // right), 4 * (tile % right)
            rows, columns = (1 << min(4, height - i)) - 1, (1 << min(4, width - j)) - 1
            offset = 4 * outputs * ((image * height + i) * width + j)
            other, across = (residual + offset, 1) if residual else (zero, 0)
            for k in range(0, 4 * outputs, 4 * LANES):
                _transform_output(
                    rows & columns != 15, m + 4 * t * outputs + k, plane_m, bias + k, other + across * k, down_r,
                    right_r, floor, y + offset + k, down_y, right_y, rows, columns, zero, trash,
                )  # fmt: skip
