"""SIMD registers, at the two levels at which CPU kernels are written.

:mod:`~featdyn_kernels._simd.values` makes them values of Numba's language: most kernels are Numba functions that load,
compute and store. :mod:`~featdyn_kernels._simd.emitter` writes LLVM's instructions, also for the former: kernels that
hold 24 to 36 registers in lists, unroll loops in Python or differ in a flag are intrinsics made with it.

A register is 64 bytes (AVX-512); where the processor's are shorter, LLVM splits it.
"""

from typing import Any

import numpy as np

from featdyn_kernels._simd.exp2 import exp2
from featdyn_kernels._simd.processor import BF16, NATIVE, REGISTER, WIDE
from featdyn_kernels._simd.values import (
    absolute,
    add_float64,
    broadcast,
    lanes,
    load,
    prefetch,
    repeated,
    smallest,
    splat,
    sqrt,
    store,
    total,
    where_less,
    widened,
)

__all__ = [
    "BF16",
    "NATIVE",
    "REGISTER",
    "WIDE",
    "absolute",
    "add_float64",
    "aligned_empty",
    "broadcast",
    "exp2",
    "lanes",
    "load",
    "prefetch",
    "repeated",
    "smallest",
    "splat",
    "sqrt",
    "store",
    "total",
    "where_less",
    "widened",
]


def aligned_empty(n: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Return an uninitialised 1-d array of ``n`` elements that starts at a register boundary."""
    size = n * np.dtype(dtype).itemsize
    raw = np.empty(size + REGISTER, dtype=np.uint8)
    start = -raw.ctypes.data % REGISTER
    return raw[start : start + size].view(dtype)
