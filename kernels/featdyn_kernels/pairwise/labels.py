"""Labellings of a pooled sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from featdyn_kernels._check import require
from featdyn_kernels._dispatch import to_numpy


def labellings(members: Any, n: int, least: int = 2) -> np.ndarray[Any, Any]:
    """Return ``members`` as a boolean (R, n) array with at least ``least`` points on either side in every row."""
    found = to_numpy(members, "members")
    if found.dtype != bool:
        raise TypeError(f"members must be boolean, got {found.dtype}")
    require(found.ndim == 2 and found.shape[1] == n, f"members must have shape (R, {n}), got {found.shape}")
    marked = found.sum(1)
    require(
        bool(((marked >= least) & (n - marked >= least)).all()),
        f"every row of members {found.shape} must mark at least {least} points and leave {least}",
    )
    return found
