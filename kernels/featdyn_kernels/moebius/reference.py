"""What the subset transforms mean: float64, one variable after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def transform(f: Array, out: Array, sign: float, adjoint: bool) -> None:
    """See :func:`featdyn_kernels.moebius.moebius`."""
    result = f.astype(np.float64)
    n = f.shape[-1].bit_length() - 1
    for variable in range(n):
        pairs = result.reshape(len(f), 2 ** (n - 1 - variable), 2, 2**variable)
        absent, present = pairs[:, :, 0], pairs[:, :, 1]
        if adjoint:
            absent += sign * present
        else:
            present += sign * absent
    out[...] = result
