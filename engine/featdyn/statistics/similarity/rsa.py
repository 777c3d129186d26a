"""Representational similarity: are the same samples far apart? Kriegeskorte, Mur and Bandettini (2008)."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.tied_ranks import tied_ranks

Compare: TypeAlias = Literal["spearman", "cosine"]
Values = NDArray[np.float64]


def dissimilarities(x: ArrayLike, *, of: Literal["correlation", "euclidean"] = "correlation") -> Values:
    """Return the dissimilarities ``(n (n - 1) / 2,)`` of all pairs of the samples of ``x (n, p)``.

    1 - Pearson's correlation over the features, NaN of a sample whose features are all equal; or Euclidean distances.
    """
    checks.choice(of, "of", "correlation", "euclidean")
    array = checks.finite(checks.matrix(x, "x", rows=3, columns=1), "x").astype(np.float64)
    if of == "euclidean":
        return np.asarray(scipy.spatial.distance.pdist(array))
    z = array - array.mean(1, keepdims=True)
    size = np.linalg.norm(z, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = z / np.where(size > 1e-12 * np.abs(array).max(1, initial=0), size, np.nan)[:, None]
    return np.asarray((1 - z @ z.T)[np.triu_indices(len(z), 1)])


def rsa(x: ArrayLike, y: ArrayLike, *, compare: Compare = "spearman") -> float:
    """Return how alike two vectors of dissimilarities are: Spearman's correlation, or the cosine.

    Dissimilarities that are equal but for rounding, as between copies, share a rank. NaN where either is not finite or
    does not vary.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(30, 5))
    >>> round(rsa(dissimilarities(x), dissimilarities(3 * x)), 6)
    1.0
    """
    checks.choice(compare, "compare", "spearman", "cosine")
    a, b = (np.asarray(v, np.float64) for v in (x, y))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"dissimilarities must have one shape (pairs,), got {a.shape} and {b.shape}")
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        return math.nan
    return _cosine(_prepared(a, compare), _prepared(b, compare))


def noise_ceiling(x: ArrayLike, *, compare: Compare = "spearman") -> tuple[float, float]:
    """Return between what bounds the similarity of the best model to these subjects (seeds) lies.

    Parameters
    ----------
    x : (subjects, pairs)
        Dissimilarities of at least two subjects.

    Returns
    -------
    lower, upper : mean similarity of each subject with the mean of the others, and with the mean of all
    """
    array = checks.finite(checks.matrix(x, "x", rows=2, columns=2, shape="(subjects, pairs)"), "x")
    ready = np.stack([_prepared(row, compare) for row in array.astype(np.float64)])
    size = np.linalg.norm(ready, axis=1, keepdims=True)
    ready = ready / np.where(size > 0, size, np.nan)
    total = ready.sum(0)
    lower = np.mean([_cosine(row, total - row) for row in ready])
    return float(lower), float(np.mean([_cosine(row, total) for row in ready]))


def _prepared(values: Values, compare: Compare) -> Values:
    if compare == "cosine":
        return values
    ranks = tied_ranks(values)
    return np.asarray(ranks - ranks.mean())


def _cosine(a: Values, b: Values) -> float:
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.clip(a @ b / size, -1, 1)) if size > 0 else math.nan
