"""Intrinsic dimension from nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics import checks
from featdyn.statistics.neighbours import nearest

PIECE = 2**22
"""Numbers of neighbours' features that are held at once."""


@dataclass(frozen=True)
class TwoNN:
    """An estimate and what it rests on."""

    dimension: float  # NaN where fewer than three samples are left, or all ratios are 1
    samples: int  # that were used
    duplicates: int  # left out: copies of others, of which one is kept


def two_nn(x: ArrayLike, *, dropped: float = 0.1, fit: Literal["likelihood", "line"] = "likelihood") -> TwoNN:
    """Return the intrinsic dimension by the ratio of the distances of second and first neighbour (Facco et al. 2017).

    It depends on the scale that n samples resolve: look at n / 2 and n / 4 too.

    Parameters
    ----------
    x : (n, p)
    dropped
        Share of the largest ratios that are not trusted.
    fit
        ``"likelihood"``: maximum likelihood, in which dropped ratios count as at least the largest that is kept, our
        own choice; without dropping ``n / sum ln mu``. ``"line"``: through the origin, of ``-ln(1 - F)`` over
        ``ln mu``, as in the source.

    Examples
    --------
    >>> sheet = np.random.default_rng(0).uniform(size=(1000, 2))
    >>> round(two_nn(np.c_[sheet, sheet.sum(1)]).dimension, 1)
    1.9
    """
    array = checks.finite(checks.matrix(x, "x", rows=3, columns=1), "x").astype(np.float64)
    checks.choice(fit, "fit", "likelihood", "line")
    if not 0 <= dropped < 1:
        raise ValueError(f"dropped must be at least 0 and below 1, got {dropped}")
    # One of each: two copies would be the first and the second neighbour of others, at a ratio of 1.
    alone = array[np.sort(np.unique(array + 0.0, axis=0, return_index=True)[1])]
    n, twice = len(alone), len(array) - len(alone)
    if n < 3:
        return TwoNN(math.nan, n, twice)
    distances = nearest(alone, 2)[1]
    ratios = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    kept = int(n * (1 - dropped))
    if kept < 3 or not ratios[kept - 1] > 0:
        return TwoNN(math.nan, n, twice)
    mine = ratios[:kept]
    if fit == "likelihood":
        return TwoNN(kept / float(mine.sum() + (n - kept) * mine[-1]), n, twice)
    mine = ratios[: min(kept, n - 1)]  # the largest ratio's level is infinite
    level = -np.log(1 - np.arange(1, len(mine) + 1) / n)
    return TwoNN(float((mine * level).sum() / np.square(mine).sum()), n, twice)


def local_pca(x: ArrayLike, *, k: int = 30, share: float = 0.95) -> float:
    """Return the median number of principal components that hold ``share`` of the variance of k nearest neighbours.

    k and the share are our own choice. NaN where there are no k neighbours, or all samples are equal.
    """
    array = checks.finite(checks.matrix(x, "x", rows=1, columns=1), "x").astype(np.float64)
    if k < 2 or not 0 < share <= 1:
        raise ValueError(f"k must be at least 2 and share within (0, 1], got {k} and {share}")
    if len(array) <= k:
        return math.nan
    places, found = nearest(array, k)[0], []
    for rows in np.array_split(places, max(1, -(-places.size * array.shape[1] // PIECE))):
        z = array[rows]
        z = z - z.mean(1, keepdims=True)
        gram = z @ z.swapaxes(1, 2) if array.shape[1] > k else z.swapaxes(1, 2) @ z
        values = np.maximum(np.linalg.eigvalsh(gram)[:, ::-1], 0)
        total = values.sum(1, keepdims=True)
        some = total[:, 0] > 0
        held = np.cumsum(values[some], 1) >= share * total[some] * (1 - 1e-12)
        found.append(held.argmax(1) + 1)
    counts = np.concatenate(found)
    return float(np.median(counts)) if len(counts) else math.nan
