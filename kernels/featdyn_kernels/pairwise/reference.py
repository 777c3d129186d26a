"""What the sums over pairs mean: float64, every pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

Array = np.ndarray[Any, Any]

HELD = 2**22  # numbers held at once


def _values(x: Array, y: Array, bandwidths: Array | None) -> Array:
    distances = cdist(x.astype(np.float64), y.astype(np.float64))
    if bandwidths is None:
        return np.asarray(distances)
    return np.asarray(np.exp(-0.5 * np.square(distances[..., None] / bandwidths)).sum(-1))


def _total(x: Array, y: Array, bandwidths: Array | None, same: bool) -> float:
    return sum(float(values.sum()) for _, values in _blocks(x, y, bandwidths, same))


def _blocks(x: Array, y: Array, bandwidths: Array | None, same: bool) -> Iterator[tuple[slice, Array]]:
    """Yield rows of ``x`` with their values for all of ``y``, 0 for a point with itself, as memory allows."""
    step = max(1, HELD // (len(y) * (1 if bandwidths is None else len(bandwidths))))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        values = _values(x[rows], y, bandwidths)
        if same:
            values[np.arange(len(values)), np.arange(start, rows.stop)] = 0.0
        yield rows, values


def pair_sums(x: Array, y: Array, bandwidths: Array | None) -> tuple[float, float, float]:
    """Return the sums over ordered pairs of different points within ``x``, within ``y``, and between them.

    Of ``sum_b exp(-|x - y|^2 / (2 b^2))``, or of ``|x - y|`` without bandwidths.
    """
    return _total(x, x, bandwidths, True), _total(y, y, bandwidths, True), _total(x, y, bandwidths, False)


def labelled_sums(points: Array, members: Array, bandwidths: Array | None) -> tuple[Array, Array, Array]:
    """Return :func:`pair_sums` for each row of ``members (R, N)``: its true points against its false ones."""
    marked, rest = members.T.astype(np.float64), (~members).T.astype(np.float64)
    sums = np.zeros((3, len(members)))
    for rows, values in _blocks(points, points, bandwidths, True):
        to_marked, to_rest = values @ marked, values @ rest
        sums += [(marked[rows] * to_marked).sum(0), (rest[rows] * to_rest).sum(0), (marked[rows] * to_rest).sum(0)]
    within, others, between = sums
    return within, others, between
