"""Estimates from independent repeats, such as seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from featdyn.statistics.resampling import mean_interval

ONE, EQUAL = "a single repeat does not tell how another would vary", "all repeats are equal, which tells no spread"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over independent repeats, such as seeds.

    The bounds are NaN where nothing says how much another repeat would vary; ``reason`` says why.
    """

    value: float
    low: float
    high: float
    repeats: int
    reason: str = ""
    freedom: float = float("nan")

    @property
    def pvalue(self) -> float:
        """Two-sided p-value of the value being 0, by the test that the interval inverts; NaN without an interval."""
        error = (self.high - self.low) / 2 / stats.t.isf(0.025, self.freedom)
        return float(2 * stats.t.sf(abs(self.value) / error, self.freedom))

    def within(self, least: float, most: float) -> Estimate:
        """Return the interval cut to values that are possible, which covers as often."""
        low, high = np.clip([self.low, self.high], least, most).tolist()
        return replace(self, low=low, high=high)

    def minus(self, constant: float) -> Estimate:
        """Return the estimate of the value less a constant."""
        return replace(self, value=self.value - constant, low=self.low - constant, high=self.high - constant)


def mean_estimate(values: ArrayLike) -> Estimate:
    """Return the mean of independent repeats with Student's interval."""
    x = np.asarray(values, dtype=np.float64)
    found = mean_interval(x)
    reason = ONE if len(x) < 2 else EQUAL if np.isnan(found.low) else ""
    return Estimate(float(found.estimate), float(found.low), float(found.high), len(x), reason, len(x) - 1.0)


def mean_difference(first: ArrayLike, second: ArrayLike) -> Estimate:
    """Return the difference of the means of two groups of repeats with Welch's interval (Biometrika 34, 1947, 28)."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    value, repeats, nan = float(a.mean() - b.mean()), len(a) + len(b), float("nan")
    if min(len(a), len(b)) < 2:
        return Estimate(value, nan, nan, repeats, ONE)
    if np.ptp(a) == np.ptp(b) == 0:
        return Estimate(value, nan, nan, repeats, EQUAL)
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    freedom = parts.sum() ** 2 / (parts**2 / (len(a) - 1, len(b) - 1)).sum()
    half = float(stats.t.isf(0.025, freedom) * np.sqrt(parts.sum()))
    return Estimate(value, value - half, value + half, repeats, freedom=float(freedom))
