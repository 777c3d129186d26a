"""Regions of a feature map, the players of a masked network: which, and where they lie."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

GRID = 8  # patches on a side at most

Places = NDArray[np.intp]


def regions(shape: tuple[int, ...], players: int) -> tuple[Places, Places] | None:
    """Return the region of each entry of a map, ``(1, H, W)`` or of its shape, and the regions that may be players.

    Maps (channel, height, width) are cut into patches, without those at the border where others are enough; others into
    as many equal parts as there are players. None where there are fewer entries than players.
    """
    if len(shape) == 3:
        rows, columns = (np.arange(side) * min(side, GRID) // side for side in shape[1:])
        count = (rows[-1] + 1, columns[-1] + 1)
        if prod(count) >= players:
            numbers = np.arange(prod(count)).reshape(count)
            inner = numbers[1:-1, 1:-1].ravel()
            chosen = inner if len(inner) >= players else numbers.ravel()
            return numbers[np.ix_(rows, columns)][None], chosen
    size = prod(shape)
    if size < players:
        return None
    return (np.arange(size) * players // size).reshape(shape), np.arange(players)


def choose(candidates: Places, players: int, seed: int, probe: int) -> Places:
    """Return the players of a probe, ascending: by its place in the run, so that they stay when others are asked
    too.
    """
    return np.sort(np.random.default_rng([seed, probe]).choice(candidates, players, replace=False))


def kept(of_entry: Places, chosen: Places, subsets: Places) -> NDArray[np.bool_]:
    """Return which entries each of these subsets of the players keeps, ``(subset, *of_entry.shape)``."""
    found = np.ones((len(subsets), *of_entry.shape), bool)
    for player, region in enumerate(chosen):
        found &= (of_entry != region) | (subsets >> player & 1 == 1).reshape(-1, *[1] * of_entry.ndim)
    return found
