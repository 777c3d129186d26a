"""How CPU kernels are compiled: without the GIL, and cached on disk for as long as their sources stay the same."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba

PACKAGE = Path(__file__).parent


def njit(function: Callable[..., Any] | None = None, *, fastmath: set[str] | bool = False) -> Any:
    """Compile a serial kernel.

    Numba's cache notices changes in the function's own file only: it would go on running machine code made of functions
    and constants of other files as they were before an upgrade. Here it notices changes in all files of the operation,
    those of its subfolders included, and in those that operations share.
    """
    if function is None:
        return partial(njit, fastmath=fastmath)
    kernel: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=fastmath)(function)
    operation = Path(function.__code__.co_filename).relative_to(PACKAGE).parts[0]
    kernel._cache._cache_file._source_stamp = _stamp(operation)
    return kernel


@cache
def _stamp(operation: str) -> int:
    files = {*PACKAGE.glob(f"{operation}/**/*.py"), *PACKAGE.glob("_*.py"), *PACKAGE.glob("_*/**/*.py")}
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(files)))
