"""Powers of two, lane by lane."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.polynomial import Chebyshev, Polynomial

from featdyn_kernels._simd.emitter import Emitter, intrinsic
from featdyn_kernels._simd.processor import REGISTER, WIDE
from featdyn_kernels._simd.values import emitter, lane_by_lane

# 2**x on [-1/2, 1/2], constant first. Near-minimax in float32 (relative error 1.0e-7; after rounding a sixth degree
# gains nothing); Taylor in float64, where coefficients from interpolation are not exact enough.
_SINGLE = Chebyshev.interpolate(np.exp2, 5, domain=[-0.5, 0.5]).convert(kind=Polynomial).coef
_DOUBLE = [math.log(2.0) ** k / math.factorial(k) for k in range(14)]

# mypy: allow-untyped-defs, allow-untyped-calls


@intrinsic
def exp2(typingctx, value):
    """Return 2**x of every lane x <= 0: relative error below 3e-7 (float32) or 4e-16 (float64).

    Arguments below -126 (float32) or -1022 (float64) count as that: a sum that holds a term of 1 does not see it.
    """

    def codegen(context, builder, sig, args):
        e = emitter(context, builder, value.dtype)
        return lane_by_lane(builder, lambda x: _exp2(e, x), args[0])

    return value(value), codegen


def _exp2(e: Emitter, x: Any) -> Any:
    least, coefficients = (-126, _SINGLE) if e.size == 4 else (-1022, _DOUBLE)
    x = e.clamp(x, e.constant(least))
    whole = e.call("rint", x)
    fraction = e.sub(x, whole)
    power = e.constant(coefficients[-1])
    for c in coefficients[-2::-1]:
        power = e.fma(power, fraction, e.constant(c))
    return _scale(e, power, whole)


def _scale(e: Emitter, x: Any, exponent: Any) -> Any:
    """Return ``x * 2**exponent``, both normal numbers and the exponent whole."""
    if WIDE and e.lanes * e.size == REGISTER:  # one instruction
        letter, mask = ("s", ir.IntType(16)) if e.size == 4 else ("d", ir.IntType(8))
        name = f"llvm.x86.avx512.mask.scalef.p{letter}.512"
        return e.function(name, e.register, x, exponent, x, mask(-1), ir.IntType(32)(4))  # 4: round as always
    bits = ir.VectorType(ir.IntType(8 * e.size), e.lanes)
    places = ir.Constant(bits, [23 if e.size == 4 else 52] * e.lanes)
    moved = e.builder.shl(e.builder.fptosi(exponent, bits), places)
    return e.builder.bitcast(e.builder.add(e.builder.bitcast(x, bits), moved), e.register)
