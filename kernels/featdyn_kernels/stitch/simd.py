"""Vectors of float32 for Numba: what the microkernels of this folder are written in.

LLVM's loop vectoriser cannot keep a tile of a matrix product in registers, so the innermost kernels emit their vector
instructions themselves. The intermediate code is LLVM's, not one machine's: LLVM turns it into AVX-512, AVX2 or NEON.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numpy.typing import NDArray

FEATURES = llvm.get_host_cpu_features()
WIDE = bool(FEATURES.get("avx512f"))
LANES = 16 if WIDE else 8
"""Floats in one vector."""

PANELS = (4, 2, 1) if WIDE else (2, 1, 1)
"""Vectors of output channels that a register tile holds, widest first; the widest that still fits comes next."""

_FLOAT, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(_FLOAT, LANES)


def pack(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Return weights (taps, inputs, outputs) as one panel of outputs after the other, flat; inputs of a tile lie together."""
    outputs, start, panels = weight.shape[-1], 0, []
    while start < outputs:
        width = next(p for p in (LANES * vectors for vectors in PANELS) if start + p <= outputs)
        panels.append(weight[..., start : start + width].reshape(-1))
        start += width
    return np.concatenate(panels, dtype=np.float32, casting="same_kind")


class Emitter:
    """Emits vector instructions; addresses and sizes are 64-bit integers, offsets are in bytes."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    @staticmethod
    def integer(value: int) -> Any:
        """Return a constant address or size."""
        return ir.Constant(_I64, value)

    @staticmethod
    def constant(value: float) -> Any:
        """Return a vector that holds one number in all lanes."""
        return ir.Constant(VECTOR, [float(value)] * LANES)

    def at(self, address: Any, offset: Any, times: int = 1) -> Any:
        """Return ``address + times * offset``."""
        b = self.builder
        return b.add(address, b.mul(offset, self.integer(times)) if times != 1 else offset)

    def load(self, address: Any) -> Any:
        """Load a vector; no alignment is assumed."""
        loaded = self.builder.load(self.builder.inttoptr(address, VECTOR.as_pointer()))
        loaded.align = 4
        return loaded

    def store(self, vector: Any, address: Any) -> None:
        """Store a vector."""
        stored = self.builder.store(vector, self.builder.inttoptr(address, VECTOR.as_pointer()))
        stored.align = 4

    def broadcast(self, address: Any) -> Any:
        """Load one float into all lanes."""
        b = self.builder
        scalar = b.load(b.inttoptr(address, _FLOAT.as_pointer()))
        return self.splat(scalar)

    def splat(self, scalar: Any) -> Any:
        """Copy one float into all lanes."""
        undefined = ir.Constant(VECTOR, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """Return ``x * y + z``, rounded once; ``x`` may be a Python number."""
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32"
        )
        return self.builder.call(function, [x if isinstance(x, ir.Value) else self.constant(x), y, z])

    def add(self, x: Any, y: Any) -> Any:
        """Return ``x + y``."""
        return self.builder.fadd(x, y)

    def sub(self, x: Any, y: Any) -> Any:
        """Return ``x - y``."""
        return self.builder.fsub(x, y)

    def clamp(self, x: Any, floor: Any) -> Any:
        """Return the larger of ``x`` and ``floor``; NaN in ``x`` stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, floor), floor, x)

    def bit(self, flags: Any, index: int) -> Any:
        """Return whether one bit of an integer is set."""
        return self.builder.trunc(self.builder.lshr(flags, self.integer(index)), ir.IntType(1))

    def choose(self, condition: Any, yes: Any, no: Any) -> Any:
        """Return one of two addresses."""
        return self.builder.select(condition, yes, no)
