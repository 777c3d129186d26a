"""How CPU kernels are compiled: without the GIL, and cached on disk for as long as their sources stay the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba
from numba import types

from featdyn_kernels._versions import simd


def njit(
    function: Callable[..., Any] | None = None, *, fastmath: set[str] | bool = False, specialised: bool = True
) -> Any:
    """Compile a serial kernel.

    Where another kernel calls it with constants, Numba compiles a version for each of them, with ``specialised=False``
    one for all: seconds of compilation less, where what a constant chooses runs for many elements.

    Numba's cache notices changes in the function's own file only: it would go on running machine code made of functions
    and constants of other files as they were before an upgrade. Here it notices changes in all files of the operation,
    those of its subfolders included, and in those that operations share. How Numba keeps its cache is its own business,
    so with versions that were not tested there is none.
    """
    if function is None:
        return partial(njit, fastmath=fastmath, specialised=specialised)
    cached = simd()
    kernel: Any = numba.njit(nogil=True, cache=cached, error_model="numpy", fastmath=fastmath)(function)
    if not specialised:
        typed = kernel.get_call_template
        kernel.get_call_template = lambda args, kws: typed(
            tuple(map(types.unliteral, args)), {name: types.unliteral(kind) for name, kind in kws.items()}
        )
    if cached:
        from featdyn_kernels._cache import keep

        keep(kernel, function.__code__.co_filename)
    return kernel
