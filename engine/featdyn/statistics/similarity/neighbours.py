"""Do samples have the same neighbours in two representations?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.similarity.paired import Values, pair
from featdyn.statistics.tied_ranks import close, tied_ranks


def jaccard(x: ArrayLike, y: ArrayLike, *, k: int = 10) -> float:
    """Return the mean over samples of common over united k nearest neighbours, by cosine of centred features (ReSi).

    Samples at the centre, or with more neighbours that are equally near than there is room for, have no k nearest ones
    and are left out. NaN where that leaves less than half, or there are no more than k. Chance is
    :func:`jaccard_chance`.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    a, b = (neighbours(z, k) for z in pair(x, y))
    return math.nan if a is None or b is None else overlap(a, b)


def neighbours(x: Values, k: int) -> NDArray[np.bool_] | None:
    """Return ``(n, n)``, which are the k nearest others of each sample by cosine; None where there are no k.

    A row is all False where the k nearest are not defined: order must not choose between copies.
    """
    if len(x) <= k:
        return None
    z = x - x.mean(0)
    size = np.linalg.norm(z, axis=1)
    there = size > 1e-12 * np.abs(x).max(initial=0)
    apart = squared(z / np.where(there, size, np.inf)[:, None])
    apart[~there], apart[:, ~there] = np.inf, np.inf
    level = np.partition(apart, k - 1, axis=1)[:, k - 1, None]
    near = apart <= level + close(apart)
    near[~np.isfinite(level[:, 0]) | (near.sum(1) != k)] = False
    return np.asarray(near)


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the mean Jaccard index of two such relations; NaN where they are defined for less than half."""
    both = a.any(1) & b.any(1)
    if 2 * both.sum() < len(a):
        return math.nan
    return float(((a & b)[both].sum(1) / (a | b)[both].sum(1)).mean())


def jaccard_chance(n: int, k: int) -> float:
    """Return about what unrelated representations show: ``m / (2 k - m)`` with ``m = k^2 / (n - 1)`` common ones."""
    common = k**2 / (n - 1)
    return common / (2 * k - common)


def information_imbalance(x: ArrayLike, y: ArrayLike) -> float:
    """Return 2 / n times the mean rank in y of the nearest neighbour in x (Glielmo et al. 2022).

    Near 0 where x tells what is near in y, near 1 where it tells nothing; not symmetric. Ties in y share their mean
    rank, and of those that are equally near in x the mean is taken. NaN of fewer than three samples, or where all
    samples of either are equal.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> information_imbalance(x, x[:, :1]) < information_imbalance(x[:, :1], x)
    True
    """
    a, b = pair(x, y)
    if len(a) < 3 or not np.ptp(a, axis=0).any() or not np.ptp(b, axis=0).any():
        return math.nan
    return imbalance(first(squared(a)), tied_ranks(squared(b)))


def squared(y: Values) -> Values:
    """Return the squared distances ``(n, n)`` of all samples, infinite on the diagonal."""
    z = y - y.mean(0)
    size = np.square(z).sum(1)
    apart = np.maximum(size[:, None] + size - 2 * z @ z.T, 0)
    np.fill_diagonal(apart, np.inf)
    return np.asarray(apart)


def first(apart: Values) -> NDArray[np.bool_]:
    """Return ``(n, n)``, which are nearest to each sample: several, where they are equally near."""
    return np.asarray(apart <= apart.min(1, keepdims=True) + close(apart))


def imbalance(near: NDArray[np.bool_], ranks: NDArray[Any]) -> float:
    """Return the information imbalance from :func:`first` of x and the ranks ``(n, n)`` of the distances in y."""
    return float(2 / len(near) * ((near * ranks).sum(1) / near.sum(1)).mean())
