"""Shape distances: what is left between two clouds of points once one may be turned."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.similarity.paired import Values, pair, scaled


def procrustes(x: ArrayLike, y: ArrayLike) -> float:
    """Return the orthogonal Procrustes distance ``2 - 2 |X'Y|_*``, 0 to 2, of centred clouds scaled to length 1.

    It is the squared distance; fewer variables count as padded with zeros. NaN where either does not vary.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> abs(round(procrustes(x, 2 * x[:, ::-1] + 1), 6))
    0.0
    """
    return 2 - 2 * _overlap(x, y)


def angular(x: ArrayLike, y: ArrayLike) -> float:
    """Return the angular shape metric ``arccos |X'Y|_* / (|X| |Y|)`` in radians (Williams et al. 2021): a metric.

    NaN where either does not vary.
    """
    return math.acos(_overlap(x, y))


def nuclear(x: Values, y: Values) -> float:
    """Return the sum of the singular values of ``x^T y``, through the smaller side of each."""
    parts = []
    for z in (x, y):
        if z.shape[1] > len(z):  # z = u s v' and v takes nothing from a nuclear norm
            u, s, _ = np.linalg.svd(z, full_matrices=False)
            z = u * s
        parts.append(z)
    return float(np.linalg.svd(parts[0].T @ parts[1], compute_uv=False).sum())


def _overlap(x: ArrayLike, y: ArrayLike) -> float:
    a, b = (scaled(z) for z in pair(x, y))
    return min(nuclear(a, b), 1.0) if a.any() and b.any() else math.nan
