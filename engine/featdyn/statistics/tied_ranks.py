"""Ranks of computed numbers: what rounding alone tells apart is equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLOSE = 1e-12
"""Of the largest magnitude: neighbours in order that differ by less have one rank, our own choice."""

Values = NDArray[np.float64]


def tied_ranks(values: Values) -> Values:
    """Return the ranks ``(..., n)``, from 1, of values along the last axis; equal ones share their mean rank.

    One value may be infinite.
    """
    n = values.shape[-1]
    rows = values.reshape(-1, n)
    order = np.argsort(rows, axis=1, kind="stable")
    ascending = np.take_along_axis(rows, order, 1)
    apart = np.diff(ascending, axis=1) > close(values)
    group = np.cumsum(np.hstack([np.ones((len(rows), 1), bool), apart]).ravel()) - 1
    place = np.tile(np.arange(1.0, n + 1), len(rows))
    mean = (np.bincount(group, place) / np.bincount(group))[group]
    found = np.empty(rows.shape)
    np.put_along_axis(found, order, mean.reshape(rows.shape), 1)
    return found.reshape(values.shape)


def close(values: Values) -> float:
    """Return by how much numbers may differ that are equal but for rounding."""
    return float(CLOSE * np.abs(values).max(initial=0.0, where=np.isfinite(values)))
