"""Two representations of the same samples, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks

Values = NDArray[np.float64]
ROUNDING = 1e-12
"""What varies by less than this share of its size has nothing but rounding left: our own choice."""


def pair(x: ArrayLike, y: ArrayLike, *, rows: int = 2) -> tuple[Values, Values]:
    """Return ``x (n, p)`` and ``y (n, q)`` as finite float64."""
    found = []
    for array, name in ((x, "x"), (y, "y")):
        found.append(checks.finite(checks.matrix(array, name, rows=rows, columns=1), name).astype(np.float64))
    if len(found[0]) != len(found[1]):
        raise ValueError(f"x and y must have the same samples, got {len(found[0])} and {len(found[1])}")
    return found[0], found[1]


def scaled(x: Values) -> Values:
    """Return x centred and of length 1; all zero where it does not vary."""
    largest = np.abs(x).max(initial=0)
    z = x - x.mean(0)
    if not np.abs(z).max(initial=0) > ROUNDING * largest:
        return np.zeros_like(x)
    z = z / np.abs(z).max()
    return np.asarray(z / np.linalg.norm(z))
