"""How wide registers are, and what the processor can do with them."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core import config

REGISTER = 64
"""Bytes of a register as kernels write it."""


def _features() -> set[str]:
    """Return what the processor that Numba compiles for can do: this one, or what NUMBA_CPU_FEATURES says."""
    asked: Any = config  # its settings are made when it is imported, so no type checker knows them
    if asked.CPU_NAME is None and asked.CPU_FEATURES is None:
        try:
            return {name for name, there in llvm.get_host_cpu_features().items() if there}
        except RuntimeError:  # not every platform can tell
            return set()
    return {name[1:] for name in (asked.CPU_FEATURES or "").split(",") if name.startswith("+")}


_FEATURES = _features()

WIDE = {"avx512f", "avx512dq"} <= _FEATURES
"""Whether the processor has 32 registers of that size; if not, taken as 16 of half the size."""

NATIVE = REGISTER if WIDE else REGISTER // 2
"""Bytes of a register of the processor, for kernels whose 36 values leave none over: split by LLVM, the convolutions of
``stitch`` lost 20 % (compiled for AVX2, 64 channels). Others lose nothing, and are simpler with one size."""

BF16 = WIDE and "avx512bf16" in _FEATURES and llvm.llvm_version_info[0] >= 16  # older ones spell its types otherwise
"""Whether it sums products of bfloat16 numbers in float32."""
