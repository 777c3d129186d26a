"""Composites of networks larger than memory: the features of many prefixes pass a suffix piece by piece.

A task is one t2 and a few blocks of probes. The features at all cuts, of all t1, are made first, piece by piece too,
and kept for the other t2. Then each piece of t2 is read once, all features that need it go through, and it is dropped.
What does not fit goes in chunks, for each of which the pieces are read again, or lies on disk between pieces; which
order moves the fewest bytes is chosen, as all do the same multiply-adds.

Suffixes run in torch, as they stand: predictions are those of fused suffixes too, which are settled by the same
arithmetic; what else is computed has the same bits where suffixes run as they stand in memory, else it differs by the
rounding of fused layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from featdyn.analysis.composites.predictions import outputs_bytes
from featdyn.analysis.composites.tally import Item, Rows, Tally
from featdyn.analysis.inputs.class_labels import output_positions
from featdyn.analysis.inputs.kept_features import KeptFeatures, free_disk
from featdyn.analysis.inputs.pieces import Pieces
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable
from featdyn.compute import Limits, Plan
from featdyn.store import Run
from featdyn_kernels import get_threads
from featdyn_kernels.stitch import Stitched
from featdyn_kernels.stitch.runner import each_checkpoint
from featdyn_kernels.stitch.scored import scored

Unit: TypeAlias = tuple[int, int, int]
"""A cut, a t1 and a batch: features that pass together."""


@dataclass(frozen=True)
class Order:
    """How composites pass."""

    blocks: int  # of probes
    steps: int  # checkpoints
    group: int  # so many blocks are one task's
    chunk: int  # so many units pass together; 0: all, and between pieces they lie on disk
    disk: bool  # whether features at cuts do, until all t2 have met them

    def items(self, old: int) -> list[Item]:
        """Return the tasks, where pairs of the first ``old`` checkpoints are known."""
        groups = [range(i, min(i + self.group, self.blocks)) for i in range(0, self.blocks, self.group)]
        pairs = [(range(old if t2 < old else 0, self.steps), range(t2, t2 + 1)) for t2 in range(self.steps)]
        return [(blocks, t1s, t2s) for blocks in groups for t1s, t2s in pairs if len(t1s)]


def cheapest(run: Run, parts: Stitchable, old: int, limits: Limits, whole: Plan) -> tuple[Order, Plan]:
    """Return the order that moves the fewest bytes among those that fit, and its plan; the smallest where none does.

    ``whole`` is the plan of holding whole suffixes, whose results are the same.
    """
    pieces = Pieces(run, parts.places, parts.features.device)
    blocks, steps = run.schema.blocks, run.checkpoints
    found = []
    for group in [*powers(blocks), blocks]:
        units = _units(run, parts, group)
        for chunk in {0, *powers(units), units}:
            for disk in (False, True):
                order = Order(blocks, steps, group, chunk, disk)
                moved, room = _moved(run, parts, pieces, order), _on_disk(run, parts, pieces, order)
                plan = replace(
                    whole,
                    work=f"{whole.work}, piece by piece",
                    tasks=len(order.items(old)),
                    reads=moved,
                    task=_task(run, parts, pieces, order),
                    state=_state(run, parts, pieces, order),
                )
                if not room or room <= free_disk():
                    found.append((not plan.fits(limits), moved, disk, group, plan.peak(), order, plan))
    fitting = [one for one in found if not one[0]]
    *_, order, plan = min(fitting, key=lambda one: one[1:4]) if fitting else min(found, key=lambda one: one[4])
    return order, plan


def powers(limit: int) -> Iterator[int]:
    """Yield the powers of two below a limit."""
    value = 1
    while value < limit:
        yield value
        value *= 2


def _batches(run: Run, parts: Stitchable, group: int) -> int:
    """Return the most batches that a group of blocks has."""
    of_block = -(-run.schema.shard_samples // parts.features.batches.size)
    return min(group * of_block, len(parts.features.batches))


def _units(run: Run, parts: Stitchable, group: int) -> int:
    return len(parts.cuts) * run.checkpoints * _batches(run, parts, group)


def _unit_bytes(parts: Stitchable, pieces: Pieces) -> int:
    return 4 * parts.features.batches.size * pieces.widest


def _at_cuts(run: Run, parts: Stitchable, batches: int) -> int:
    """Return the bytes of features at all cuts, of all t1."""
    return run.checkpoints * batches * parts.features.batches.size * parts.sample_bytes


def _moved(run: Run, parts: Stitchable, pieces: Pieces, order: Order) -> int:
    """Return the bytes that are read of weights and the store, and read and written of features on disk."""
    batches, units, steps = _batches(run, parts, order.group), _units(run, parts, order.group), order.steps
    computed = [pieces.after(cut) for cut in parts.cuts if parts.sources[cut.name] == "recomputed"]
    rounds = -(-batches // order.chunk) if order.chunk else 1
    prefixes = rounds * pieces.stored_bytes(0, max(computed)) if computed else 0
    rounds = -(-units // (order.chunk * len(parts.cuts))) if order.chunk else 1  # a chunk is of one cut, mostly
    suffixes = rounds * sum(pieces.stored_bytes(pieces.after(cut)) for cut in parts.cuts)
    if not order.chunk or order.chunk >= units:
        suffixes = pieces.stored_bytes(min(map(pieces.after, parts.cuts)))  # the cuts' features meet
    groups = -(-order.blocks // order.group)
    weights = groups * steps * (prefixes + suffixes)
    features = steps * parts.features.stored_bytes
    if order.disk:
        features += (1 + steps) * _at_cuts(run, parts, len(parts.features.batches))
    if not order.chunk:
        every = steps * _units(run, parts, order.blocks) * _unit_bytes(parts, pieces)
        features += 2 * (len(pieces) - 1 - min(map(pieces.after, parts.cuts))) * every
    return weights + features + steps * run.schema["outputs/logits"].nbytes * groups


def _on_disk(run: Run, parts: Stitchable, pieces: Pieces, order: Order) -> int:
    """Return the bytes of temporary files."""
    on_their_way = 0 if order.chunk else _units(run, parts, order.group) * _unit_bytes(parts, pieces)
    return on_their_way + (_at_cuts(run, parts, _batches(run, parts, order.group)) if order.disk else 0)


def _task(run: Run, parts: Stitchable, pieces: Pieces, order: Order) -> dict[str, int]:
    units, unit = _units(run, parts, order.group), _unit_bytes(parts, pieces)
    at_once = min(get_threads(), order.chunk or units)
    samples = min(run.schema.samples, order.group * run.schema.shard_samples)
    return {
        "features": order.chunk * unit + at_once * BETWEEN * unit,
        "logits": outputs_bytes(run, samples) + at_once * outputs_bytes(run, parts.features.batches.size),
    }


def _state(run: Run, parts: Stitchable, pieces: Pieces, order: Order) -> dict[str, int]:
    kept = 0 if order.disk else _at_cuts(run, parts, _batches(run, parts, order.group))
    return parts.held | {"a piece": pieces.held_bytes, "features at cuts": kept}


class Streamed:
    """What the tasks of an order need; features at cuts are kept until a task asks for other probes."""

    def __init__(
        self, run: Run, parts: Stitchable, members: NDArray[np.float64], labels: NDArray[np.int64], order: Order
    ) -> None:
        self._run, self._parts, self._members, self._labels, self._order = run, parts, members, labels, order
        self.pieces = Pieces(run, parts.places, parts.features.device)
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
        for chunk in _chunks(units, self._order.chunk):
            for (c, t1, i), found in zip(chunk, self._suffix(chunk, t2s[0], rows), strict=True):
                tallies[batches[i].block].add(c, t1, rows[i], found)
        return [*tallies.values()]

    def _prefix(self, t1: int, at: Sequence[int]) -> None:
        """Keep the features of one checkpoint at all cuts."""
        features, computed = self._parts.features, []
        for c, cut in enumerate(self._parts.cuts):
            if self._parts.sources[cut.name] == "recomputed":
                computed.append(c)
                continue
            for i in at:
                self._at_cuts.put((c, t1, i), features.read(cut, features.batches[i], t1))
        last = max((self._entry[c] for c in computed), default=0)
        for chunk in _chunks(at, self._order.chunk):
            going = KeptFeatures(disk=not self._order.chunk)
            for number in range(last):
                with torch.inference_mode(), self.pieces.piece(number, t1) as piece:
                    for i in chunk:
                        z = piece(going.take(i) if number else features.batches[i].inputs.clone())
                        for c in computed:
                            if self._entry[c] == number + 1:
                                self._at_cuts.put((c, t1, i), z)
                        if number + 1 < last:
                            going.put(i, z)

    def _suffix(self, chunk: Sequence[Unit], t2: int, rows: dict[int, Rows]) -> list[Stitched]:
        """Return what some features give behind their cuts with the weights of one checkpoint."""
        found: dict[int, Stitched] = {}
        going, last = KeptFeatures(disk=not self._order.chunk), len(self.pieces) - 1
        for number in range(min(self._entry[c] for c, _, _ in chunk), last + 1):
            mine = [n for n, (c, _, _) in enumerate(chunk) if self._entry[c] <= number]
            with self.pieces.piece(number, t2, torch.float32) as piece:

                def step(place: int) -> None:
                    n = mine[place]  # noqa: B023
                    c, _, i = unit = chunk[n]
                    if self._entry[c] == number:  # noqa: B023
                        z = self._at_cuts.get(unit).to(torch.float32, copy=True)  # a piece may write into its input
                    else:
                        z = going.take(n)
                    z = piece(z)
                    if number == last:  # noqa: B023
                        found[n] = scored(z, rows[i].labels, rows[i].own, positions=self._positions)
                    else:
                        going.put(n, z)

                each_checkpoint(step, len(mine), self._parts.features.device)
        return [found[n] for n in range(len(chunk))]


def _chunks(values: Sequence[Unit] | Sequence[int], size: int) -> Iterator[Sequence]:
    """Yield runs of so many, or all at once for 0."""
    size = size or len(values)
    return (values[start : start + size] for start in range(0, len(values), size))
