"""Mean field capacity of class manifolds: how many for each dimension a plane tells apart at random labels.

Chung, Lee and Sompolinsky, "Classification and geometry of general perceptual manifolds" (Phys. Rev. X 8, 031003,
2018); radius and dimension of anchor points as Cohen et al. (Nature Communications 11, 746, 2020) compute them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MeanField:
    """What C classes amount to for a plane; arrays ``(C,)`` by class, of those with at least two samples."""

    classes: NDArray[np.int64]
    capacity: Values  # manifolds for each dimension: 2 for points (Gardner), less for what is large
    radius: Values  # of the anchor points about the class mean, in lengths of that mean; NaN where it is the centre
    dimension: Values  # how far random directions reach along them, squared
    error: Values  # standard error of 1 / capacity over the draws

    @property
    def whole(self) -> float:
        """The capacity of all classes together: of the mean of the inverses."""
        return float(1 / np.mean(1 / self.capacity))


def mean_field(x: ArrayLike, labels: ArrayLike, *, draws: int = 300, seed: int = 0) -> MeanField:
    """Return the capacity of the classes of ``x (n, p)`` with integer ``labels (n,)``, with margin 0.

    For a Gaussian direction t, ``F(t) = min |v - t|^2`` over all v with ``v . s >= 0`` for each sample s of the class,
    about its mean and with the length of that as one more coordinate; the capacity is ``1 / E[F]``. The nearest v is t
    plus a nonnegative sum of samples, which makes F a nonnegative least squares problem. The anchor point is that sum
    over its weights, or where t meets all conditions the sample that is nearest to break one. Classes are taken as
    uncorrelated; for those whose means correlate this is an approximation. A problem for each class and draw: some 50
    samples a class take about a millisecond each.

    Raises
    ------
    ValueError
        Fewer than two classes with at least two samples, labels that are no integers from 0, or fewer than two draws.
    """
    array = checks.finite(checks.matrix(x, "x", rows=2, columns=1), "x").astype(np.float64)
    array = array / 2.0 ** checks.exponent(array)
    names = np.asarray(labels)
    if names.shape != (len(array),) or names.dtype.kind not in "iu" or names.min() < 0:
        raise ValueError(f"labels must be ({len(array)},) integers from 0, got {names.dtype} {names.shape}")
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}")
    classes, counts = np.unique(names, return_counts=True)
    classes = classes[counts > 1]
    if len(classes) < 2:
        raise ValueError(f"manifolds are of two classes with two samples at least, got {len(classes)}")
    means = np.stack([array[names == c].mean(0) for c in classes])
    centres = np.linalg.norm(means - means.mean(0), axis=1)
    rng = np.random.default_rng(seed)
    found = []
    for c, mean, length in zip(classes, means, centres, strict=True):
        if not length > 0:
            found.append((np.nan,) * 4)
            continue
        # Samples in their own span: as many axes as they need, which leaves F as it is.
        _, s, axes = np.linalg.svd(array[names == c] - mean, full_matrices=False)
        axes = axes[s > s.max(initial=0) * 1e-12]
        points = (array[names == c] - mean) @ axes.T / length
        found.append(_one(np.column_stack([points, np.ones(len(points))]), rng, draws))
    capacity, radius, dimension, error = np.array(found).T
    return MeanField(classes.astype(np.int64), capacity, radius, dimension, error)


def _one(points: Values, rng: np.random.Generator, draws: int) -> tuple[float, float, float, float]:
    """Return capacity, radius, dimension and error of one manifold ``(n, D + 1)``."""
    directions = rng.standard_normal((draws, points.shape[1]))
    distances, anchors = np.empty(draws), np.empty((draws, points.shape[1] - 1))
    for k, t in enumerate(directions):
        weights, _ = scipy.optimize.nnls(points.T, -t)
        distances[k] = np.square(weights @ points).sum()
        total = weights.sum()
        anchor = weights @ points / total if total > 0 else points[np.argmin(points @ t)]
        anchors[k] = anchor[:-1]
    squares = np.square(anchors).sum(1)
    lengths = np.sqrt(squares)
    away = lengths > 0
    along = np.zeros(draws)
    along[away] = (directions[away, :-1] * anchors[away]).sum(1) / lengths[away]
    inverse = float(distances.mean())
    error = float(distances.std(ddof=1)) / draws**0.5
    capacity = 1 / inverse if inverse > 0 else np.inf
    return capacity, float(np.sqrt(squares.mean())), float(np.square(along).mean()), error
