"""Do samples have the same neighbours in two representations?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.neighbours import nearest
from featdyn.statistics.similarity.paired import Values, pair


def jaccard(x: ArrayLike, y: ArrayLike, *, k: int = 10) -> float:
    """Return the mean over samples of common over united k nearest neighbours, by cosine of centred features (ReSi).

    NaN where a sample lies at the centre, or there are no more than k. Chance is :func:`jaccard_chance`.
    """
    a, b = (neighbours(z, k) for z in pair(x, y))
    return math.nan if a is None or b is None else overlap(a, b)


def neighbours(x: Values, k: int) -> NDArray[np.bool_] | None:
    """Return ``(n, n)``, which are the k nearest others of each sample by cosine; None where that is not defined."""
    z = x - x.mean(0)
    size = np.linalg.norm(z, axis=1)
    if len(x) <= k or not (size > 1e-12 * np.abs(x).max(initial=0)).all():
        return None
    found = np.zeros((len(x), len(x)), bool)
    np.put_along_axis(found, nearest(z / size[:, None], k)[0], True, axis=1)
    return found


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the mean Jaccard index of two such relations."""
    return float(((a & b).sum(1) / (a | b).sum(1)).mean())


def jaccard_chance(n: int, k: int) -> float:
    """Return about what unrelated representations show: ``m / (2 k - m)`` with ``m = k^2 / (n - 1)`` common ones."""
    common = k**2 / (n - 1)
    return common / (2 * k - common)


def information_imbalance(x: ArrayLike, y: ArrayLike) -> float:
    """Return 2 / n times the mean rank in y of the nearest neighbour in x (Glielmo et al. 2022).

    Near 0 where x tells what is near in y, near 1 where it tells nothing; not symmetric. Ties in y share their mean
    rank. NaN of fewer than three samples, or where all samples of either are equal.
    """
    a, b = pair(x, y)
    if len(a) < 3 or not np.ptp(a, axis=0).any() or not np.ptp(b, axis=0).any():
        return math.nan
    first = nearest(a, 1)[0][:, 0]
    return imbalance(first, squared(b))


def squared(y: Values) -> Values:
    """Return the squared distances ``(n, n)`` of all samples, infinite on the diagonal."""
    z = y - y.mean(0)
    size = np.square(z).sum(1)
    apart = np.maximum(size[:, None] + size - 2 * z @ z.T, 0)
    np.fill_diagonal(apart, np.inf)
    return np.asarray(apart)


def imbalance(first: NDArray[np.intp], apart: Values) -> float:
    """Return the information imbalance from each sample's neighbour in x and squared distances in y."""
    n = len(first)
    own = apart[np.arange(n), first][:, None]
    near = 1e-12 * np.where(np.isfinite(apart), apart, 0).max()  # what is equal but for rounding
    below, equal = (apart < own - near).sum(1), (np.abs(apart - own) <= near).sum(1)
    return float(2 / n * (below + (equal + 1) / 2).mean())
