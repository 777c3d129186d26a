"""Which CPU path serves: the SIMD kernels, with the versions of Numba that they were tested with, or the plain one.

The kernels are written in LLVM's language through parts of Numba that it may change without notice. Beside any other
version the references serve instead (NumPy in float64, in memory linear in the samples): the same meaning, slower.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version

TESTED = ("0.68",)
"""Minor versions of Numba that all tests of the kernels pass with."""


def simd() -> bool:
    """Whether the SIMD kernels serve; never where the environment variable ``FEATDYN_PLAIN`` is 1."""
    return os.environ.get("FEATDYN_PLAIN") != "1" and _tested()


@cache
def _tested() -> bool:
    try:
        found = version("numba")
    except PackageNotFoundError:
        found = "not there"
    if found.startswith(tuple(f"{minor}." for minor in TESTED)):
        return True
    warnings.warn(
        f"featdyn's kernels were tested with Numba {', '.join(TESTED)}, which here is {found}: plain NumPy serves "
        "instead, several times slower",
        RuntimeWarning,
        stacklevel=2,
    )
    return False
