"""Registers as values of Numba's language: load, store, broadcast, splat, ``+ - * /``, sqrt and more.

LLVM vectorises simple loops by itself, but it keeps no accumulator in a register across a loop whose arrays may
overlap, and it never runs one matrix per lane. Kernels that need either say so with these values. ``a * b + c`` is
fused where the processor can. Arrays are contiguous, offsets count elements, and nothing checks bounds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from featdyn_kernels._simd.emitter import Emitter, intrinsic
from featdyn_kernels._simd.processor import REGISTER


class Vector(types.Type):
    """The Numba type of ``registers`` adjacent registers of ``dtype`` values, handled as one."""

    def __init__(self, dtype: types.Float, registers: int) -> None:
        self.dtype = dtype
        self.registers = registers
        self.lanes = REGISTER * 8 // dtype.bitwidth  # of one register
        super().__init__(name=f"Vector({dtype}, {registers})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        register = ir.VectorType(manager[vector.dtype].get_value_type(), vector.lanes)
        super().__init__(manager, vector, ir.ArrayType(register, vector.registers))


def _join(builder: Any, registers: Iterable[Any]) -> Any:
    registers = list(registers)
    value = ir.Constant(ir.ArrayType(registers[0].type, len(registers)), ir.Undefined)
    for k, register in enumerate(registers):
        value = builder.insert_value(value, register, k)
    return value


def _split(builder: Any, value: Any) -> list[Any]:
    return [builder.extract_value(value, k) for k in range(value.type.count)]


def lane_by_lane(builder: Any, instruction: Callable[..., Any], *values: Any) -> Any:
    """Apply ``instruction(register, ...)`` to every register of the vectors."""
    return _join(builder, map(instruction, *(_split(builder, value) for value in values)))


def _register_operator(function: Any, instruction: str) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kwargs: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(function, Vector, Vector)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return lane_by_lane(builder, lambda a, b: getattr(builder, instruction)(a, b, flags=("contract",)), *args)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


def emitter(context: Any, builder: Any, dtype: types.Float) -> Emitter:
    """Return what emits instructions on registers of a Numba type."""
    return Emitter(builder, context.get_value_type(dtype))


def addresses(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, registers: int) -> list[Any]:
    """Return where the ``registers`` registers start that follow element ``offset`` of an array."""
    first = builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])
    lanes = REGISTER * 8 // array_type.dtype.bitwidth
    return [builder.gep(first, [offset.type(k * lanes)]) for k in range(registers)]


# Numba wants the signatures of intrinsics bare.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators


@intrinsic
def load(typingctx, array, offset, registers):
    """Return the ``registers`` (a constant) registers that start at element ``offset``."""
    vector = Vector(array.dtype, registers.literal_value)

    def codegen(context, builder, sig, args):
        e = emitter(context, builder, array.dtype)
        return _join(builder, map(e.load, addresses(context, builder, array, args[0], args[1], vector.registers)))

    return vector(array, types.intp, registers), codegen


@intrinsic
def store(typingctx, array, offset, value):
    """Write a vector at element ``offset``."""

    def codegen(context, builder, sig, args):
        e = emitter(context, builder, array.dtype)
        targets = addresses(context, builder, array, args[0], args[1], value.registers)
        for register, target in zip(_split(builder, args[2]), targets, strict=True):
            e.store(register, target)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def add_float64(typingctx, array, offset, value):
    """Add a vector, widened to float64, to the float64 elements of ``array`` that start at ``offset``."""

    def codegen(context, builder, sig, args):
        wide = ir.VectorType(ir.DoubleType(), value.lanes)
        e = Emitter(builder, ir.DoubleType())
        step = value.lanes * 64 // (8 * REGISTER)  # registers of float64 that one of the vector's becomes
        targets = addresses(context, builder, array, args[0], args[1], step * value.registers)[::step]
        for register, target in zip(_split(builder, args[2]), targets, strict=True):
            widened = register if value.dtype == types.float64 else builder.fpext(register, wide)
            e.store(e.add(e.load(target, wide), widened), target)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def prefetch(typingctx, array, offset, registers):
    """Fetch the ``registers`` (a constant) cache lines from element ``offset`` on; they may lie beyond the array."""

    def codegen(context, builder, signature, args):
        i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32]), "llvm.prefetch.p0"
        )
        for line in addresses(context, builder, array, args[0], args[1], registers.literal_value):
            # To read, into the first-level cache, data.
            builder.call(function, [builder.bitcast(line, byte), i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, registers), codegen


@intrinsic
def widened(typingctx, value):
    """Return a float32 vector as float64, in twice as many registers."""
    vector = Vector(types.float64, 2 * value.registers)

    def codegen(context, builder, sig, args):
        half = ir.VectorType(ir.DoubleType(), vector.lanes)
        registers = _split(builder, args[0])
        places = [range(vector.lanes), range(vector.lanes, value.lanes)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), list(some)) for some in places]
        return _join(builder, (builder.fpext(builder.shuffle_vector(r, r, m), half) for r in registers for m in masks))

    return vector(value), codegen


@intrinsic
def broadcast(typingctx, array, offset, registers):
    """Return ``registers`` registers whose lanes all hold element ``offset``."""
    vector = Vector(array.dtype, registers.literal_value)

    def codegen(context, builder, sig, args):
        (source,) = addresses(context, builder, array, args[0], args[1], 1)
        repeated = emitter(context, builder, array.dtype).broadcast(source)
        return _join(builder, [repeated] * vector.registers)

    return vector(array, types.intp, registers), codegen


@intrinsic
def splat(typingctx, value, registers):
    """Return ``registers`` registers whose lanes all hold ``value``."""
    vector = Vector(value, registers.literal_value)

    def codegen(context, builder, sig, args):
        return _join(builder, [emitter(context, builder, value).splat(args[0])] * vector.registers)

    return vector(value, registers), codegen


@intrinsic
def repeated(typingctx, value, registers):
    """Return ``registers`` (a constant) copies of one register."""
    vector = Vector(value.dtype, registers.literal_value)

    def codegen(context, builder, sig, args):
        return _join(builder, _split(builder, args[0]) * vector.registers)

    return vector(value, registers), codegen


def _called(name, value):
    def codegen(context, builder, sig, args):
        e = emitter(context, builder, value.dtype)
        return lane_by_lane(builder, lambda a: e.call(name, a), *args)

    return value(value), codegen


@intrinsic
def sqrt(typingctx, value):
    """Return the square root of every lane."""
    return _called("sqrt", value)


@intrinsic
def absolute(typingctx, value):
    """Return the absolute value of every lane."""
    return _called("fabs", value)


@intrinsic
def where_less(typingctx, a, b, yes, no):
    """Return ``yes`` in the lanes where ``a < b``, else ``no``."""

    def codegen(context, builder, sig, args):
        def choose(a, b, yes, no):
            return builder.select(builder.fcmp_ordered("<", a, b), yes, no)

        return lane_by_lane(builder, choose, *args)

    return yes(a, b, yes, no), codegen


@intrinsic
def total(typingctx, value):
    """Return the sum of all lanes, always in the same order."""

    def codegen(context, builder, sig, args):
        e = emitter(context, builder, value.dtype)
        return e.fold(e.add, reduce(e.add, _split(builder, args[0])))

    return value.dtype(value), codegen


@intrinsic
def smallest(typingctx, value):
    """Return the smallest of all lanes, none of them NaN."""

    def codegen(context, builder, sig, args):
        def lesser(a, b):
            return builder.select(builder.fcmp_ordered("<", a, b), a, b)

        return emitter(context, builder, value.dtype).fold(lesser, reduce(lesser, _split(builder, args[0])))

    return value.dtype(value), codegen


@intrinsic
def lanes(typingctx, array):
    """Return how many elements of ``array`` one register holds, as a constant."""
    count = REGISTER * 8 // array.dtype.bitwidth
    return types.intp(array), lambda context, builder, sig, args: context.get_constant(types.intp, count)
