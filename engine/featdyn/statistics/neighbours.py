"""Nearest neighbours of each sample, exactly: found by inner products, measured by differences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics.blas import one_thread

ROWS = 128  # samples whose neighbours are searched at a time
SPARE = 4  # candidates beyond those asked for, as inner products round

Values = NDArray[np.float64]


def nearest(x: Values, k: int) -> tuple[NDArray[np.intp], Values]:
    """Return the k nearest other samples of each of ``x (n, p)``, nearest first, and their distances, ``(n, k)`` each.

    ``k`` is at most n - 1. Of equals the first comes first.
    """
    n = len(x)
    centred = x - x.mean(0)
    size, taken = np.square(centred).sum(1), min(n - 1, k + SPARE)
    places, distances = np.empty((n, k), np.intp), np.empty((n, k))
    for start in range(0, n, ROWS):
        mine = np.arange(start, min(start + ROWS, n))
        with one_thread(len(mine)):
            apart = size - 2 * centred[mine] @ centred.T
        apart[np.arange(len(mine)), mine] = np.inf
        few = np.sort(np.argpartition(apart, taken - 1, axis=1)[:, :taken], axis=1)
        exact = np.stack([np.linalg.norm(x[few[:, j]] - x[mine], axis=1) for j in range(taken)], axis=1)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        places[mine] = np.take_along_axis(few, order, 1)
        distances[mine] = np.take_along_axis(exact, order, 1)
    return places, distances
