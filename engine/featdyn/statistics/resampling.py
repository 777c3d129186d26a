"""Intervals: of proportions, and of means by bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from featdyn.statistics import checks
from featdyn.statistics.randomness import Rng, generator

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
_BLOCK = 2**22  # entries of one block of resampling weights


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits, floats or arrays of one shape."""

    estimate: Any
    low: Any
    high: Any


def binomial_interval(
    successes: ArrayLike, trials: ArrayLike, *, level: float = 0.95, method: Literal["wilson", "exact"] = "wilson"
) -> Interval:
    """Return confidence intervals of proportions, such as accuracies.

    Parameters
    ----------
    successes, trials
        Counts, broadcast against each other; ``0 <= successes <= trials``, ``trials >= 1``.
    level
        Confidence level.
    method
        ``"wilson"`` (Wilson 1927): covers the level on average. ``"exact"`` (Clopper and Pearson 1934): at least it.
    """
    k, n = (np.asarray(a, dtype=np.float64) for a in np.broadcast_arrays(successes, trials))
    checks.fraction(level, "level")
    if ((k < 0) | (k > n) | (n < 1)).any():  # NaN stays NaN
        raise ValueError(f"successes {k.shape} must lie between 0 and trials, and trials be at least 1")
    tail = (1 - level) / 2
    share = k / n
    if method == "wilson":
        z2 = stats.norm.isf(tail) ** 2
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
        low, high = np.where(k == 0, 0.0, middle - half), np.where(k == n, 1.0, middle + half)
    elif method == "exact":
        low = np.where(k == 0, 0.0, stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1))
        high = np.where(k == n, 1.0, stats.beta.isf(tail, k + 1, np.maximum(n - k, 1)))
    else:
        raise ValueError(f"method must be 'wilson' or 'exact', got {method!r}")
    return Interval(share[()], low[()], high[()])


def wilson(shares: ArrayLike, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % Wilson bounds (lower, upper) of proportions seen in ``size`` observations; NaN of NaN.

    They also cover the mean of several proportions over the same observations, which varies no more than one does.
    """
    found = binomial_interval(np.asarray(shares, dtype=np.float64) * size, size)
    return found.low, found.high


def student(
    number: NDArray[np.float64], total: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % Student interval (lower, upper) of means, from counts, sums and sums of squares; NaN below 2."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / number
        variance = np.maximum(squares / number - mean**2, 0) * number / (number - 1)
        half = np.where(number > 1, stats.t.ppf(0.975, number - 1), np.nan) * np.sqrt(variance / number)
    return mean - half, mean + half


def bootstrap_mean(
    values: ArrayLike, *, level: float = 0.95, resamples: int = 2000, rng: Rng = None, groups: ArrayLike | None = None
) -> Interval:
    """Return bootstrap percentile intervals of means over the first axis.

    Each resample draws the same samples for all columns, so intervals of columns that share their samples (checkpoint
    pairs on one probe set) move together, and those of a difference are the intervals of ``a - b``: see
    :func:`paired_difference`.

    Parameters
    ----------
    values : (N, ...)
        One row a sample, N >= 2.
    level
        Confidence level.
    resamples
        How many resamples.
    rng
        Generator or seed; 0 by default.
    groups : (N,), optional
        Samples of one group (corruptions of one image, one seed) are drawn together.

    Notes
    -----
    Efron (1979). One matrix product of the resampling counts with the values: nothing is gathered.
    """
    x = checks.finite(np.asarray(values, dtype=np.float64), "values")
    checks.fraction(level, "level")
    if x.ndim < 1 or len(x) < 2:
        raise ValueError(f"values must have shape (N, ...) with N >= 2, got {x.shape}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    flat, sizes = x.reshape(len(x), -1), np.ones(len(x))
    if groups is not None:
        flat, sizes = _by_group(flat, np.asarray(groups))
    draw, n = generator(rng), len(flat)
    means = np.empty((resamples, flat.shape[1]))
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        weights = draw.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        means[start : start + count] = (weights @ flat) / (weights @ sizes)[:, None]
    tail = (1 - level) / 2
    low, high = (q.reshape(x.shape[1:])[()] for q in np.quantile(means, (tail, 1 - tail), axis=0))
    return Interval(x.mean(axis=0)[()], low, high)


def bootstrap_weights(size: int, draws: int, seed: int) -> NDArray[np.float32]:
    """Return ``(draws, size)`` weights of observations: how often each draw with replacement holds each, over ``size``.

    A weighted mean is then a matrix product, and statistics of the same observations are resampled together.
    """
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), draws)
    return (counts / size).astype(np.float32)


def bootstrap_bounds(
    values: NDArray[np.floating] | NDArray[np.bool_], weights: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 95 % percentile bounds (lower, upper) ``(...)`` of the mean of ``values (..., size)``.

    Give differences of paired observations to bound the difference of their means.

    Parameters
    ----------
    weights
        ``(draws, size)``, of :func:`bootstrap_weights`.
    """
    counts = np.rint(weights * weights.shape[1])  # whole numbers: of such values sums are exact, on any threads
    drawn = (values.astype(np.float32) @ counts.T).astype(np.float64) / weights.shape[1]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=-1)
    return low, high


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    rng: Rng = None,
    groups: ArrayLike | None = None,
) -> Interval:
    """Return bootstrap intervals of ``mean(a) - mean(b)`` where row i of both is the same sample.

    Parameters
    ----------
    a, b : (N, ...)
        Of one shape.
    level, resamples, rng, groups
        As for :func:`bootstrap_mean`.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"a and b must have one shape, got {x.shape} and {y.shape}")
    return bootstrap_mean(x - y, level=level, resamples=resamples, rng=rng, groups=groups)


def _by_group(flat: NDArray[np.float64], groups: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum and the size of every group."""
    if groups.shape != (len(flat),):
        raise ValueError(f"groups must have shape ({len(flat)},), got {groups.shape}")
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    if count < 2:
        raise ValueError("groups must name at least two groups")
    sums = np.zeros((count, flat.shape[1]))
    np.add.at(sums, member, flat)
    return sums, np.bincount(member).astype(np.float64)
