"""Intervals of shares, of their paired differences and of means, and resampling where there is no formula.

Samples of one group (copies of an image, pieces of a document) are not independent: the group is what is drawn. Score
intervals (Wilson's of a share, Tango's of a paired difference) stay within their range and have a width also at its
ends, where percentiles of a bootstrap have none. Giving them the number of independent samples that clustered ones
amount to follows Korn and Graubard (1998) and Dean and Pagano (2015); doing so for Tango's interval, and the limits of
that number, are featdyn's own choice. So is that groups of unequal sizes count as the ``(sum m)^2 / sum m^2`` of one
size (Kish 1965) that make a mean vary as much where groups do not vary within: in the factor of their variance and in
the degrees of freedom. Of 2,000 data sets 95 % intervals of means held 0.92 with 3 groups of 15 beside 30 of 1, 0.94
of 15 groups of geometric sizes and with 10 of 15 beside 40 of 1, 0.95 with one of 50 beside 100 of 1; of shares at
least 0.96. Equal groups: 0.95.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from featdyn.statistics import checks

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
_HALVINGS = 50
_EQUAL = 1e-13
"""Of the sum of squares, what rounding leaves of it where all values are equal: our own choice."""
_ONE = 1.5
"""Groups below which one carries the mean, and nothing says how it varies: our own choice."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits, floats or arrays of one shape."""

    estimate: Any
    low: Any
    high: Any

    def named(self, name: str) -> dict[str, Any]:
        """Return the three as ``name``, ``<name>_low`` and ``<name>_high``."""
        return {name: self.estimate, f"{name}_low": self.low, f"{name}_high": self.high}


def share_interval(hits: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95) -> Interval:
    """Return confidence intervals of shares, such as accuracies: Wilson's (1927), for clustered samples too.

    Parameters
    ----------
    hits : (..., N)
        Whether each sample counts, or a mean of such answers, 0 to 1.
    groups : (N,), optional
        Origin of each sample; by default each is its own.

    Returns
    -------
    Interval
        Fields ``(...)``, within [0, 1]; those of one sample where a group carries all (:func:`effective_groups`).

    Examples
    --------
    >>> found = share_interval(np.ones(20))
    >>> round(float(found.low), 3), float(found.high)
    (0.839, 1.0)
    """
    x, member = _checked(hits, groups, "hits", 0.0)
    share = x.mean(axis=-1)
    low, high = wilson(share, _effective_size(x, member, level), level)
    return Interval(share[()], low[()], high[()])


def difference_interval(differences: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95) -> Interval:
    """Return confidence intervals of differences of shares over the same samples: Tango's score interval (1998).

    Parameters
    ----------
    differences : (..., N)
        ``a - b`` of each sample: 1, 0 or -1, or a mean of such.

    Returns
    -------
    Interval
        Fields ``(...)``, within [-1, 1].
    """
    d, member = _checked(differences, groups, "differences", -1.0)
    z2 = float(ndtri(_tail(level)) ** 2)
    size = _effective_size(d, member, level)
    plus, minus = (np.maximum(sign * d, 0).mean(axis=-1) for sign in (1, -1))
    high, low = _tango(plus, minus, size, z2), -_tango(minus, plus, size, z2)
    return Interval((plus - minus)[()], low[()], high[()])


def mean_interval(values: ArrayLike, *, groups: ArrayLike | None = None, level: float = 0.95) -> Interval:
    """Return Student's intervals of means, with as many degrees of freedom as there are groups but one.

    The variance is that of the groups' sums about their share of the mean. There are :func:`effective_groups`.

    Parameters
    ----------
    values : (..., N)

    Returns
    -------
    Interval
        Fields ``(...)``; limits are NaN where there is but one group, or one carries the mean, and where all values are
        equal: nothing says how they vary.
    """
    x, member = _checked(values, groups, "values", -np.inf)
    mean, units = x.mean(axis=-1), effective_number(np.bincount(member))
    half, tail = np.full(mean.shape, np.nan), _tail(level)
    if units > 1:
        quantile = -stdtrit(units - 1, tail)
        half = np.where(np.ptp(x, axis=-1) > 0, quantile * np.sqrt(_variance(x, mean, member)[0]), np.nan)
    return Interval(mean[()], (mean - half)[()], (mean + half)[()])


def wilson(shares: ArrayLike, size: ArrayLike, level: float = 0.95) -> tuple[Values, Values]:
    """Return the Wilson bounds (lower, upper) of proportions seen in ``size`` independent observations; NaN of NaN.

    They also cover the mean of several proportions over the same observations, which varies no more than one does.

    Examples
    --------
    >>> low, high = wilson(0.9, 100)
    >>> round(float(low), 3), round(float(high), 3)
    (0.826, 0.945)
    """
    share, n = np.broadcast_arrays(np.asarray(shares, np.float64), np.asarray(size, np.float64))
    z2 = ndtri(_tail(level)) ** 2
    if ((share < 0) | (share > 1) | (n <= 0)).any():
        raise ValueError(f"shares {share.shape} must lie between 0 and 1, of at least one observation")
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return np.where(share == 0, 0.0, middle - half), np.where(share == 1, 1.0, middle + half)


def student(
    units: Values, number: Values, total: Values, squares: Values, crossed: Values, sizes: Values
) -> tuple[Values, Values]:
    """Return the limits of :func:`mean_interval` from sums over groups, for values that are not held at once.

    There are ``units`` groups and ``number`` samples of sum ``total``; over the groups are the sums of their squared
    sums, of their sums times their sizes, and of their squared sizes.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        units = np.where(units > 1, worth(number, sizes), 1.0)
        mean = total / number
        spread = squares - 2 * mean * crossed + mean**2 * sizes
        spread = np.where((units > 1) & (spread > _EQUAL * squares), spread * units / (units - 1), np.nan)
        half = stdtrit(np.where(units > 1, units - 1, np.nan), 0.975) * np.sqrt(spread) / number
    return mean - half, mean + half


def bootstrap_counts(size: int, draws: int, seed: int, groups: ArrayLike | None = None) -> NDArray[np.float32]:
    """Return ``(draws, size)``: how often each draw with replacement holds each observation, whole numbers.

    For statistics that have no formula, such as ratios: sums over a draw are one matrix product, exact on any number
    of threads. Groups ``(size,)`` are drawn whole, so that a draw of groups of unequal sizes need not hold ``size``.
    """
    member = checks.groups(groups, size)
    units = int(member.max()) + 1
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), draws)
    return counts[:, member].astype(np.float32)


def bootstrap_limits(
    draws: ArrayLike, estimate: ArrayLike, units: float, *, axis: int = 0, level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[Values, Values]:  # fmt: skip
    """Return percentiles of bootstrap draws along ``axis``, as far from the estimate as so few groups make it.

    Draws of n groups vary by ``sqrt((n - 1) / n)`` of what the groups tell, and their percentiles are those of a known
    variance: the distance of each limit from the estimate is stretched by ``sqrt(n / (n - 1)) t / z``. Hesterberg
    (2015) gives this factor, and takes percentiles further out; stretching the distance itself, since so few groups
    have no draws further out, is featdyn's own choice. Of 1,000 data sets the 95 % limits held

    - means of normal values: 0.96, 0.94, 0.95, 0.95 with 4, 8, 16 and 64 groups (percentiles alone: 0.81, 0.87, 0.92,
      0.94; percentiles further out: 0.89, 0.93, 0.96, 0.95),
    - means of exponential ones: 0.88, 0.89, 0.92, 0.94 (0.74, 0.83, 0.89, 0.94),
    - mean orders of a trained network's interactions: 0.90, 0.90, 0.93, 0.93 (0.77, 0.85, 0.90, 0.92).

    Parameters
    ----------
    draws : (..., draw, ...)
        Finite.
    estimate
        Of all samples, of the shape of draws without ``axis``.
    units
        Of :func:`effective_groups`; limits of one are NaN.
    bounds
        What the limits stay within.
    """
    tail, point = _tail(level), np.asarray(estimate, np.float64)
    low, high = np.quantile(np.asarray(draws, np.float64), [tail, 1 - tail], axis=axis)
    if units <= 1:
        return np.full_like(low, np.nan), np.full_like(high, np.nan)
    more = float(np.sqrt(units / (units - 1)) * stdtrit(units - 1, tail) / ndtri(tail)) - 1
    low, high = low + more * np.minimum(low - point, 0), high + more * np.maximum(high - point, 0)
    return np.clip(low, *bounds), np.clip(high, *bounds)


def effective_groups(groups: ArrayLike | None, size: int) -> float:
    """Return ``(sum m)^2 / sum m^2`` of the sizes m of the groups ``(size,)``: their number where all are equal.

    After Kish (1965). 1 where that is below 1.5, as of one group with more than 0.8 of the samples: it alone does not
    tell how it varies. Both are featdyn's own choice.
    """
    return effective_number(np.bincount(checks.groups(groups, size)))


def effective_number(sizes: ArrayLike) -> float:
    """Return :func:`effective_groups` from the sizes ``(group,)`` of the groups."""
    each = np.asarray(sizes, np.float64)
    return float(worth(each.sum(), np.square(each).sum()))


def group_sums(x: Values, member: NDArray[np.intp]) -> Values:
    """Return the sums ``(..., group)`` of values ``(..., N)`` over the samples of each group ``member (N,)``."""
    order = np.argsort(member, kind="stable")
    return np.add.reduceat(x[..., order], np.flatnonzero(np.r_[True, np.diff(member[order]) > 0]), axis=-1)


def worth(number: ArrayLike, squared_sizes: ArrayLike) -> Values:
    """Return :func:`effective_groups` from how many samples there are and the sum of the groups' squared sizes."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.square(np.asarray(number, np.float64)) / squared_sizes
    return np.where(found < _ONE, 1.0, found)


def _checked(values: ArrayLike, groups: ArrayLike | None, name: str, least: float) -> tuple[Values, NDArray[np.intp]]:
    x = checks.finite(np.asarray(values, dtype=np.float64), name)
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(f"{name} must have shape (..., N) with N >= 1, got {x.shape}")
    if np.isfinite(least) and x.size and (x.min() < least or x.max() > 1):
        raise ValueError(f"{name} {x.shape} must lie between {least:g} and 1")
    return x, checks.groups(groups, x.shape[-1])


def _variance(x: Values, mean: Values, member: NDArray[np.intp]) -> tuple[Values, Values]:
    """Return the variance of means over the last axis, from groups worth more than one, and its freedom.

    Where few groups differ from the others, as where shares are small, the sums are far from normal and tell less: the
    freedom is that of the chi-squared law with the variance of their sum of squares (Satterthwaite 1946).
    """
    squares, n = np.square(group_sums(x - mean[..., None], member)), x.shape[-1]
    units, total = squares.shape[-1], squares.sum(axis=-1)
    few = effective_number(np.bincount(member))
    with np.errstate(divide="ignore", invalid="ignore"):
        kurtosis = units * np.square(squares).sum(axis=-1) / total**2
    freedom = np.minimum(2 * units / np.maximum(np.nan_to_num(kurtosis, nan=1.0) - 1, 1e-9), few - 1)
    return np.asarray(total * few / (few - 1) / n**2), np.asarray(freedom)


def _variance_of_any_size(x: Values, mean: Values, member: NDArray[np.intp]) -> Values:
    """Return the variance of means where groups of all sizes vary alike: between them and within (Searle 1971).

    Large groups that happen to agree say nothing of how they vary; small ones do. With equal sizes it is that of the
    sums.
    """
    apart, sizes, n = x - mean[..., None], np.bincount(member), x.shape[-1]
    between = (np.square(group_sums(apart, member)) / sizes).sum(axis=-1)
    within = (np.square(apart).sum(axis=-1) - between) / (n - len(sizes))
    size = n - np.square(sizes).sum() / n
    share = (between - (len(sizes) - 1) * within) / size  # of a group's own mean
    return np.asarray(share * np.square(sizes / n).sum() + within / n)


def _effective_size(x: Values, member: NDArray[np.intp], level: float) -> Any:
    """Return of how many independent samples the mean of ``x (..., N)``, in [-1, 1], varies as much.

    Between what N samples with no variation within groups amount to (Kish 1965), which is also taken where they do not
    vary at all, and N; less what Student's law needs more, as the variance is an estimate.
    """
    n, sizes = x.shape[-1], np.bincount(member)
    least = n**2 / float(np.square(sizes).sum())
    if least == n:
        return float(n)
    if effective_number(sizes) <= 1:
        return 1.0
    mean = x.mean(axis=-1)
    alone, (found, freedom) = np.abs(x).mean(axis=-1) - mean**2, _variance(x, mean, member)
    if np.ptp(sizes):  # the larger, as either may be too small by chance
        found = np.maximum(found, _variance_of_any_size(x, mean, member))
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(alone > 0, np.clip(alone / found, least, n), least)
    tail = _tail(level)
    return size * (ndtri(tail) / stdtrit(freedom, tail)) ** 2


def _tail(level: float) -> float:
    """Return what lies beyond each limit."""
    return (1 - checks.fraction(level, "level")) / 2


def _tango(plus: Values, minus: Values, size: Any, z2: float) -> Values:
    """Return the upper score limit of ``plus - minus``, the shares of differences of 1 and of -1, by halving."""
    low, high = plus - minus, np.ones_like(plus)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        linear = (2 - plus + minus) * middle - plus - minus
        least = np.sqrt(np.maximum(linear**2 + 8 * minus * middle * (1 - middle), 0))
        variance = np.maximum((least - linear) / 2 + middle * (1 - middle), 0)  # of one difference, at this mean
        inside = (plus - minus - middle) ** 2 * size <= z2 * variance
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return high
