"""Which interactions are salient, and how strong those of each order are.

Arrays are ``(..., sample, 2, 2**n)``: AND and OR, the last leading axis being the samples that the literature averages
over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.interactions.extraction import AndOr
from featdyn.statistics.interactions.subsets import Values, by_order, divided

Chosen = NDArray[np.bool_]


def threshold_of_span(model: AndOr, share: float = 0.03) -> Values:
    """Return ``share`` times the mean of ``|v(N) - v(0)|`` over samples, ``(..., 1)``: one a network (arXiv
    2407.19198).
    """
    _samples(model)
    return np.asarray(_share(share) * np.abs(model.span).mean(-1, keepdims=True))


def threshold_of_largest(model: AndOr, share: float = 0.05) -> Values:
    """Return ``share`` times the largest ``|I|`` of each sample, ``(..., sample)`` (arXiv 2401.16318, 2409.08712)."""
    return np.asarray(_share(share) * np.abs(model.both).max((-2, -1)))


def salient(model: AndOr, threshold: ArrayLike | None = None) -> Chosen:
    """Return which interactions reach the threshold in size, ``(..., sample, 2, 2**n)``; one that is 0 never does.

    ``threshold`` broadcasts to ``(..., sample)``; :func:`threshold_of_span` by default. The threshold of another
    network makes it common to both.
    """
    tau = threshold_of_span(model) if threshold is None else np.asarray(threshold, np.float64)
    if not (np.isfinite(tau) & (tau >= 0)).all():
        raise ValueError("threshold must be finite and not negative")
    size = np.abs(model.both)
    return (size >= np.broadcast_to(tau, model.span.shape)[..., None, None]) & (size > 0)


def top(model: AndOr, count: int) -> Chosen:
    """Return the ``count`` largest interactions of each sample, fewer where fewer differ from 0: ``(..., sample, 2,
    2**n)``.

    Of equal ones at the edge those of lower index, AND before OR, are taken.
    """
    size = np.abs(model.both).reshape(*model.span.shape, -1)
    if not 1 <= count <= size.shape[-1]:
        raise ValueError(f"count must be between 1 and {size.shape[-1]}, got {count}")
    found = np.zeros(size.shape, bool)
    np.put_along_axis(found, np.argsort(-size, axis=-1, kind="stable")[..., :count], True, axis=-1)
    return (found & (size > 0)).reshape(model.both.shape)


def strength_by_order(model: AndOr, weights: ArrayLike | None = None) -> Values:
    """Return ``sum |I|`` of each order, AND and OR together, ``(..., sample, n)``; its mean over samples is I_real.

    Parameters
    ----------
    model : AndOr
    weights : (..., sample, 2, 2**n), optional
        What each interaction counts: :func:`salient` sets, or those times labels; 1 by default.
    """
    return by_order(np.abs(_weighted(model, weights)).sum(-2))


def signed_strength_by_order(model: AndOr, weights: ArrayLike | None = None) -> Values:
    """Return the sums of the positive and of the negative parts of each order, ``(..., sample, 2, n)``."""
    weighted = _weighted(model, weights)
    return by_order(np.stack([np.maximum(weighted, 0).sum(-2), np.minimum(weighted, 0).sum(-2)], axis=-2))


def normalised(strength: ArrayLike) -> Values:
    """Return strengths ``(..., n)`` over their mean over orders, to compare shapes; NaN where all are 0 (arXiv
    2407.19198).
    """
    found = np.asarray(strength, np.float64)
    mean = np.abs(found).mean(-1, keepdims=True)
    return divided(found, mean)


def mean_order(strength: ArrayLike) -> Values:
    """Return ``sum k I^(k) / sum I^(k)`` of strengths ``(..., n)``, ``(...)``; NaN where all are 0."""
    found = np.asarray(strength, np.float64)
    return divided(found @ np.arange(1, found.shape[-1] + 1), found.sum(-1))


def _weighted(model: AndOr, weights: ArrayLike | None) -> Values:
    return model.both if weights is None else model.both * np.asarray(weights)


def _samples(model: AndOr) -> None:
    if model.span.ndim < 1 or not model.span.shape[-1]:
        raise ValueError(f"interactions must have shape (..., sample, 2**n), got {model.i_and.shape}")


def _share(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    return share
