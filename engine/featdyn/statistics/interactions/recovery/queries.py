"""The masked function as the search sees it: counted, remembered, within a budget, asked again where it is noisy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics.interactions.subsets import Values

Masks = NDArray[np.bool_]
Function = Callable[[Masks], Values]


class Spent(Exception):
    """The budget does not allow what was asked."""


class Queries:
    """Answers of ``f`` to masks ``(queries, n)``, remembered; ``swapped`` asks it for the complements.

    ``masks``, ``values`` and ``times`` hold all that was asked so far: the mean of so many answers. ``count`` is the
    number of evaluations, ``calls`` that of calls.
    """

    def __init__(self, f: Function, n: int, *, swapped: bool, most: int) -> None:
        self._f, self._swapped, self._most = f, swapped, most
        self._known: dict[bytes, int] = {}
        self.masks: Masks = np.empty((0, n), bool)
        self.values: Values = np.empty(0)
        self.times: Values = np.empty(0)
        self.count = self.calls = 0

    def ask(self, masks: Masks, times: int) -> tuple[Values, Values]:
        """Return the mean answer to each mask and of how many it is, at least ``times``: only what lacks is asked."""
        keys = [row.tobytes() for row in np.packbits(masks, axis=1)]
        new = list({key: k for k, key in enumerate(keys) if key not in self._known}.values())
        for place in new:
            self._known[keys[place]] = len(self._known)
        self.masks = np.concatenate([self.masks, masks[new]])
        self.values, self.times = (np.r_[x, np.zeros(len(new))] for x in (self.values, self.times))
        places = np.array([self._known[key] for key in keys])
        different = np.unique(places)
        lacking = np.repeat(different, np.maximum(times - self.times[different], 0).astype(int))
        if len(lacking):
            sums = self.values * self.times
            np.add.at(sums, lacking, self.fresh(self.masks[lacking]))
            self.times += np.bincount(lacking, minlength=len(self.times))
            self.values = np.divide(sums, self.times, out=sums, where=self.times > 0)
        return self.values[places], self.times[places]

    def allow(self, more: int) -> None:
        """Set the budget to what was used and ``more``."""
        self._most = self.count + more

    def fresh(self, masks: Masks) -> Values:
        """Return one value a mask, evaluated now and not remembered."""
        if self.count + len(masks) > self._most:
            raise Spent
        self.count += len(masks)
        self.calls += 1
        found = np.asarray(self._f(~masks if self._swapped else masks.copy()))
        if found.shape != (len(masks),):
            raise ValueError(f"f must return shape ({len(masks)},) for masks {masks.shape}, got {found.shape}")
        if found.dtype.kind not in "fiub":
            raise TypeError(f"f must return real numbers, got {found.dtype}")
        if not np.isfinite(found).all():
            raise ValueError(f"f returned values that are not finite for masks {masks.shape}")
        return found.astype(np.float64)
