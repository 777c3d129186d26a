"""Panels of output channels: what the convolution kernels hold in registers side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from featdyn_kernels._simd import NATIVE, WIDE
from featdyn_kernels._simd.emitter import Emitter

LANES = NATIVE // 4
"""Floats in one register."""

PANELS = (4, 2, 1) if WIDE else (2, 1, 1)
"""Registers of output channels that a register tile holds, widest first; the widest that still fits comes next."""

WIDTHS = tuple(LANES * registers for registers in PANELS)
"""The same in output channels."""


def emitter(builder: Any) -> Emitter:
    """Return what emits instructions on such registers."""
    return Emitter(builder, ir.FloatType(), NATIVE)


def over_inputs(e: Emitter, lines: Sequence[Any], vectors: int, rounded: bool) -> Callable[[Any, list[Any]], list[Any]]:
    """Return the body of a loop over inputs, which adds the products of ``lines`` of them with a panel of weights.

    Carried are the address of the weights and the sums, ``vectors`` registers a line.
    """
    load, broadcast, fma = (e.load_pairs, e.broadcast_pair, e.dot) if rounded else (e.load, e.broadcast, e.fma)

    def body(step: Any, carried: list[Any]) -> list[Any]:
        weights, *sums = carried
        panel = [load(e.at(weights, e.integer(4 * LANES * k))) for k in range(vectors)]
        for n, line in enumerate(lines):
            value = broadcast(e.at(line, step, 4))
            for k in range(vectors):
                sums[n * vectors + k] = fma(value, panel[k], sums[n * vectors + k])
        return [e.at(weights, e.integer(4 * LANES * vectors)), *sums]

    return body


def pack(weight: NDArray[Any], group: int = 1) -> NDArray[np.float32]:
    """Return weights (..., inputs, outputs) as one panel of outputs after the other, flat.

    In a panel, ``group`` inputs of one output are neighbours.
    """
    *taps, inputs, outputs = weight.shape
    start, panels = 0, []
    while start < outputs:
        width = next(width for width in WIDTHS if start + width <= outputs)
        panel = weight[..., start : start + width].reshape(*taps, inputs // group, group, width)
        panels.append(np.swapaxes(panel, -1, -2).reshape(-1))
        start += width
    return np.concatenate(panels, dtype=np.float32, casting="same_kind")
