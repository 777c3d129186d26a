"""Half-precision input for Numba, which knows neither float16 nor bfloat16: their bits go in, float32 comes out.

float16 travels as int16 and bfloat16 as uint16, so that the type of an array says what its bits mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from featdyn_kernels._dispatch import is_tensor, to_numpy


def numeric(array: Any, name: str) -> np.ndarray[Any, Any]:
    """Return a C-contiguous array that Numba can read through :func:`widen`, without a copy where there is a choice.

    Raises TypeError where it holds anything but float16, bfloat16, float32 or float64.
    """
    if is_tensor(array) and str(array.dtype) == "torch.bfloat16":
        import torch

        bits = array.detach().cpu().contiguous().view(torch.uint16).numpy()
        return np.asarray(bits)
    values = np.ascontiguousarray(to_numpy(array, name))
    if values.dtype == np.float16:
        return values.view(np.int16)
    if values.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {values.dtype}")
    return values


def _intrinsic(function: Any) -> Any:
    return intrinsic(function)


# mypy: allow-untyped-defs


@_intrinsic
def widen(typingctx, value):
    """Return the number that ``value`` stands for: float32 for the bits of a half, else ``value`` itself."""
    if value not in (types.int16, types.uint16):
        return value(value), lambda context, builder, sig, args: args[0]

    def codegen(context, builder, sig, args):
        if value is types.int16:
            return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())
        wide = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(value), codegen


@_intrinsic
def narrow(typingctx, value, target):
    """Return a float32 number as an array's element: the bits of the nearest float16 for int16, else float32."""
    if target is not types.int16:
        return types.float32(value, target), lambda context, builder, sig, args: args[0]

    def codegen(context, builder, sig, args):
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.int16(value, target), codegen


@_intrinsic
def magnitude(typingctx, value):
    """Return the bits of a float32 number without its sign, as int32: they grow with it, infinity and NaN last."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(32))
        return builder.and_(bits, ir.Constant(ir.IntType(32), 0x7FFFFFFF))

    return types.int32(value), codegen
