"""Estimates from independent repeats, such as seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import scipy
from numpy.typing import ArrayLike

from featdyn.statistics.resampling import mean_interval

ONE, EQUAL = "a single repeat does not tell how another would vary", "all repeats are equal, which tells no spread"


@cache
def _shift_seen(freedom: float, level: float, power: float) -> float:
    """Return the noncentrality at which Student's two-sided test rejects, on its side, with this power."""
    critical = scipy.stats.t.isf(level / 2, freedom)

    def lacking(shift: float) -> float:
        return float(scipy.stats.nct.sf(critical, freedom, shift) - power)

    most = critical + 1.0
    while lacking(most) < 0:
        most *= 2
    return float(scipy.optimize.brentq(lacking, 0.0, most))


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
    def error(self) -> float:
        """Standard error of the value; NaN without an interval."""
        return float((self.high - self.low) / 2 / scipy.stats.t.isf(0.025, self.freedom))

    @property
    def pvalue(self) -> float:
        """Two-sided p-value of the value being 0, by the test that the interval inverts; NaN without an interval."""
        return float(2 * scipy.stats.t.sf(abs(self.value) / self.error, self.freedom))

    def least_seen(self, level: float = 0.05, power: float = 0.8) -> float:
        """Smallest distance of the truth from a tested value that a two-sided test at ``level`` sees with ``power``.

        Of Student's test with this standard error (noncentral t); NaN without an interval.
        """
        if not np.isfinite(self.error):
            return float("nan")
        return self.error * _shift_seen(self.freedom, level, power)

    def within(self, least: float, most: float) -> Estimate:
        """Return the interval cut to values that are possible, which covers as often."""
        low, high = np.clip([self.low, self.high], least, most).tolist()
        return replace(self, low=low, high=high)

    def minus(self, constant: float) -> Estimate:
        """Return the estimate of the value less a constant."""
        return replace(self, value=self.value - constant, low=self.low - constant, high=self.high - constant)


def mean_estimate(values: ArrayLike) -> Estimate:
    """Return the mean of independent repeats with Student's interval.

    Examples
    --------
    >>> found = mean_estimate([0.90, 0.92, 0.94])
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (0.92, 0.87, 0.97)
    """
    x = np.asarray(values, dtype=np.float64)
    found = mean_interval(x)
    reason = ONE if len(x) < 2 else EQUAL if np.isnan(found.low) else ""
    return Estimate(float(found.estimate), float(found.low), float(found.high), len(x), reason, len(x) - 1.0)


def two_level_estimate(values: ArrayLike, variances: ArrayLike) -> Estimate:
    """Return the mean of independent repeats with an interval that is never narrower than their samples allow.

    Repeats vary by all that they draw anew; ``variances (n,)`` are those of each value over its own samples, such as
    images, NaN where unknown. The variance of a repeat is the larger of what the repeats show and of the mean of these:
    few repeats may agree by chance, or by a ceiling, better than their samples let anyone know (our own choice). The
    law is Student's with n - 1 degrees of freedom.
    """
    x, inner = np.asarray(values, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    found = mean_estimate(x)
    known = inner[np.isfinite(inner)]
    if len(x) < 2 or not len(known):
        return found
    spread = max(float(x.var(ddof=1)), float(known.mean()))
    if spread == 0:
        return found
    half = float(scipy.stats.t.isf(0.025, len(x) - 1) * np.sqrt(spread / len(x)))
    return Estimate(found.value, found.value - half, found.value + half, len(x), freedom=len(x) - 1.0)


def mean_difference(first: ArrayLike, second: ArrayLike) -> Estimate:
    """Return the difference of the means of two groups of repeats with Welch's interval (Biometrika 34, 1947, 28).

    Examples
    --------
    >>> found = mean_difference([0.90, 0.92, 0.94], [0.50, 0.55, 0.52])
    >>> round(found.value, 3), found.low > 0
    (0.397, True)
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    value, repeats, nan = float(a.mean() - b.mean()), len(a) + len(b), float("nan")
    if min(len(a), len(b)) < 2:
        return Estimate(value, nan, nan, repeats, ONE)
    if np.ptp(a) == np.ptp(b) == 0:
        return Estimate(value, nan, nan, repeats, EQUAL)
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    freedom = parts.sum() ** 2 / (parts**2 / (len(a) - 1, len(b) - 1)).sum()
    half = float(scipy.stats.t.isf(0.025, freedom) * np.sqrt(parts.sum()))
    return Estimate(value, value - half, value + half, repeats, freedom=float(freedom))
