"""The innermost step of the solver on the CPU: one multiplet's small matrix products, in registers.

Written in LLVM IR because their size varies from call to call: as loops in Numba they took four times as long.
"""

from __future__ import annotations

from functools import partial

from numba.core import types

from featdyn_kernels._simd.emitter import intrinsic
from featdyn_kernels._simd.values import addresses, emitter

LARGEST = 14  # states of a multiplet: n = 13 variables

# Numba wants the signatures of intrinsics bare.
# mypy: allow-untyped-defs, allow-untyped-calls


@intrinsic
def solve(typingctx, f, places, at, vectors, vectors_at, inverse, inverse_at, size):
    """Replace the registers x of ``f`` that start at ``places[at : at + size]`` by ``sum_i v_i inverse_i (v_i . x)``.

    The vectors v_i, of ``size`` elements each, stand in ``vectors`` from ``vectors_at`` on, and one register each in
    ``inverse`` from ``inverse_at`` on. The code differs by ``size``, so that x and the sum stay in registers.
    """

    def codegen(context, builder, signature, args):
        f_array, places_array, at, vectors_array, vectors_at, inverse_array, inverse_at, size = args
        e = emitter(context, builder, f.dtype)

        def address(array_type, array, offset):
            return addresses(context, builder, array_type, array, offset, 1)[0]

        def multiplet(d: int) -> None:
            offsets = [builder.load(address(places, places_array, e.at(at, e.integer(k)))) for k in range(d)]
            states = [e.load(address(f, f_array, offset)) for offset in offsets]

            def over_vectors(i, sums):
                row = e.at(vectors_at, i, d)
                entries = [e.broadcast(address(vectors, vectors_array, e.at(row, e.integer(k)))) for k in range(d)]
                dot = e.constant(0)
                for entry, state in zip(entries, states, strict=True):
                    dot = e.fma(entry, state, dot)
                dot = e.mul(dot, e.load(address(inverse, inverse_array, e.at(inverse_at, i, e.lanes))))
                return [e.fma(entry, dot, total) for entry, total in zip(entries, sums, strict=True)]

            sums = e.loop(e.integer(d), [e.constant(0)] * d, over_vectors)
            for offset, total in zip(offsets, sums, strict=True):
                e.store(total, address(f, f_array, offset))

        e.switch(size, [partial(multiplet, d) for d in range(1, LARGEST + 1)], first=1)
        return context.get_dummy_value()

    i = types.intp
    return types.void(f, places, i, vectors, i, inverse, i, i), codegen
