"""Neural collapse: do the features of a class meet in one point, and these points form a simplex that decides?

Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training" (2020), with
classes of one size. For classes of unequal sizes the centre is the mean of the class means, and the scatter within
classes counts each sample once: our own choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.richness.low_rank import ROUNDING, Values, paired, unit
from featdyn_kernels.moments import Moments, accumulate

RANK = 1e-10
"""Squared singular values of the class means below this share of the largest do not count: our own choice."""


@dataclass(frozen=True)
class Collapse:
    """The four properties, each 0 at collapse; NaN where it is not defined."""

    within: float  # NC1, tr(S_W S_B^+) / C
    norms: float  # NC2, standard deviation over mean of the lengths of the centred class means
    angles: float  # NC2, mean of |cosine + 1 / (C - 1)| over pairs of class means
    simplex: float  # NC2 in one number, distance of their normalised Gram matrix from a simplex's
    read_out: float = math.nan  # NC3, distance of the normalised outputs at the class means from a simplex's
    duality: float = math.nan  # NC3 as in the source, squared distance of the normalised weights and class means
    nearest: float = math.nan  # NC4, share of samples whose predicted class is not that of the nearest class mean


def neural_collapse(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    outputs: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Collapse:
    """Return how far features are from neural collapse.

    Parameters
    ----------
    features : (N, p)
    labels : (N,)
        Integers from 0; classes without a sample are left out everywhere.
    outputs : (N, K), optional
        Logits, a column a class, for NC4 and, as W times the class means differs from their means by a constant only,
        for NC3 in the form of public code, ``| WM/|WM| - (I - 11'/C)/sqrt(C - 1) |``.
    weight : (K, p), optional
        Of the last layer, for NC3 as in the source, ``| W'/|W| - M/|M| |^2``.

    Raises
    ------
    ValueError
        Shapes that do not fit, values that are not finite, or fewer than two classes.

    Examples
    --------
    >>> labels = np.arange(90) % 3
    >>> features = np.eye(3)[labels] + 0.01 * np.random.default_rng(0).normal(size=(90, 3))
    >>> found = neural_collapse(features, labels)
    >>> round(found.within, 4), round(found.simplex, 3)
    (0.0002, 0.003)
    """
    x, _ = paired(features, features, "features")
    x = x / unit(x)  # squares stay within range, and no measure sees the unit, nor that of outputs
    f = None if outputs is None else paired(features, outputs, "outputs")[1]
    f = None if f is None else f / unit(f)
    moments = accumulate(x, f, np.asarray(labels))
    if f is not None and f.shape[1] <= np.max(labels):
        raise ValueError(f"outputs must have a column for each class, got {f.shape[1]} and the label {np.max(labels)}")
    found = of_class_moments(moments)
    if weight is not None:
        seen, m = class_means(moments)
        w = np.asarray(weight, np.float64)
        if w.shape[1:] != m.shape[1:] or len(w) <= seen[-1]:
            raise ValueError(f"weight must have shape (classes, {m.shape[1]}), got {w.shape}")
        sizes = float(np.linalg.norm(w[seen])), float(np.linalg.norm(m))
        if min(sizes) > 0:
            found = replace(found, duality=float(np.square(w[seen] / sizes[0] - m / sizes[1]).sum()))
    if f is not None:
        found = replace(found, nearest=float(misses(x, f, moments).mean()))
    return found


def of_class_moments(moments: Moments) -> Collapse:
    """Return NC1 and NC2, and NC3 from class means of outputs where the moments have them; NC4 needs another pass."""
    seen, m = class_means(moments)
    classes = len(seen)
    if classes < 2:
        raise ValueError(f"collapse is between two classes at least, got {classes}")
    gram = m @ m.T  # (C, C)
    scale = float(np.square(np.asarray(moments.class_mean)[seen]).sum())
    if np.trace(gram) <= ROUNDING**2 * scale:  # all class means in one point
        return Collapse(math.nan, math.nan, math.nan, math.nan, _from_simplex(_outputs_at_means(moments)))
    values, vectors = np.linalg.eigh(gram)
    kept = values > RANK * values[-1]
    # S_B^+ = C M (M'M)^-2 M', so that the trace needs a C x C problem only.
    projected = (vectors[:, kept] / values[kept]).T @ m
    within = np.maximum(np.einsum("rp,pq,rq->r", projected, moments.within_scatter, projected, optimize=True), 0)
    lengths = np.sqrt(gram.diagonal())
    if (lengths > 0).all():
        cosines = (gram / lengths / lengths[:, None])[~np.eye(classes, dtype=bool)]
        angles = float(np.abs(cosines + 1 / (classes - 1)).mean())
    else:  # a mean at the centre has no direction
        angles = math.nan
    return Collapse(
        within=float(within.sum() / moments.count),
        norms=float(lengths.std() / lengths.mean()),
        angles=angles,
        simplex=_from_simplex(gram),
        read_out=_from_simplex(_outputs_at_means(moments)),
    )


def class_means(moments: Moments) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], Values]:
    """Return which classes have samples and, ``(C, p)``, their means less the mean of these."""
    seen = np.flatnonzero(np.asarray(moments.class_count) > 0)
    means = np.asarray(moments.class_mean)[seen]
    return seen, means - means.mean(0)


def misses(features: Values, outputs: Values, moments: Moments) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return ``(N,)``, whether the class of the largest output is not that of the nearest class mean.

    Classes without a sample in the moments have no mean: neither side may choose them, which is our own choice.
    """
    seen, m = class_means(moments)
    shifted = features - np.asarray(moments.class_mean)[seen].mean(0)  # distances keep their digits there
    nearest = (np.square(m).sum(1) - 2 * shifted @ m.T).argmin(1)
    return np.asarray(outputs[:, seen].argmax(1) != nearest)


def _outputs_at_means(moments: Moments) -> Values | None:
    """Return the outputs (class of the output, class of the samples) at the class means, centred over the latter."""
    if moments.class_output_sum is None:
        return None
    seen = np.flatnonzero(np.asarray(moments.class_count) > 0)
    means = np.asarray(moments.class_output_mean)[seen]
    if means.shape[1] <= seen[-1]:
        return None
    return np.asarray((means - means.mean(0))[:, seen].T)


def _from_simplex(matrix: Values | None) -> float:
    if matrix is None or not (size := float(np.linalg.norm(matrix))) > 0:
        return math.nan
    classes = len(matrix)
    wanted = (np.eye(classes) - 1 / classes) / math.sqrt(classes - 1)
    return float(np.linalg.norm(matrix / size - wanted))
