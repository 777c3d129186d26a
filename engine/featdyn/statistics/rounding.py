"""What a spectrum shows of the rounding of the numbers that it is of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def roundoff(dtype: Any) -> float:
    """Return by what share numbers of this dtype are rounded, at most; 0 of those that are not floating."""
    kind = np.dtype(dtype)
    return float(np.finfo(kind).eps) / 2 if kind.kind == "f" else 0.0


def rounding_share(unit: float, mean_square: float, variance: float) -> float:
    """Return which share of a variance is rounding, of numbers with this mean square rounded by ``unit`` at most.

    A number x is rounded within a spacing of ``unit |x|`` to ``2 unit |x|``, of which the square over 12 is 0.18
    ``unit^2 x^2`` where magnitudes lie anywhere between two powers of 2: within a factor of 2 of what it is for one.
    """
    return 0.18 * unit**2 * mean_square / variance


def noise_share(unit: float, mean_square: float, shape: tuple[int, int], largest: float) -> float:
    """Return the share of the largest singular value below which those of ``(n, p)`` numbers may be rounding.

    Numbers with this mean square, each off by ``unit`` of itself at random, have no singular value above
    ``unit sqrt(mean square) (sqrt n + sqrt p)`` from rounding alone: about twice what rounding to nearest leaves, our
    own choice. The larger the mean of the numbers beside what varies, the larger the share.
    """
    return unit * math.sqrt(mean_square) * (math.sqrt(shape[0]) + math.sqrt(shape[1])) / largest if largest > 0 else 0.0
