"""Vector instructions for the innermost kernels of this folder, which are Numba intrinsics that write LLVM's code.

``featdyn_kernels._simd`` makes vectors values of Numba's language, one name each. Kernels here hold 24 to 36 vectors at
a time, in lists and loops that Python unrolls while the code is written, and variants of them differ in a flag. The
code is LLVM's, not one machine's: LLVM turns it into AVX-512, AVX2 or NEON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, config
from numba.extending import intrinsic as _intrinsic
from numpy.typing import NDArray

intrinsic: Any = _intrinsic
"""Numba's decorator, whose own type forgets that the first argument is not passed on."""


def _features() -> set[str]:
    """Return what the processor that Numba compiles for can do: this one, or what NUMBA_CPU_FEATURES says."""
    asked: Any = config  # its settings are made when it is imported, so no type checker knows them
    if asked.CPU_NAME is None and asked.CPU_FEATURES is None:
        return {name for name, there in llvm.get_host_cpu_features().items() if there}
    return {name[1:] for name in (asked.CPU_FEATURES or "").split(",") if name.startswith("+")}


FEATURES = _features()
WIDE = "avx512f" in FEATURES
LANES = 16 if WIDE else 8
"""Floats in one vector."""

BF16 = WIDE and "avx512bf16" in FEATURES and llvm.llvm_version_info[0] >= 16  # older ones spell its types otherwise
"""Whether the processor sums products of bfloat16 numbers in float32."""

PANELS = (4, 2, 1) if WIDE else (2, 1, 1)
"""Vectors of output channels that a register tile holds, widest first; the widest that still fits comes next."""

WIDTHS = tuple(LANES * vectors for vectors in PANELS)
"""The same in output channels."""

_FLOAT, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(_FLOAT, LANES)
_PAIRS = ir.VectorType(_I32, LANES)  # two bfloat16 numbers to a lane


class _BFloat(ir.types.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite lacks."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


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
        """Copy one number into all lanes."""
        undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(_PAIRS, [0] * LANES))

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """Return ``x * y + z``, rounded once; ``x`` may be a Python number."""
        function = self._function(f"llvm.fma.v{LANES}f32", VECTOR, VECTOR, VECTOR, VECTOR)
        return self.builder.call(function, [x if isinstance(x, ir.Value) else self.constant(x), y, z])

    def load_pairs(self, address: Any) -> Any:
        """Load two bfloat16 numbers per lane."""
        loaded = self.builder.load(self.builder.inttoptr(address, _PAIRS.as_pointer()))
        loaded.align = 4
        return loaded

    def broadcast_pair(self, address: Any) -> Any:
        """Load two bfloat16 numbers into all lanes."""
        return self.splat(self.builder.load(self.builder.inttoptr(address, _I32.as_pointer())))

    def store_rounded(self, vector: Any, address: Any) -> None:
        """Store a vector as bfloat16."""
        rounded = ir.VectorType(_BFloat(), LANES)
        function = self._function("llvm.x86.avx512bf16.cvtneps2bf16.512", rounded, VECTOR)
        words = ir.VectorType(ir.IntType(16), LANES)
        value = self.builder.bitcast(self.builder.call(function, [vector]), words)
        stored = self.builder.store(value, self.builder.inttoptr(address, words.as_pointer()))
        stored.align = 2

    def dot(self, x: Any, y: Any, z: Any) -> Any:
        """Return ``z`` plus the two products in each lane of ``x`` and ``y``, pairs of bfloat16 numbers."""
        halves = ir.VectorType(_BFloat(), 2 * LANES)
        function = self._function("llvm.x86.avx512bf16.dpbf16ps.512", VECTOR, VECTOR, halves, halves)
        return self.builder.call(function, [z, self.builder.bitcast(x, halves), self.builder.bitcast(y, halves)])

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        find: Any = cgutils.get_or_insert_function
        return find(self.builder.module, ir.FunctionType(result, arguments), name)

    def add(self, x: Any, y: Any) -> Any:
        """Return ``x + y``."""
        return self.builder.fadd(x, y)

    def sub(self, x: Any, y: Any) -> Any:
        """Return ``x - y``."""
        return self.builder.fsub(x, y)

    def scale(self, factor: float, x: Any) -> Any:
        """Return ``factor * x``."""
        return self.builder.fmul(self.constant(factor), x)

    def clamp(self, x: Any, floor: Any) -> Any:
        """Return the larger of ``x`` and ``floor``; NaN in ``x`` stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, floor), floor, x)

    def switch(self, kind: Any, bodies: Sequence[Callable[[], None]]) -> None:
        """Emit ``bodies[kind]()``: one function of Numba then serves several variants of a kernel."""
        b = self.builder
        after = b.append_basic_block()
        blocks = [b.append_basic_block() for _ in bodies]
        cases = b.switch(kind, after)
        for number, (block, body) in enumerate(zip(blocks, bodies, strict=True)):
            cases.add_case(self.integer(number), block)
            b.position_at_end(block)
            body()
            b.branch(after)
        b.position_at_end(after)

    def loop(self, count: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """Emit ``for k in range(count): carried = body(k, carried)``, count > 0, and return what is carried."""
        b = self.builder
        before, start, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(start)
        b.position_at_end(start)
        k, phis = b.phi(_I64), [b.phi(value.type) for value in carried]
        results = body(k, phis)
        following = b.add(k, self.integer(1))
        for phi, first, again in zip([k, *phis], [self.integer(0), *carried], [following, *results], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(again, b.block)
        b.cbranch(b.icmp_signed("<", following, count), start, after)
        b.position_at_end(after)
        return results

    def bit(self, flags: Any, index: int) -> Any:
        """Return whether one bit of an integer is set."""
        return self.builder.trunc(self.builder.lshr(flags, self.integer(index)), ir.IntType(1))

    def choose(self, condition: Any, yes: Any, no: Any) -> Any:
        """Return one of two addresses."""
        return self.builder.select(condition, yes, no)
