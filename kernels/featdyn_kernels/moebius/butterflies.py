"""Butterflies in registers: up to four bits across registers, and the bits within one, between one load and one store.

Written in LLVM IR: no loop that Numba can be given keeps 16 registers through four butterflies, or turns a butterfly
within a register into a shuffle and a masked addition.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from featdyn_kernels._simd import REGISTER

# Bytes ahead of the reads that a source is fetched. AMD Zen 5 (EPYC 9005), n = 16, float32, one core: 2 to 32 KiB
# swept, 8 KiB took 5.7 ms where no prefetch took 9.9 ms and a copy 4.4 ms.
_AHEAD = 8192


def _intrinsic(function: Any) -> Any:
    return intrinsic(prefer_literal=True)(function)


# Numba wants the signatures of intrinsics bare.
# mypy: allow-untyped-defs, allow-untyped-calls


@_intrinsic
def butterflies(typingctx, source, i, target, j, stride, sign, radix, within, adjoint):
    """Transform ``radix`` registers of ``source``, the k-th from element ``i + k * stride`` on, into ``target``.

    Between registers k and k' that differ in one bit, the one with it gets ``sign`` times the other added; with
    ``within``, so do the lanes of each register. With ``adjoint`` the one without it gets it. ``source`` may be
    ``target`` where ``i == j``. The last three arguments are constants.
    """
    bits = source.dtype.bitwidth
    count = radix.literal_value

    def receives(position: int, bit: int) -> bool:
        return bool(position & bit) is not bool(adjoint.literal_value)

    def codegen(context, builder, signature, args):
        source_array, i, target_array, j, stride, sign = args[:6]
        lanes = REGISTER * 8 // bits
        i32 = ir.IntType(32)
        register = ir.VectorType(context.get_value_type(source.dtype), lanes)
        undefined = ir.Constant(register, ir.Undefined)
        lane_zero = ir.Constant(ir.VectorType(i32, lanes), None)
        signs = builder.shuffle_vector(builder.insert_element(undefined, sign, i32(0)), undefined, lane_zero)
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(register, [register] * 3), f"llvm.fma.v{lanes}f{bits}"
        )

        def pointer(array_type, array, first, k):
            data = context.make_array(array_type)(context, builder, array).data
            offset = builder.add(first, builder.mul(stride, stride.type(k)))
            return builder.bitcast(builder.gep(data, [offset]), register.as_pointer())

        values = [builder.load(pointer(source, source_array, i, k), align=bits // 8) for k in range(count)]
        bit = 1
        while within.literal_value and bit < lanes:
            partner = ir.Constant(ir.VectorType(i32, lanes), [lane ^ bit for lane in range(lanes)])
            mask = ir.Constant(ir.VectorType(ir.IntType(1), lanes), [int(receives(k, bit)) for k in range(lanes)])
            for k, value in enumerate(values):
                moved = builder.shuffle_vector(value, undefined, partner)
                values[k] = builder.select(mask, builder.call(fma, [moved, signs, value]), value)
            bit *= 2
        bit = 1
        while bit < count:
            for k in range(count):
                if receives(k, bit):
                    values[k] = builder.call(fma, [values[k ^ bit], signs, values[k]])
            bit *= 2
        for k, value in enumerate(values):
            builder.store(value, pointer(target, target_array, j, k), align=bits // 8)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp, source.dtype, radix, within, adjoint), codegen


@_intrinsic
def prefetch(typingctx, array, offset, registers):
    """Fetch the ``registers`` (a constant) cache lines that lie ``_AHEAD`` bytes after element ``offset``."""

    def codegen(context, builder, signature, args):
        i32, address = ir.IntType(32), ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [address, i32, i32, i32]), "llvm.prefetch.p0"
        )
        data = context.make_array(array)(context, builder, args[0]).data
        first = builder.bitcast(builder.gep(data, [args[1]]), address)
        for k in range(registers.literal_value):
            line = builder.gep(first, [context.get_constant(types.intp, _AHEAD + k * REGISTER)])
            builder.call(function, [line, i32(0), i32(3), i32(1)])  # to read, into the first-level cache, data
        return context.get_dummy_value()

    return types.void(array, types.intp, registers), codegen
