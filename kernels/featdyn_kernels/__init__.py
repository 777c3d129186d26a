"""Kernels for training dynamics: one folder per operation, usable without featdyn.

Each operation has a float64 ``reference`` (its meaning), a ``cpu`` (Numba) and a ``gpu`` (Triton) implementation with
the same names, and one public function that picks between them by the device of its arrays.
"""

from featdyn_kernels._threads import cores, get_threads, set_threads

__all__ = ["cores", "get_threads", "set_threads"]
