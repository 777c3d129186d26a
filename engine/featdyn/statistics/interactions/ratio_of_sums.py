"""Ratios of sums over samples, such as a generalizable strength over all strength, with intervals over samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.interactions.subsets import Values, apart, divided
from featdyn.statistics.resampling import Interval, bootstrap_counts

DRAWS = 1000
"""Bootstrap draws of samples (an interval of the decay alone takes half as many); plans of memory count them. Our
own choice."""


def drawn(samples: int, groups: ArrayLike | None = None, seed: int = 0) -> NDArray[np.float32] | None:
    """Return how often each of 1,000 draws holds each sample, ``(draw, sample)``; None where there is but one."""
    return bootstrap_counts(samples, DRAWS, seed, groups) if samples > 1 else None


def ratio_of_sums(part: Values, whole: Values, counts: NDArray[np.float32] | None) -> Interval:
    """Return ``sum part / sum whole`` over the samples, axis -2, with the percentiles of 95 % of the draws.

    Parameters
    ----------
    part, whole : (..., sample, k)
    counts : (draw, sample)
        Of :func:`drawn`; without them there is no interval.

    Returns
    -------
    Interval
        Fields ``(..., k)``; NaN where the whole is 0, limits also where it is in a draw or where all draws agree.
    """
    estimate = divided(part.sum(-2), whole.sum(-2))
    if counts is None:
        return Interval(estimate, np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan))
    found = divided(counts @ part, counts @ whole)  # (..., draw, k)
    known = np.isfinite(found).all(-2) & np.isfinite(estimate)
    low, high = np.quantile(np.nan_to_num(found), [0.025, 0.975], axis=-2)
    known &= apart(low, high)
    return Interval(estimate, np.where(known, low, np.nan), np.where(known, high, np.nan))
