"""Numbers for the page: short enough to embed by the thousand, and readable where they stand alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

DIGITS = 4


def rounded(values: ArrayLike) -> Any:
    """Return the values as (nested) lists with four significant digits; None, JSON's null, where not finite."""
    return _each(np.asarray(values, dtype=np.float64).tolist(), lambda value: float(f"{value:.{DIGITS}g}"))


def counts(shares: ArrayLike, size: int) -> Any:
    """Return shares of ``size`` samples as (nested) lists of whole numbers; None where not finite."""
    return _each(np.rint(np.asarray(shares, dtype=np.float64) * size).tolist(), int)


def percent(share: float) -> str:
    """Return a share for people: 97.3 %."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """Return a difference of shares for people: +1.2 points."""
    return f"{100 * difference:+.1f} points"


def short(value: float) -> str:
    """Return a number for an axis or a table: 850, 12.5k, 40.6M."""
    for limit, scale, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.4g}"


def _each(value: Any, number: Callable[[float], float]) -> Any:
    if isinstance(value, list):
        return [_each(v, number) for v in value]
    return number(value) if math.isfinite(value) else None
