"""Prefixes of networks larger than memory: features of all probes at all cuts, made piece by piece and kept.

Analyses of features go through them in orders of their own, so those of a checkpoint are made at once, when the first
are asked for, and stay: in memory, or on disk where they do not fit. Batches are those of the recording, whatever is
asked for of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from featdyn.compute import Limits, Plan
from featdyn.networks import Cut
from featdyn.networks.kept_features import KeptFeatures
from featdyn.networks.pieces import Pieces, chunk_sizes, moved_bytes
from featdyn.store import Run
from featdyn.store.state_file import CHECKING

if TYPE_CHECKING:
    from featdyn.analysis.inputs.features_at_cuts import Batch, Batches

Way = TypeVar("Way")


def pieces_of(run: Run, places: Sequence[Cut], device: torch.device) -> Pieces:
    """Return the pieces of a recorded network between the places at which it comes apart."""
    return Pieces(places, device, run.state_file(0, checked=False).tensors, run.state_file, CHECKING)


@dataclass(frozen=True)
class PrefixOrder:
    """How prefixes pass."""

    chunk: int  # so many batches pass together; 0: all, and between pieces they lie on disk
    disk: bool  # whether features at cuts do


class Prefixes:
    """The features at some ``cuts``, in the order of the network, of all checkpoints that were asked for."""

    def __init__(self, pieces: Pieces, cuts: Sequence[Cut], batches: Batches, order: PrefixOrder) -> None:
        self.pieces, self._batches, self._order = pieces, batches, order
        self._ends = {c: pieces.after(cut) - 1 for c, cut in enumerate(cuts)}
        self._kept, self._made = KeptFeatures(disk=order.disk), set[int]()

    def at(self, batch: Batch, checkpoint: int) -> list[Tensor]:
        """Return the features ``(N, ...)`` of a recorded batch, or of a part of one, at each cut."""
        if checkpoint not in self._made:
            every = range(len(self._batches))
            self.pieces.features(
                checkpoint, every, lambda i: self._batches[i].inputs, self._ends,
                lambda c, i, z: self._kept.put((c, checkpoint, i), z), self._order.chunk,
            )  # fmt: skip
            self._made.add(checkpoint)
        i, rows = self._batches.rows(batch)
        found = (self._kept.get((c, checkpoint, i))[rows] for c in self._ends)
        return [z if self._order.disk else z.clone() for z in found]  # who is given them may change them


@dataclass(frozen=True)
class PrefixSizes:
    """What the choice of an order depends on."""

    steps: int  # checkpoints
    batches: int
    unit: int  # bytes of a batch where features are widest, float32
    at_cuts: int  # bytes of a batch's features at all cuts that are computed
    weights: int  # bytes of one checkpoint's weights up to the last of them, as they are stored
    pieces: int  # so many they are
    piece: int  # bytes of the largest piece, as it is held
    asked: int  # how often the features of a checkpoint are asked for

    @classmethod
    def of(cls, run: Run, pieces: Pieces, cuts: Sequence[Cut], batches: Batches, asked: int) -> PrefixSizes:
        """Return those of a recorded network."""
        ends = [pieces.after(cut) for cut in cuts]
        return cls(
            steps=run.checkpoints,
            batches=len(batches),
            unit=4 * batches.size * pieces.widest,
            at_cuts=4 * batches.size * sum(prod(cut.shape) for cut in cuts),
            weights=pieces.stored_bytes(0, max(ends)),
            pieces=max(ends),
            piece=pieces.held_bytes,
            asked=asked,
        )

    def orders(self) -> Iterator[PrefixOrder]:
        """Yield those there are to choose from."""
        for chunk in chunk_sizes(self.batches):
            for disk in (False, True):
                yield PrefixOrder(chunk, disk)

    def moved(self, order: PrefixOrder) -> int:
        """Return the bytes that are read of weights, and read and written of features on disk."""
        found = moved_bytes(self.weights, self.pieces, self.batches, self.unit, order.chunk)
        if order.disk:
            found += (1 + self.asked) * self.batches * self.at_cuts
        return self.steps * found

    def on_disk(self, order: PrefixOrder) -> int:
        """Return the bytes of temporary files."""
        going = 0 if order.chunk else self.batches * self.unit
        return going + (self.steps * self.batches * self.at_cuts if order.disk else 0)

    def state(self, order: PrefixOrder) -> dict[str, int]:
        """Return the bytes that are held beside what an analysis of features in a store holds."""
        kept = 0 if order.disk else self.steps * self.batches * self.at_cuts
        return {"a piece": self.piece, "features on their way": order.chunk * self.unit, "features at cuts": kept}

    def cheapest(self, whole: Plan, limits: Limits) -> tuple[PrefixOrder, Plan]:
        """Return the order that moves the fewest bytes among those that fit, and its plan.

        ``whole`` is the plan of an analysis that finds features in memory.
        """

        def planned(order: PrefixOrder) -> Plan:
            return replace(
                whole,
                work=f"{whole.work}, prefixes piece by piece",
                reads=whole.reads + self.moved(order),
                state=whole.state | self.state(order),
            )

        return least_moved(self.orders(), planned, lambda order: limits.threads * self.on_disk(order), limits)


def least_moved(
    orders: Iterable[Way],
    planned: Callable[[Way], Plan],
    on_disk: Callable[[Way], int],
    limits: Limits,
    disk: int | None = None,
) -> tuple[Way, Plan]:
    """Return the order whose plan reads the fewest bytes among those that fit, and its plan; the smallest where none.

    ``disk`` are the bytes that temporary files may take, what is free when None.
    """
    room = shutil.disk_usage(tempfile.gettempdir()).free if disk is None else disk
    found = [(order, planned(order)) for order in orders if on_disk(order) <= room]
    fitting = [one for one in found if one[1].fits(limits)]
    if fitting:
        return min(fitting, key=lambda one: (one[1].reads, on_disk(one[0])))
    return min(found, key=lambda one: one[1].peak())
