"""What the sliced Wasserstein distance means: float64, every sample repeated to one common size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def powers(x: Array, y: Array, directions: Array, p: float) -> float:
    """Return the mean over directions of ``W_p^p`` between the projections of ``x`` and ``y``."""
    size = math.lcm(len(x), len(y))
    a = np.sort(x.astype(np.float64) @ directions.T, axis=0).repeat(size // len(x), axis=0)
    b = np.sort(y.astype(np.float64) @ directions.T, axis=0).repeat(size // len(y), axis=0)
    return float((np.abs(a - b) ** p).mean())


def labelled_powers(points: Array, members: Array, directions: Array, p: float) -> Array:
    """Return :func:`powers` of the marked points against the rest, for each row of ``members (R, N)``."""
    return np.array([powers(points[row], points[~row], directions, p) for row in members])
