"""Composites of networks larger than memory: the features of many prefixes pass a suffix piece by piece.

A task is one t2 and a few blocks of probes. The features at all cuts, of all t1, are made first, piece by piece too,
and kept for the other t2. Then each piece of t2 is read once, all features that need it go through, and it is dropped.
What does not fit goes in chunks, for each of which the pieces are read again, or lies on disk between pieces
(``order.py``).

Suffixes run in torch, as they stand: predictions are those of fused suffixes too, which are settled by the same
arithmetic; what else is computed has the same bits where suffixes run as they stand in memory, else it differs by the
rounding of fused layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn.analysis.composites.order import Order
from featdyn.analysis.composites.tally import Item, Rows, Tally
from featdyn.analysis.inputs.class_labels import output_positions
from featdyn.analysis.inputs.prefixes import pieces_of
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.networks.kept_features import KeptFeatures
from featdyn.networks.pieces import Pieces, chunks
from featdyn.store import Run
from featdyn_kernels.stitch import Stitched
from featdyn_kernels.stitch.runner import each_checkpoint
from featdyn_kernels.stitch.scored import scored

Unit: TypeAlias = tuple[int, int, int]
"""A cut, a t1 and a batch: features that pass together."""
Found = TypeVar("Found")


class Streamed:
    """What the tasks of an order need; features at cuts are kept until a task asks for other probes."""

    def __init__(
        self, run: Run, parts: Stitchable, members: NDArray[np.float64], labels: NDArray[np.int64], order: Order
    ) -> None:
        self._run, self._parts, self._members, self._labels, self._order = run, parts, members, labels, order
        self.pieces = pieces_of(run, parts.places, parts.features.device)
        self._entry = [self.pieces.after(cut) for cut in parts.cuts]
        self._at_cuts = KeptFeatures(disk=order.disk)
        self._blocks, self._made = range(0), set[int]()
        self._positions = output_positions(run)

    def tally(self, item: Item) -> list[Tally]:
        """Return what each block of some gives at all t1 with one t2."""
        blocks, t1s, t2s = item
        tallies = {
            block: Tally(self._run, self._parts, self._members, self._labels, block, t1s, t2s) for block in blocks
        }
        batches = self._parts.features.batches
        at = [i for block in blocks for i in batches.of_block(block)]
        if self._blocks != blocks:
            self._at_cuts.clear()
            self._blocks, self._made = blocks, set()
        for t1 in t1s:
            if t1 not in self._made:
                self._prefix(t1, at)
                self._made.add(t1)
        rows = {i: tallies[batches[i].block].rows(batches[i]) for i in at}
        units = [(c, t1, i) for c in range(len(self._entry)) for t1 in t1s for i in at]
        for chunk in chunks(units, self._order.chunk):
            for (c, t1, i), found in zip(chunk, self._suffix(chunk, t2s[0], rows), strict=True):
                tallies[batches[i].block].add(c, t1, rows[i], found)
        return [*tallies.values()]

    def _prefix(self, t1: int, at: Sequence[int]) -> None:
        """Keep the features of one checkpoint at all cuts."""
        features, ends = self._parts.features, dict[int, int]()
        for c, cut in enumerate(self._parts.cuts):
            if self._parts.sources[cut.name] == "recomputed":
                ends[c] = self._entry[c] - 1
                continue
            for i in at:
                self._at_cuts.put((c, t1, i), features.read(cut, features.batches[i], t1))

        def keep(c: int, i: int, z: Tensor) -> None:
            self._at_cuts.put((c, t1, i), z)

        self.pieces.features(t1, at, lambda i: features.batches[i].inputs, ends, keep, self._order.chunk)

    def _suffix(self, chunk: Sequence[Unit], t2: int, rows: dict[int, Rows]) -> list[Stitched]:
        """Return what some features give behind their cuts with the weights of one checkpoint."""

        def end(n: int, z: Tensor) -> Stitched:
            of = rows[chunk[n][2]]
            return scored(z, of.labels, of.own, positions=self._positions)

        entry = [self._entry[c] for c, _, _ in chunk]
        device = self._parts.features.device
        return behind(
            self.pieces, t2, entry, lambda n: self._at_cuts.get(chunk[n]), end, device, disk=not self._order.chunk
        )


def behind(
    pieces: Pieces,
    t2: int,
    entry: Sequence[int],
    features: Callable[[int], Tensor],
    end: Callable[[int, Tensor], Found],
    device: torch.device,
    *,
    disk: bool,
) -> list[Found]:
    """Return what some features give behind their cuts with the weights of one checkpoint, each piece read once.

    ``entry`` are the pieces that they enter, ``features`` gives those of a place among them, and ``end`` is given what
    the network makes of them, logits. Between pieces they lie in memory, or on ``disk``.
    """
    found: dict[int, Found] = {}
    going, last = KeptFeatures(disk=disk), len(pieces) - 1
    for number in range(min(entry), last + 1):
        mine = [n for n, first in enumerate(entry) if first <= number]
        with pieces.piece(number, t2, torch.float32) as piece:

            def step(place: int) -> None:
                n = mine[place]  # noqa: B023
                # A piece may write into its input.
                z = features(n).to(torch.float32, copy=True) if entry[n] == number else going.take(n)  # noqa: B023
                z = piece(z)
                if number == last:  # noqa: B023
                    found[n] = end(n, z)
                else:
                    going.put(n, z)

            each_checkpoint(step, len(mine), device)
    return [found[n] for n in range(len(entry))]
