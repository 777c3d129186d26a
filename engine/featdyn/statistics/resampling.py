"""Intervals: of proportions, and from resampled observations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mean = NDArray[np.float64]

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


def wilson(shares: ArrayLike, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % Wilson score interval (lower, upper) of proportions seen in ``size`` observations.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209. It also covers the mean of several proportions over the same
    observations, which varies no more than one proportion of that size does.
    """
    p = np.asarray(shares, dtype=np.float64)
    shrink = 1 + Z95**2 / size
    centre = (p + Z95**2 / (2 * size)) / shrink
    half = Z95 / shrink * np.sqrt(p * (1 - p) / size + Z95**2 / (4 * size**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def bootstrap_weights(size: int, draws: int, seed: int) -> NDArray[np.float32]:
    """Return ``(draws, size)`` weights of observations: how often each draw with replacement holds each, over ``size``.

    A weighted mean is then a matrix product, and statistics of the same observations are resampled together.
    """
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), draws)
    return (counts / size).astype(np.float32)


def bootstrap_mean(values: NDArray[np.floating] | NDArray[np.bool_], weights: NDArray[np.float32]) -> tuple[Mean, Mean]:
    """Return 95 % percentile bounds (lower, upper) ``(...)`` of the mean of ``values (..., size)``.

    Give differences of paired observations to bound the difference of their means.

    Parameters
    ----------
    weights
        ``(draws, size)``, of :func:`bootstrap_weights`.
    """
    drawn = values.astype(np.float32) @ weights.T
    low, high = np.quantile(drawn.astype(np.float64), (0.025, 0.975), axis=-1)
    return low, high


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
    from scipy.stats import t

    half = float(t.ppf(0.975, freedom) * np.sqrt(variance)) if np.isfinite(variance) else float("nan")
    return Estimate(value, value - half, value + half, repeats)
