"""Memory that is freed stays with the process: asked in a process of its own, for it cannot be taken back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
from featdyn.cli.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [bytearray(2**22) for _ in range(6)]  # as the tensors of a pass are held, and freed together
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(3):
    faults()
print(sum(faults() for _ in range(8)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_the_pages_of_what_was_freed_are_those_of_what_comes_next() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", CODE, way], capture_output=True, text=True, check=True).stdout)
        for way in ("kept", "given back")
    )
    assert kept < 2**22 // 4096  # of 48 times as many
    assert given_back > 10 * kept
