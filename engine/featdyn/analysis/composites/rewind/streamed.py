"""Rewinding a network larger than memory: a segment of t1 at a time, between the pieces of t2.

A task is one t2 and a few blocks of probes. The features of t2 at all cuts are made first, piece by piece; then each
piece of each t1 is read once, and what t2 hands on at the cut before a segment goes through that segment. What comes
out goes through t2's pieces behind it as the features of composites do (``composites/streamed.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.composites.order import Order, Sizes
from featdyn.analysis.composites.streamed import behind
from featdyn.analysis.inputs.prefixes import pieces_of
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.networks import predicted_classes
from featdyn.networks.kept_features import KeptFeatures
from featdyn.networks.pieces import chunks
from featdyn.store import Run

Rewound: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Predictions ``(segment, t1, probe)`` of composites, and ``(probe,)`` of the network of t2."""


class StreamedSegments:
    """What tasks need."""

    def __init__(self, run: Run, parts: Stitchable, order: Order) -> None:
        self._run, self._parts, self._order = run, parts, order
        self._pieces = pieces_of(run, parts.places, parts.features.device)
        self._ends = [*(self._pieces.after(cut) for cut in parts.cuts), len(self._pieces)]  # of each segment

    def rewound(self, item: tuple[int, range]) -> Rewound:
        """Return what is predicted for the probes of some blocks with t2 and all t1."""
        t2, blocks = item
        batches, chunk, disk = self._parts.features.batches, self._order.chunk, self._order.disk
        at = [i for block in blocks for i in batches.of_block(block)]
        first, head, steps = batches[at[0]].start, len(self._ends) - 1, range(self._run.checkpoints)
        said = np.empty((head + 1, len(steps), batches[at[-1]].stop - first), np.int64)

        def put(k: int, t1: int, i: int, predicted: NDArray[np.int64]) -> None:
            start, stop = batches[i].start - first, batches[i].stop - first
            said[k, t1, start:stop] = predicted[: stop - start]

        own, rewound = KeptFeatures(disk=disk), KeptFeatures(disk=disk)
        ends = {k: end - 1 for k, end in enumerate(self._ends[:head])}
        self._pieces.features(t2, at, self._inputs, ends, lambda k, i, z: own.put((k, i), z), chunk)
        for t1 in steps:
            for k, end in enumerate(self._ends):

                def keep(k: int, i: int, z: Tensor) -> None:
                    if k == head:
                        put(k, t1, i, _classes(z))  # noqa: B023
                    else:
                        rewound.put((k, t1, i), z)  # noqa: B023

                start = self._ends[k - 1] if k else 0
                self._pieces.features(t1, at, self._before(own, k), {k: end - 1}, keep, chunk, start)
        units = [(k, t1, i) for k in range(head) for t1 in steps for i in at]
        for some in chunks(units, chunk):

            def features(n: int) -> Tensor:
                return rewound.get(some[n])  # noqa: B023

            entry = [self._ends[k] for k, _, _ in some]
            found = behind(
                self._pieces, t2, entry, features, lambda n, z: _classes(z), self._parts.features.device, disk=not chunk
            )
            for unit, predicted in zip(some, found, strict=True):
                put(*unit, predicted)
        return said, said[0, t2]

    def _inputs(self, i: int) -> Tensor:
        return self._parts.features.batches[i].inputs

    def _before(self, own: KeptFeatures, k: int) -> Callable[[int], Tensor]:
        """Return what gives the features of a batch before a segment."""
        return (lambda i: own.get((k - 1, i))) if k else self._inputs


def _classes(logits: Tensor) -> NDArray[np.int64]:
    found: NDArray[np.int64] = predicted_classes(logits).cpu().numpy()
    return found


@dataclass(frozen=True)
class RewindSizes(Sizes):
    """What the choice of an order depends on, of so many t2; each t1 is read as a whole."""

    t2s: int = 1

    @classmethod
    def of(cls, run: Run, parts: Stitchable, t2s: int = 1) -> Self:
        """Return those of a network that is taken apart, and of so many t2."""
        return replace(super().of(run, parts), t2s=t2s)

    def tasks(self, order: Order, old: int) -> int:
        """Return how many tasks there are, those of joining each checkpoint with itself among them."""
        return len(order.groups) * (self.t2s + self.steps)

    def moved(self, order: Order) -> int:
        """Return the bytes that are read and written, those of joining each checkpoint with itself among them."""
        units, batches, groups = self.units(order.group), self.of_group(order.group), len(order.groups)
        readings, every = self.readings(order), self.prefix + self.suffixes[-1]
        of_t2 = readings * (self.prefix + self.steps * every) + self.behind_cuts(order, units)
        joined = readings * self.prefix + self.behind_cuts(order, self.cuts * batches)
        found = groups * (self.t2s * of_t2 + self.steps * joined) + self.steps * self.logits
        if order.disk:
            found += (self.t2s * (1 + 3 * self.steps) + 2 * self.steps) * self.batches * self.at_cuts
        if not order.chunk:
            found += 2 * (self.behind - 1) * (self.t2s + 1) * self.cuts * self.steps * self.batches * self.unit
        return found

    def on_disk(self, order: Order) -> int:
        """Return the bytes of temporary files of a task."""
        return super().on_disk(order) + (self.of_group(order.group) * self.at_cuts if order.disk else 0)

    def state(self, order: Order) -> dict[str, int]:
        """Return the bytes that stay: features of t2, and of all t1 behind their segments."""
        own = 0 if order.disk else self.of_group(order.group) * self.at_cuts
        held = super().state(order)
        return held | {"features at cuts": held["features at cuts"] + own}
