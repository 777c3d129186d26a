"""Estimates from independent repeats, such as seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over independent repeats, such as seeds.

    Of a single repeat the bounds are NaN: nothing says how much another would vary.
    """

    value: float
    low: float
    high: float
    repeats: int

    def minus(self, constant: float) -> Estimate:
        """Return the estimate of the value less a constant."""
        return Estimate(self.value - constant, self.low - constant, self.high - constant, self.repeats)


def mean_estimate(values: ArrayLike) -> Estimate:
    """Return the mean of independent repeats with Student's interval."""
    x = np.asarray(values, dtype=np.float64)
    return _student(float(x.mean()), x.var(ddof=1) / len(x) if len(x) > 1 else np.nan, len(x) - 1, len(x))


def mean_difference(first: ArrayLike, second: ArrayLike) -> Estimate:
    """Return the difference of the means of two groups of repeats with Welch's interval (Biometrika 34, 1947, 28)."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    value, repeats = float(a.mean() - b.mean()), len(a) + len(b)
    if min(len(a), len(b)) < 2:
        return _student(value, np.nan, 1, repeats)
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    if not parts.any():
        return Estimate(value, value, value, repeats)
    freedom = parts.sum() ** 2 / (parts**2 / (len(a) - 1, len(b) - 1)).sum()
    return _student(value, parts.sum(), freedom, repeats)


def _student(value: float, variance: float, freedom: float, repeats: int) -> Estimate:
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(variance)) if np.isfinite(variance) else float("nan")
    return Estimate(value, value - half, value + half, repeats)
