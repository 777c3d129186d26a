"""Intervals of what is computed from sums over the samples, by leaving out one fold of the samples after the other.

A bootstrap draws some samples twice, which makes measures of rank and of neighbours smaller than they are; leaving out
does not. That folds are few, drawn at random and made of whole groups is our own choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from featdyn.statistics import checks
from featdyn.statistics.resampling import Interval, effective_number

ROUNDING = 1e-12
"""Estimates closer than this share of the upper bound, or of themselves where there is none, agree: our own choice."""


def folds(
    size: int, count: int, seed: int, groups: ArrayLike | None = None, kinds: ArrayLike | None = None
) -> NDArray[np.intp]:
    """Return ``(size,)``, the fold of each sample, 0 upwards: at most ``count``, each of whole groups.

    ``kinds (size,)``, such as labels, are spread over the folds as evenly as groups allow.
    """
    member = checks.groups(groups, size)
    random = np.random.default_rng(seed)
    units = int(member.max(initial=-1)) + 1
    kind = np.zeros(units, np.intp)
    if kinds is not None:
        kind[member] = np.unique(np.asarray(kinds), return_inverse=True)[1]
    order = np.lexsort((random.permutation(units), kind))
    fold = np.empty(units, np.intp)
    fold[order] = np.arange(units) % count
    return fold[member]


def jackknife_interval(
    estimate: float,
    left_out: Sequence[float],
    *,
    sizes: ArrayLike | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
) -> Interval:
    """Return Student's interval of an estimate, from the estimates with each of G folds left out.

    ``sqrt((G - 1) / G sum (x_g - mean)^2)`` is the standard error (Tukey 1958), with G - 1 degrees of freedom. Of
    folds of different ``sizes (G,)``, as large groups make them, what is left without a fold of share w tells 1 - w of
    what the fold does, and there are :func:`~resampling.effective_number` of them: as of
    :func:`~resampling.mean_interval`, our own choice. Limits are kept within ``bounds``; they are NaN of fewer than two
    folds, where one carries all, where an estimate is NaN, and where all agree: nothing says how they vary.
    """
    values: NDArray[np.float64] = np.asarray(left_out, np.float64)
    count, tail = len(values), (1 - checks.fraction(level, "level")) / 2
    scale = bounds[1] if np.isfinite(bounds[1]) else abs(estimate)
    each = np.ones(count) if sizes is None else np.asarray(sizes, np.float64)
    units = effective_number(each) if count > 1 else 1.0
    known = units > 1 and bool(np.isfinite([*values, estimate]).all())
    if not known or np.ptp(values) <= ROUNDING * scale:
        return Interval(estimate, np.nan, np.nan)
    rest = 1 - each / each.sum()
    apart = rest * (values - rest @ values / rest.sum())
    error = np.sqrt(units / (units - 1) * np.square(apart).sum())
    half = -stdtrit(units - 1, tail) * error
    low, high = np.clip([estimate - half, estimate + half], *bounds)
    return Interval(estimate, float(low), float(high))
