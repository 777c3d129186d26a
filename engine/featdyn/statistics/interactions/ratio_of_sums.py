"""Ratios of sums over samples, such as a generalizable strength over all strength, with intervals over samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.interactions.subsets import Values, apart, divided
from featdyn.statistics.resampling import Interval, bootstrap_counts, bootstrap_limits, effective_groups

DRAWS = 1000
"""Bootstrap draws of samples (an interval of the decay alone takes half as many); plans of memory count them. Our
own choice."""


class Drawn(NamedTuple):
    """How often each of 1,000 draws holds each sample, ``(draw, sample)``, and of how many groups they are."""

    counts: NDArray[np.float32]
    units: float


def drawn(samples: int, groups: ArrayLike | None = None, seed: int = 0) -> Drawn | None:
    """Return bootstrap draws of the samples; None where there is but one."""
    if samples < 2:
        return None
    return Drawn(bootstrap_counts(samples, DRAWS, seed, groups), effective_groups(groups, samples))


def ratio_of_sums(
    part: Values, whole: Values, draws: Drawn | None, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Return ``sum part / sum whole`` over the samples, axis -2, with 95 % limits by bootstrap.

    Parameters
    ----------
    part, whole : (..., sample, k)
    draws
        Of :func:`drawn`; without them there is no interval.
    bounds
        Between which any such ratio lies.

    Returns
    -------
    Interval
        Fields ``(..., k)``; NaN where the whole is 0, limits also where it is in a draw or where all draws agree.
    """
    estimate = divided(part.sum(-2), whole.sum(-2))
    if draws is None:
        return Interval(estimate, np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan))
    found = divided(draws.counts @ part, draws.counts @ whole)  # (..., draw, k)
    known = np.isfinite(found).all(-2) & np.isfinite(estimate)
    low, high = bootstrap_limits(np.nan_to_num(found), np.nan_to_num(estimate), draws.units, axis=-2, bounds=bounds)
    known &= apart(low, high)
    return Interval(estimate, np.where(known, low, np.nan), np.where(known, high, np.nan))
