"""SIMD registers as Numba values: load, store, broadcast, splat, tile, ``+ - * /``, sqrt, absolute, where_less.

LLVM vectorises simple loops by itself, but it keeps no accumulator in a register across a loop whose arrays may
overlap, and it never runs one matrix per lane. Kernels that need either say so with these values. A register is 64
bytes (AVX-512); where the processor's are shorter, LLVM splits it. ``a * b + c`` is fused where the processor can.
Arrays are contiguous, offsets count elements, and nothing checks bounds.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

REGISTER = 64  # bytes


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


def _each(builder: Any, instruction: Any, *values: Any) -> Any:
    """Apply ``instruction(register, ...)`` to every register of the vectors."""
    result = ir.Constant(values[0].type, ir.Undefined)
    for i in range(values[0].type.count):
        registers = [builder.extract_value(value, i) for value in values]
        result = builder.insert_value(result, instruction(*registers), i)
    return result


def _register_operator(function: Any, instruction: str) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kwargs: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(function, Vector, Vector)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _each(builder, lambda a, b: getattr(builder, instruction)(a, b, flags=("contract",)), *args)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


def _element(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _splat(builder: Any, kind: Any, scalar: Any) -> Any:
    register = kind.element
    undefined = ir.Constant(register, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), register.count), None)
    repeated = builder.shuffle_vector(one, undefined, zeros)
    return _each(builder, lambda _: repeated, ir.Constant(kind, ir.Undefined))


def _call(builder: Any, name: str, value: Any) -> Any:
    register = value.type.element
    suffix = f"v{register.count}f{64 if isinstance(register.element, ir.DoubleType) else 32}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(register, [register]), f"llvm.{name}.{suffix}"
    )
    return _each(builder, lambda a: builder.call(function, [a]), value)


def _intrinsic(function: Any) -> Any:
    return intrinsic(prefer_literal=True)(function)


# Numba wants the signatures of intrinsics bare.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators


@_intrinsic
def load(typingctx, array, offset, registers):
    """Return the ``registers`` (a constant) registers that start at element ``offset``."""
    vector = Vector(array.dtype, registers.literal_value)

    def codegen(context, builder, sig, args):
        first = _element(context, builder, sig.args[0], *args[:2])
        kind = context.get_value_type(vector)
        result = ir.Constant(kind, ir.Undefined)
        for i in range(vector.registers):
            pointer = builder.gep(first, [context.get_constant(types.intp, i * vector.lanes)])
            pointer = builder.bitcast(pointer, kind.element.as_pointer())
            result = builder.insert_value(result, builder.load(pointer, align=array.dtype.bitwidth // 8), i)
        return result

    return vector(array, types.intp, registers), codegen


@_intrinsic
def store(typingctx, array, offset, value):
    """Write a vector at element ``offset``."""

    def codegen(context, builder, sig, args):
        first = _element(context, builder, sig.args[0], *args[:2])
        for i in range(value.registers):
            register = builder.extract_value(args[2], i)
            pointer = builder.gep(first, [context.get_constant(types.intp, i * value.lanes)])
            builder.store(
                register, builder.bitcast(pointer, register.type.as_pointer()), align=array.dtype.bitwidth // 8
            )
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@_intrinsic
def add_float64(typingctx, array, offset, value):
    """Add a vector, widened to float64, to the float64 elements of ``array`` that start at ``offset``."""

    def codegen(context, builder, sig, args):
        first = _element(context, builder, sig.args[0], *args[:2])
        wide = ir.VectorType(ir.DoubleType(), value.lanes)
        for i in range(value.registers):
            register = builder.extract_value(args[2], i)
            if value.dtype != types.float64:
                register = builder.fpext(register, wide)
            pointer = builder.gep(first, [context.get_constant(types.intp, i * value.lanes)])
            pointer = builder.bitcast(pointer, wide.as_pointer())
            builder.store(builder.fadd(builder.load(pointer, align=8), register), pointer, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@_intrinsic
def broadcast(typingctx, array, offset, registers):
    """Return ``registers`` registers whose lanes all hold element ``offset``."""
    vector = Vector(array.dtype, registers.literal_value)

    def codegen(context, builder, sig, args):
        scalar = builder.load(_element(context, builder, sig.args[0], *args[:2]))
        return _splat(builder, context.get_value_type(vector), scalar)

    return vector(array, types.intp, registers), codegen


@_intrinsic
def splat(typingctx, value, registers):
    """Return ``registers`` registers whose lanes all hold ``value``."""
    vector = Vector(value, registers.literal_value)
    return vector(value, registers), lambda context, builder, sig, args: _splat(
        builder, context.get_value_type(vector), args[0]
    )


@_intrinsic
def tile(typingctx, value, registers):
    """Return ``registers`` copies of a vector of one register."""
    vector = Vector(value.dtype, registers.literal_value)

    def codegen(context, builder, sig, args):
        register = builder.extract_value(args[0], 0)
        return _each(builder, lambda _: register, ir.Constant(context.get_value_type(vector), ir.Undefined))

    return vector(value, registers), codegen


@_intrinsic
def sqrt(typingctx, value):
    """Return the square root of every lane."""
    return value(value), lambda context, builder, sig, args: _call(builder, "sqrt", *args)


@_intrinsic
def absolute(typingctx, value):
    """Return the absolute value of every lane."""
    return value(value), lambda context, builder, sig, args: _call(builder, "fabs", *args)


@_intrinsic
def where_less(typingctx, a, b, yes, no):
    """Return ``yes`` in the lanes where ``a < b``, else ``no``."""

    def codegen(context, builder, sig, args):
        return _each(builder, lambda a, b, y, n: builder.select(builder.fcmp_ordered("<", a, b), y, n), *args)

    return yes(a, b, yes, no), codegen


@_intrinsic
def lanes(typingctx, array):
    """Return how many elements of ``array`` one register holds, as a constant."""
    count = REGISTER * 8 // array.dtype.bitwidth
    return types.intp(array), lambda context, builder, sig, args: context.get_constant(types.intp, count)


def aligned_empty(n: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Return an uninitialised 1-d array of ``n`` elements that starts at a register boundary."""
    size = n * np.dtype(dtype).itemsize
    raw = np.empty(size + REGISTER, dtype=np.uint8)
    start = -raw.ctypes.data % REGISTER
    return raw[start : start + size].view(dtype)
