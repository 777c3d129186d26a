"""Players of a masked network: into which sets the entries of a feature map or an input fall, and which are chosen."""

from __future__ import annotations

import zlib
from math import prod

import numpy as np
from numpy.typing import NDArray

from featdyn.extras import asked_for

GRID = 8
"""Patches on a side at most: our own choice."""

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


def channels(shape: tuple[int, ...], players: int) -> tuple[Places, Places] | None:
    """Return each entry's channel, the first axis of maps and the last of others; None where there are too few."""
    count = shape[0] if len(shape) == 3 else shape[-1]
    numbers = np.arange(count)
    return None if count < players else (numbers[:, None, None] if len(shape) == 3 else numbers, numbers)


def words(shape: tuple[int, ...], players: int, real: NDArray[np.bool_] | None) -> tuple[Places, Places] | None:
    """Return each entry's position, the first axis; those that are no padding may be players. None where too few are.

    ``real (position,)`` says which are no padding; all where it is None.
    """
    numbers = np.arange(shape[0])
    chosen = numbers if real is None else numbers[real[: len(numbers)]]
    return None if len(chosen) < players else (numbers.reshape(-1, *[1] * (len(shape) - 1)), chosen)


def superpixels(image: NDArray[np.floating], players: int) -> tuple[Places, Places] | None:
    """Return the superpixel of each place of an image (channel, height, width) by SLIC; None where too few come out.

    As many are asked for as there would be patches.
    """
    with asked_for():
        from skimage.segmentation import slic
    low, high = image.min(), image.max()
    wanted = prod(min(side, GRID) for side in image.shape[1:])
    scaled = (image - low) / (high - low if high > low else 1.0)
    found = slic(scaled.transpose(1, 2, 0), wanted, start_label=0, convert2lab=image.shape[0] == 3, channel_axis=-1)
    numbers = np.unique(found)
    return None if len(numbers) < players else (found[None].astype(np.intp), numbers.astype(np.intp))


def choose(candidates: Places, players: int, seed: int, probe: str) -> Places:
    """Return the players of a probe, ascending: by its id, so that they stay when others are asked too, and are the
    same in the store of a baseline network.
    """
    random = np.random.default_rng([seed, zlib.crc32(probe.encode())])
    return np.sort(random.choice(candidates, players, replace=False))
