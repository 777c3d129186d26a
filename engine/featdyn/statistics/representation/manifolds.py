"""Classes as manifolds: how large, of how many dimensions, and how well a plane tells them apart.

Chung, Lee and Sompolinsky (2018); Sorscher, Ganguli and Sompolinsky (2022). All from moments of classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.alignment.spectrum import participation_ratio

Values = NDArray[np.float64]
ROUNDING = 1e-12
"""A class whose samples differ by less than this share of their length is one point: our own choice."""
LEAST = 8
"""Samples of a class that its dimension needs: our own choice. Isotropic ones of 6 or 40 dimensions have a mean of
6.9 or 45 with 8, and of 41 or 425 with 4."""


@dataclass(frozen=True)
class Manifolds:
    """What C classes look like; arrays ``(C,)`` by class, of those with at least two samples."""

    classes: NDArray[np.int64]
    radius: Values  # sqrt(tr S_c) over the distance of the class mean from the mean of class means
    dimension: Values  # (tr Sigma_c)^2 / tr Sigma_c^2, both unbiased; NaN of one point, or of fewer than 8 samples
    capacity: Values  # classes per dimension that planes can tell apart: an approximation from radius and dimension
    centre_correlation: float  # mean |cosine| between centred class means
    signal_to_noise: Values  # (C, C), of class a against b; NaN on the diagonal


def class_manifolds(x: ArrayLike, labels: ArrayLike, *, shots: int = 5) -> Manifolds:
    """Return the geometry of the classes of ``x (n, p)`` with integer ``labels (n,)``.

    The capacity is that of balls of many dimensions, ``(1 + R^2) / ((1 + k^2) Phi(k) + k phi(k))`` with
    ``k = R sqrt(D)``, an approximation to that of :func:`featdyn.statistics.representation.mean_field`. The dimension
    is of the class's covariance and not of that of its samples, which has at most as many dimensions as they are and
    would grow with them: unbiased estimates (Chen, Zhang and Zhong 2010) are our own choice. ``shots`` are the samples
    that a class mean is learned from in the signal to noise.

    Raises
    ------
    ValueError
        Fewer than two classes with at least two samples, or labels that are no integers from 0.
    """
    array = checks.finite(checks.matrix(x, "x", rows=2, columns=1), "x").astype(np.float64)
    array = array / 2.0 ** checks.exponent(array)  # squares stay within range, and no measure sees the unit
    if np.shape(labels) != (len(array),):
        raise ValueError(f"labels must have shape ({len(array)},), got {np.shape(labels)}")
    if np.asarray(labels).dtype.kind not in "iu" or np.min(labels) < 0:
        raise ValueError("labels must be integers from 0; leave out samples that have none")
    names, which, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts > 1)
    if len(kept) < 2:
        raise ValueError(f"manifolds are of two classes with two samples at least, got {len(kept)}")
    parts = [array[which == c] for c in kept]
    means = np.stack([part.mean(0) for part in parts])
    centred = means - means.mean(0)
    # Scatter of each class through its smaller side: the singular values of its samples less their mean.
    axes = [np.linalg.svd(part - mean, full_matrices=False) for part, mean in zip(parts, means, strict=True)]
    spectra = [s**2 / len(part) for (_, s, _), part in zip(axes, parts, strict=True)]
    still = [
        values.sum() <= ROUNDING**2 * np.square(part).mean(0).sum() for values, part in zip(spectra, parts, strict=True)
    ]
    spectra = [0 * values if one_point else values for values, one_point in zip(spectra, still, strict=True)]
    size, squares = (np.array([(values**power).sum() for values in spectra]) for power in (1, 2))
    lengths = np.linalg.norm(centred, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        radius = np.where(lengths > 0, np.sqrt(size) / lengths, np.nan)
        cosines = np.abs(centred @ centred.T / lengths / lengths[:, None])
    dimension = np.array([_dimension(part, one_point) for part, one_point in zip(parts, still, strict=True)])
    off = ~np.eye(len(kept), dtype=bool)
    margin = radius * np.sqrt(np.where(still, 0.0, dimension))  # one point has no radius: any dimension will do
    capacity = (1 + radius**2) / (
        (1 + margin**2) * scipy.stats.norm.cdf(margin) + margin * scipy.stats.norm.pdf(margin)
    )
    noise = np.full((len(kept), len(kept)), np.nan)
    for a, b in zip(*np.nonzero(off), strict=True):
        step = means[a] - means[b]
        along = [float((np.square(axes[c][2] @ step) * spectra[c]).sum()) for c in (a, b)]
        noise[a, b] = signal_to_noise(float(step @ step), size[a], size[b], squares[a], along[0], along[1], shots)
    return Manifolds(names[kept].astype(np.int64), radius, dimension, capacity, float(cosines[off].mean()), noise)


def _dimension(part: Values, one_point: bool) -> float:
    if one_point or len(part) < LEAST:
        return math.nan
    if part.shape[1] == 1:
        return 1.0
    found = participation_ratio(part, unbiased=True)
    return found if math.isfinite(found) else math.nan


def signal_to_noise(
    apart: float, own: float, other: float, own_squares: float, along_own: float, along_other: float, shots: int = 5
) -> float:
    """Return with what signal to noise samples of class a are told from class b by the nearer of two learned means.

    Sorscher et al., equation 1, with lengths in the unit of class a's radius; the share of errors is near
    ``Phi(-SNR)`` where the two classes do not vary along the same directions. NaN where there is no noise.

    Parameters
    ----------
    apart : squared distance of the class means
    own, other : traces of the classes' covariances
    own_squares : trace of the square of class a's
    along_own, along_other : ``d' S d`` of each class along the difference d of the means
    shots : samples that each mean is learned from
    """
    if not own > 0:
        return math.nan
    bias = (other / own - 1) / shots
    noise = own_squares / own**2 / shots + along_other / own**2 / shots + along_own / own**2
    return 0.5 * (apart / own + bias) / math.sqrt(noise) if noise > 0 else math.nan
