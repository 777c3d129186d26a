"""The innermost step of the solver on the CPU: one multiplet's small matrix products, in registers.

Written in LLVM IR because their size varies from call to call: as loops in Numba they took four times as long.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from featdyn_kernels._simd import REGISTER

LARGEST = 14  # states of a multiplet: n = 13 variables


def _intrinsic(function: Any) -> Any:
    return intrinsic(function)


# Numba wants the signatures of intrinsics bare.
# mypy: allow-untyped-defs, allow-untyped-calls


@_intrinsic
def solve(typingctx, f, places, at, vectors, vectors_at, inverse, inverse_at, size):
    """Replace the registers x of ``f`` that start at ``places[at : at + size]`` by ``sum_i v_i inverse_i (v_i . x)``.

    The vectors v_i, of ``size`` elements each, stand in ``vectors`` from ``vectors_at`` on, and one register each in
    ``inverse`` from ``inverse_at`` on. The code differs by ``size``, so that x and the sum stay in registers.
    """
    bits = f.dtype.bitwidth

    def codegen(context, builder, signature, args):
        index = args[2].type
        lanes = REGISTER * 8 // bits
        register = ir.VectorType(context.get_value_type(f.dtype), lanes)
        undefined = ir.Constant(register, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)

        def element(position, offset):
            data = context.make_array(signature.args[position])(context, builder, args[position]).data
            return builder.gep(data, [offset])

        def pointer(position, offset):
            return builder.bitcast(element(position, offset), register.as_pointer())

        def broadcast(offset):
            one = builder.insert_element(undefined, builder.load(element(3, offset)), ir.IntType(32)(0))
            return builder.shuffle_vector(one, undefined, zeros)

        def multiply_add(a, b, c):
            return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

        end = builder.append_basic_block("solved")
        switch = builder.switch(args[7], end)
        for d in range(1, LARGEST + 1):
            before, loop, after = (builder.append_basic_block(f"{name}_{d}") for name in ("before", "loop", "after"))
            switch.add_case(index(d), before)
            builder.position_at_end(before)
            offsets = [builder.load(element(1, builder.add(args[2], index(k)))) for k in range(d)]
            states = [builder.load(pointer(0, offset), align=bits // 8) for offset in offsets]
            builder.branch(loop)

            builder.position_at_end(loop)
            i = builder.phi(index)
            sums = [builder.phi(register) for _ in range(d)]
            row = builder.add(args[4], builder.mul(i, index(d)))
            entries = [broadcast(builder.add(row, index(k))) for k in range(d)]
            dot = builder.fmul(entries[0], states[0])
            for entry, state in zip(entries[1:], states[1:], strict=True):
                dot = multiply_add(entry, state, dot)
            factor = builder.load(pointer(5, builder.add(args[6], builder.mul(i, index(lanes)))), align=bits // 8)
            dot = builder.fmul(dot, factor)
            i.add_incoming(index(0), before)
            for entry, total in zip(entries, sums, strict=True):
                total.add_incoming(ir.Constant(register, None), before)
                total.add_incoming(multiply_add(entry, dot, total), loop)
            following = builder.add(i, index(1))
            i.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, index(d)), loop, after)

            builder.position_at_end(after)
            for offset, total in zip(offsets, sums, strict=True):
                # The value that leaves the loop is the one computed in its last round.
                builder.store(total.incomings[1][0], pointer(0, offset), align=bits // 8)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    i = types.intp
    return types.void(f, places, i, vectors, i, inverse, i, i), codegen
