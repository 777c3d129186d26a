"""How much memory a call takes: what the kernel counts of the whole process, libraries' own buffers with it."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(call: Callable[[], Any]) -> int:
    """Return by how many bytes a call makes the process larger at its peak.

    Blocks of 64 KiB and more go back to the system as soon as they are freed, so that neither what earlier calls left
    nor holes between blocks count. Files that are mapped count, as they do for a worker's limit.
    """
    glibc = ctypes.CDLL(None)
    gc.collect()
    assert glibc.mallopt(-3, 2**16)  # M_MMAP_THRESHOLD
    glibc.malloc_trim(0)
    try:
        RESET.write_text("5")  # the peak so far
        before = held("VmRSS")
        call()
        return held("VmHWM") - before
    finally:
        glibc.mallopt(-3, 2**25)  # as far as glibc raises it by itself


def held(what: str) -> int:
    """Return a number of bytes that the kernel says of this process."""
    found = re.search(rf"{what}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return 1024 * int(found[1])
