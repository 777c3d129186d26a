"""What the sums over pairs mean: float64, every pair at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

Array = np.ndarray[Any, Any]


def _values(x: Array, y: Array, bandwidths: Array | None) -> Array:
    distances = cdist(x.astype(np.float64), y.astype(np.float64))
    if bandwidths is None:
        return np.asarray(distances)
    return np.asarray(np.exp(-0.5 * np.square(distances[..., None] / bandwidths)).sum(-1))


def pair_sums(x: Array, y: Array, bandwidths: Array | None) -> tuple[float, float, float]:
    """Return the sums over ordered pairs of different points within ``x``, within ``y``, and between them.

    Of ``sum_b exp(-|x - y|^2 / (2 b^2))``, or of ``|x - y|`` without bandwidths.
    """
    xx, yy = _values(x, x, bandwidths), _values(y, y, bandwidths)
    return xx.sum() - np.trace(xx), yy.sum() - np.trace(yy), _values(x, y, bandwidths).sum()


def labelled_sums(points: Array, members: Array, bandwidths: Array | None) -> tuple[Array, Array, Array]:
    """Return :func:`pair_sums` for each row of ``members (R, N)``: its true points against its false ones."""
    sums = [pair_sums(points[row], points[~row], bandwidths) for row in members]
    within, rest, between = np.array(sums).reshape(-1, 3).T
    return within, rest, between
