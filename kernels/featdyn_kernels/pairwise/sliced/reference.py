"""What the sliced Wasserstein distance means: float64, the quantiles of both samples."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def powers(x: Array, y: Array, directions: Array, p: float) -> float:
    """Return the mean over directions of ``W_p^p`` between the projections of ``x`` and ``y``.

    Each is the integral over levels of the distance between quantiles, which change where a sample's share ends.
    """
    n, m = len(x), len(y)
    a, b = (np.sort(z.astype(np.float64) @ directions.T, axis=0) for z in (x, y))
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1 / (n m)
    gaps = np.abs(a[(ends - 1) // m] - b[(ends - 1) // n]) ** p
    return float((np.diff(ends, prepend=0) @ gaps).mean() / (n * m))


def labelled_powers(points: Array, members: Array, directions: Array, p: float) -> Array:
    """Return :func:`powers` of the marked points against the rest, for each row of ``members (R, N)``."""
    return np.array([powers(points[row], points[~row], directions, p) for row in members])
