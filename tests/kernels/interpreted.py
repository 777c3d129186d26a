"""What Triton's interpreter is spared, which takes a millisecond for an operation of any size."""

from __future__ import annotations

from typing import Any

import pytest

from featdyn_kernels._dispatch import interpreting


def on_a_gpu(*case: Any) -> Any:
    """Return a case for a GPU only: under the interpreter it takes the ways through the code that others take."""
    return pytest.param(*case, marks=pytest.mark.skipif(interpreting(), reason="other cases take the same ways"))


def sized(full: int, interpreted: int) -> int:
    """Return a size for a GPU, or the smaller one that takes the same ways through the code under the interpreter."""
    return interpreted if interpreting() else full
