"""Butterflies in registers: up to four bits across registers, and the bits within one, between one load and one store.

Written in LLVM IR: no loop that Numba can be given keeps 16 registers through four butterflies, or turns a butterfly
within a register into a shuffle and a masked addition.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from featdyn_kernels._simd.emitter import intrinsic
from featdyn_kernels._simd.values import addresses, emitter

# Numba wants the signatures of intrinsics bare.
# mypy: allow-untyped-defs, allow-untyped-calls


@intrinsic
def butterflies(typingctx, source, i, target, j, stride, sign, radix, within, adjoint):
    """Transform ``radix`` registers of ``source``, the k-th from element ``i + k * stride`` on, into ``target``.

    Between registers k and k' that differ in one bit, the one with it gets ``sign`` times the other added; with
    ``within``, so do the lanes of each register. With ``adjoint`` the one without it gets it. ``source`` may be
    ``target`` where ``i == j``. The last three arguments are constants.
    """
    count = radix.literal_value

    def receives(position: int, bit: int) -> bool:
        return bool(position & bit) is not bool(adjoint.literal_value)

    def codegen(context, builder, signature, args):
        source_array, i, target_array, j, stride, sign = args[:6]
        e = emitter(context, builder, source.dtype)
        signs = e.splat(sign)

        def address(array_type, array, first, k):
            offset = builder.add(first, builder.mul(stride, stride.type(k)))
            return addresses(context, builder, array_type, array, offset, 1)[0]

        values = [e.load(address(source, source_array, i, k)) for k in range(count)]
        bit = 1
        while within.literal_value and bit < e.lanes:
            partner = ir.Constant(ir.VectorType(ir.IntType(32), e.lanes), [lane ^ bit for lane in range(e.lanes)])
            mask = ir.Constant(ir.VectorType(ir.IntType(1), e.lanes), [int(receives(k, bit)) for k in range(e.lanes)])
            for k, value in enumerate(values):
                moved = builder.shuffle_vector(value, value, partner)
                values[k] = builder.select(mask, e.fma(moved, signs, value), value)
            bit *= 2
        bit = 1
        while bit < count:
            for k in range(count):
                if receives(k, bit):
                    values[k] = e.fma(values[k ^ bit], signs, values[k])
            bit *= 2
        for k, value in enumerate(values):
            e.store(value, address(target, target_array, j, k))
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp, source.dtype, radix, within, adjoint), codegen
