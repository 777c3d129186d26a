"""What a command asks of the C library's memory, which is the process's own: no library may ask it of its caller."""

from __future__ import annotations

import ctypes
import sys

_TRIM, _MAPPED = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
LARGEST = 2**25
"""Of blocks that come from the heap, the largest that glibc allows for."""


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for what comes next; return whether it does, which others' libraries do not.

    Else it gives the memory of each large tensor back, and the next one faults its pages in anew: 14 % of the processor
    time of a pass of ResNet-20 on 64 images of CIFAR's size on an idle Sapphire Rapids, more beside other work; 12 %
    of a step of its training on a busy Zen 5. The process stays as large as it once was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt if sys.platform == "linux" else None
    except (OSError, AttributeError):
        return False
    return mallopt is not None and bool(mallopt(_MAPPED, LARGEST)) and bool(mallopt(_TRIM, 2**31 - 1))
