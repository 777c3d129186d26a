"""Confidence intervals of ratios of shares over the same samples, such as how much of an accuracy is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from featdyn.statistics import checks
from featdyn.statistics.resampling import Interval, group_sums, share_interval


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """Return the ratio of two shares with confidence limits that have a width also where both are 1.

    Limits are recovered from the Wilson intervals of both shares and their correlation (Donner and Zou 2012,
    "Closed-form confidence intervals for functions of the normal mean and standard deviation"); taking Wilson's for
    clustered samples is featdyn's own choice, and so is that the correlation is seen beside 4 uncorrelated groups
    (the square of the normal quantile), so that equal answers of a few samples leave a width.

    Parameters
    ----------
    numerator, denominator : (..., N)
        Whether each sample counts in either share; they are broadcast against each other.
    groups : (N,), optional
        Origin of each sample; by default each is its own.

    Returns
    -------
    Interval
        Fields ``(...)``; NaN where the denominator is 0.
    """
    above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    a, b = (share_interval(values, groups=groups, level=level) for values in (above, below))
    r = _correlation(above, below, checks.groups(groups, above.shape[-1]), float(ndtri((1 - level) / 2)) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = a.estimate * b.estimate - r * (a.estimate - a.low) * (b.high - b.estimate)
        outer = a.low * (2 * a.estimate - a.low)
        root = np.sqrt(np.maximum(middle**2 - outer * b.high * (2 * b.estimate - b.high), 0))
        low = np.where(a.estimate == 0, 0.0, outer / (middle + root))
        middle = a.estimate * b.estimate - r * (a.high - a.estimate) * (b.estimate - b.low)
        inner = b.low * (2 * b.estimate - b.low)
        root = np.sqrt(np.maximum(middle**2 - a.high * (2 * a.estimate - a.high) * inner, 0))
        found = a.estimate / b.estimate, low, (middle + root) / inner
    known = np.asarray(b.estimate) > 0
    return Interval(*(np.where(known, values, np.nan)[()] for values in found))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64], member: NDArray[np.intp], prior: float) -> Any:
    """Return how the means of both over the last axis are correlated, 0 where one does not vary.

    As many uncorrelated groups as ``prior`` says are counted with them.
    """
    x, y = (group_sums(v - v.mean(-1, keepdims=True), member) for v in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.clip(np.nan_to_num(found, nan=0.0), -1, 1) * (x.shape[-1] / (x.shape[-1] + prior))
