"""Instructions on registers, written in LLVM's language from Numba intrinsics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

from featdyn_kernels._simd.processor import REGISTER

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def intrinsic(function: Any) -> Any:
    """Make a function of Numba's language from its typing and its code; constant arguments come as such."""
    return _intrinsic(prefer_literal=True)(function)


class _BFloat(ir.types.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite lacks."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


class Emitter:
    """Emits instructions on registers of one ``kind`` of number, float or double, and of so many bytes.

    Addresses are pointers or, with offsets and sizes in bytes, 64-bit integers. No alignment is assumed.
    """

    def __init__(self, builder: Any, kind: Any, register: int = REGISTER) -> None:
        self.builder = builder
        self.size = 8 if isinstance(kind, ir.DoubleType) else 4
        self.lanes = register // self.size
        self.register = ir.VectorType(kind, self.lanes)

    @staticmethod
    def integer(value: int) -> Any:
        """Return a constant address or size."""
        return ir.Constant(_I64, value)

    def constant(self, value: float) -> Any:
        """Return a register that holds one number in all lanes."""
        return ir.Constant(self.register, [float(value)] * self.lanes)

    def at(self, address: Any, offset: Any, times: int = 1) -> Any:
        """Return ``address + times * offset``."""
        b = self.builder
        return b.add(address, b.mul(offset, self.integer(times)) if times != 1 else offset)

    def load(self, address: Any, kind: Any = None) -> Any:
        """Load a register, or what else ``kind`` says."""
        kind = kind or self.register
        return self.builder.load(self._pointer(address, kind), align=self.size)

    def store(self, value: Any, address: Any) -> None:
        """Store a register."""
        self.builder.store(value, self._pointer(address, value.type), align=self.size)

    def broadcast(self, address: Any) -> Any:
        """Load one number into all lanes."""
        return self.splat(self.load(address, self.register.element))

    def splat(self, scalar: Any) -> Any:
        """Copy one number into all lanes."""
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, _I32(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, self.lanes), None))

    def call(self, name: str, *registers: Any) -> Any:
        """Return ``llvm.<name>`` of registers, lane by lane."""
        return self.function(f"llvm.{name}.v{self.lanes}f{8 * self.size}", self.register, *registers)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call one of LLVM's functions, which gives something of type ``result``."""
        find: Any = cgutils.get_or_insert_function
        function = find(self.builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.builder.call(function, arguments)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """Return ``x * y + z``, rounded once where the processor can; ``x`` may be a Python number."""
        return self.call("fmuladd", self._register(x), y, z)

    def add(self, x: Any, y: Any) -> Any:
        """Return ``x + y``."""
        return self.builder.fadd(x, y)

    def sub(self, x: Any, y: Any) -> Any:
        """Return ``x - y``."""
        return self.builder.fsub(x, y)

    def mul(self, x: Any, y: Any) -> Any:
        """Return ``x * y``; ``x`` may be a Python number."""
        return self.builder.fmul(self._register(x), y)

    def clamp(self, x: Any, floor: Any) -> Any:
        """Return the larger of ``x`` and ``floor``; NaN in ``x`` stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, floor), floor, x)

    def fold(self, combine: Callable[[Any, Any], Any], x: Any) -> Any:
        """Return all lanes of a register combined, two by two: a number."""
        width = self.lanes // 2
        while width:
            order = ir.Constant(ir.VectorType(_I32, self.lanes), [lane ^ width for lane in range(self.lanes)])
            x = combine(x, self.builder.shuffle_vector(x, x, order))
            width //= 2
        return self.builder.extract_element(x, _I32(0))

    def load_pairs(self, address: Any) -> Any:
        """Load two bfloat16 numbers per lane."""
        return self.load(address, ir.VectorType(_I32, self.lanes))

    def broadcast_pair(self, address: Any) -> Any:
        """Load two bfloat16 numbers into all lanes."""
        return self.splat(self.load(address, _I32))

    def store_rounded(self, value: Any, address: Any) -> None:
        """Store a register as bfloat16."""
        rounded = self.function("llvm.x86.avx512bf16.cvtneps2bf16.512", ir.VectorType(_BFloat(), self.lanes), value)
        self.store(self.builder.bitcast(rounded, ir.VectorType(ir.IntType(16), self.lanes)), address)

    def dot(self, x: Any, y: Any, z: Any) -> Any:
        """Return ``z`` plus the two products in each lane of ``x`` and ``y``, pairs of bfloat16 numbers."""
        x, y = (self.builder.bitcast(pairs, ir.VectorType(_BFloat(), 2 * self.lanes)) for pairs in (x, y))
        return self.function("llvm.x86.avx512bf16.dpbf16ps.512", self.register, z, x, y)

    def switch(self, kind: Any, bodies: Sequence[Callable[[], None]], first: int = 0) -> None:
        """Emit ``bodies[kind - first]()``: one function of Numba then serves several variants of a kernel."""
        b = self.builder
        after = b.append_basic_block()
        blocks = [b.append_basic_block() for _ in bodies]
        cases = b.switch(kind, after)
        for number, (block, body) in enumerate(zip(blocks, bodies, strict=True), first):
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

    def _register(self, x: Any) -> Any:
        return x if isinstance(x, ir.Value) else self.constant(x)

    def _pointer(self, address: Any, kind: Any) -> Any:
        convert = self.builder.inttoptr if isinstance(address.type, ir.IntType) else self.builder.bitcast
        return convert(address, kind.as_pointer())
