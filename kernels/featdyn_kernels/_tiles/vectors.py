"""Loops over one row of a tile, written so that LLVM turns them into full-width vector code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from featdyn_kernels._jit import njit

# No "ninf": masked entries may be infinite. "reassoc" is what lets a sum run in parallel lanes.
FAST = {"reassoc", "nnan", "nsz", "contract"}


# 2**x on [-1/2, 1/2], constant first. Near-minimax in float32 (relative error 1.0e-7; after rounding a sixth degree
# gains nothing); Taylor in float64, where coefficients from interpolation are not exact enough.
_SERIES = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, 5, domain=[-0.5, 0.5])
_C32 = tuple(np.float32(c) for c in _SERIES.convert(kind=np.polynomial.Polynomial).coef)
_C64 = tuple(math.log(2.0) ** k / math.factorial(k) for k in range(14))


def _bitcast(_context, x):  # type: ignore[no-untyped-def]
    """Return the bits of a float as an integer of its size, or the other way round."""
    pairs: dict[Any, Any] = {types.float32: types.int32, types.float64: types.int64, types.int32: types.float32}
    other = pairs.get(x, types.float64)

    def codegen(context, builder, _signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(other))

    return other(x), codegen


_bits: Any = intrinsic(_bitcast)


def exp2(x: Any) -> Any:
    """Return 2**x for x <= 0 in compiled code: relative error below 3e-7 (float32) or 4e-16 (float64).

    Arguments below -126 (float32) or -1022 (float64) count as that: a sum that holds a term of 1 does not see it.
    """
    raise NotImplementedError


@overload(exp2, inline="always")
def _exp2(x):  # type: ignore[no-untyped-def]
    def single(x):  # type: ignore[no-untyped-def]
        x = x if x > np.float32(-126) else np.float32(-126)
        whole = np.rint(x)
        f = x - whole
        p = _C32[4] + f * _C32[5]
        p = _C32[0] + f * (_C32[1] + f * (_C32[2] + f * (_C32[3] + f * p)))
        return _bits(np.int32(_bits(p) + (np.int32(whole) << np.int32(23))))

    def double(x):  # type: ignore[no-untyped-def]
        x = x if x > -1022.0 else -1022.0
        whole = np.rint(x)
        f = x - whole
        p = _C64[9] + f * (_C64[10] + f * (_C64[11] + f * (_C64[12] + f * _C64[13])))
        p = _C64[4] + f * (_C64[5] + f * (_C64[6] + f * (_C64[7] + f * (_C64[8] + f * p))))
        p = _C64[0] + f * (_C64[1] + f * (_C64[2] + f * (_C64[3] + f * p)))
        return _bits(_bits(p) + (np.int64(whole) << np.int64(52)))

    return single if x == types.float32 else double


@njit
def smallest(tile: Any, r: int, stop: int) -> Any:
    """Return the smallest of the first entries of a row, all >= 0: their order is that of their bits.

    LLVM makes vectors of a minimum of integers, not of Numba's minimum of floats.
    """
    least = _bits(tile[r, 0])
    for j in range(stop):
        least = min(least, _bits(tile[r, j]))
    return _bits(least)


@njit(fastmath=FAST)
def exp2_sum(tile: Any, r: int, stop: int, top: Any) -> Any:
    """Return ``sum_j 2**(top - tile[r, j])``, where no exponent is positive."""
    total = top - top  # a zero of the row's type: a wider sum would halve the vectors
    for j in range(stop):
        total += exp2(top - tile[r, j])
    return total


@njit(fastmath=FAST)
def exp2_in_place(tile: Any, r: int, stop: int, top: Any) -> None:
    """Replace the first entries of a row by ``2**(top - tile[r, j])``, where no exponent is positive."""
    for j in range(stop):
        tile[r, j] = exp2(top - tile[r, j])
