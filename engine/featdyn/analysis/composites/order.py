"""In which order composites of networks larger than memory pass: the one that moves the fewest bytes and fits.

All orders do the same multiply-adds. They differ in how often weights are read, and in what of features lies on disk:
more features that pass together mean fewer readings of the weights, until those of all pass at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from featdyn.analysis.composites.predictions import outputs_bytes
from featdyn.analysis.composites.tally import Item
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.prefixes import least_moved, pieces_of
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable
from featdyn.compute import Limits, Plan
from featdyn.networks.pieces import chunk_sizes, powers
from featdyn.store import Run
from featdyn_kernels import get_threads
from featdyn_kernels.stitch.scored import scored


@dataclass(frozen=True)
class Order:
    """How composites pass."""

    blocks: int  # of probes
    steps: int  # checkpoints
    group: int  # so many blocks are one task's
    chunk: int  # so many units pass together; 0: all, and between pieces they lie on disk
    disk: bool  # whether features at cuts do, until all t2 have met them

    @property
    def groups(self) -> list[range]:
        """The blocks of each task."""
        return [range(i, min(i + self.group, self.blocks)) for i in range(0, self.blocks, self.group)]

    def items(self, old: int) -> list[Item]:
        """Return the tasks, where pairs of the first ``old`` checkpoints are known."""
        pairs = [(range(old if t2 < old else 0, self.steps), range(t2, t2 + 1)) for t2 in range(self.steps)]
        return [(blocks, t1s, t2s) for blocks in self.groups for t1s, t2s in pairs if len(t1s)]


@dataclass(frozen=True)
class Sizes:
    """What the choice depends on; a unit is a cut, a t1 and a batch: features that pass together."""

    steps: int  # checkpoints
    cuts: int
    blocks: int  # of probes
    batches: int  # in all
    of_block: int  # batches of a block, at most
    unit: int  # bytes of a unit where features are widest, float32
    at_cuts: int  # bytes of one batch's features at all cuts
    prefix: int  # bytes of one checkpoint's weights up to the last cut that is computed, as they are stored
    suffixes: tuple[int, ...]  # the same behind each cut
    behind: int  # pieces behind the first cut
    piece: int  # bytes of the largest piece, as it is held
    stored: int  # bytes that are read of features of a checkpoint
    logits: int  # bytes of one checkpoint's outputs, as they are stored
    outputs: tuple[int, int]  # bytes that outputs of a batch, and of a block, take while they are looked at
    threads: int = 1  # of a task

    @classmethod
    def of(cls, run: Run, parts: Stitchable) -> Self:
        """Return those of a network that is taken apart; kernels are loaded, so that what is free is free of them."""
        scored(torch.zeros(1, 2), np.zeros(1, np.int64), np.zeros((1, 1, 2), np.float32))
        pieces, read = pieces_of(run, parts.places, parts.features.device), parts.features
        size, after = read.batches.size, [pieces.after(cut) for cut in parts.cuts]
        computed = [k for k, cut in zip(after, parts.cuts, strict=True) if parts.sources[cut.name] == "recomputed"]
        return cls(
            steps=run.checkpoints,
            cuts=len(parts.cuts),
            blocks=run.schema.blocks,
            batches=len(read.batches),
            of_block=-(-min(run.schema.shard_samples, run.schema.samples) // size),
            unit=4 * size * pieces.widest,
            at_cuts=size * parts.sample_bytes,
            prefix=pieces.stored_bytes(0, max(computed)) if computed else 0,
            suffixes=tuple(map(pieces.stored_bytes, after)),
            behind=len(pieces) - min(after),
            piece=pieces.held_bytes,
            stored=read.stored_bytes,
            logits=run.schema["outputs/logits"].nbytes,
            outputs=(outputs_bytes(run, size), outputs_bytes(run, run.schema.shard_samples)),
            threads=get_threads(),
        )

    def orders(self) -> Iterator[Order]:
        """Yield those there are to choose from."""
        for group in [*powers(self.blocks), self.blocks]:
            for chunk in chunk_sizes(self.units(group)):
                for disk in (False, True):
                    yield Order(self.blocks, self.steps, group, chunk, disk)

    def of_group(self, group: int) -> int:
        """Return the most batches of so many blocks."""
        return min(group * self.of_block, self.batches)

    def units(self, group: int) -> int:
        """Return the most units of so many blocks."""
        return self.cuts * self.steps * self.of_group(group)

    def moved(self, order: Order) -> int:
        """Return the bytes that are read of weights and the store, and read and written of features on disk."""
        units, groups = self.units(order.group), len(order.groups)
        weights = self.prefix * self.readings(order) + self.behind_cuts(order, units)
        found = groups * self.steps * weights + self.steps * (self.logits + self.stored)
        if order.disk:
            found += self.steps * (1 + self.steps) * self.batches * self.at_cuts
        if not order.chunk:
            found += 2 * (self.behind - 1) * self.steps * self.cuts * self.steps * self.batches * self.unit
        return found

    def tasks(self, order: Order, old: int) -> int:
        """Return how many tasks there are, where pairs of the first ``old`` checkpoints are known."""
        return len(order.items(old))

    def readings(self, order: Order) -> int:
        """Return how often the weights of one checkpoint are read for the batches of a task."""
        return -(-self.of_group(order.group) // order.chunk) if order.chunk else 1

    def behind_cuts(self, order: Order, units: int) -> int:
        """Return the bytes of one checkpoint's weights that are read for so many units behind their cuts."""
        if not order.chunk or order.chunk >= units:
            return max(self.suffixes)  # features of all cuts go through what is behind them together
        return sum(self.suffixes) * -(-(units // self.cuts) // order.chunk)

    def on_disk(self, order: Order) -> int:
        """Return the bytes of temporary files of a task."""
        going = 0 if order.chunk else self.units(order.group) * self.unit
        return going + (self.steps * self.of_group(order.group) * self.at_cuts if order.disk else 0)

    def task(self, order: Order) -> dict[str, int]:
        """Return the bytes that a task holds."""
        at_once = min(self.threads, order.chunk or self.units(order.group))
        batch, block = self.outputs
        return {
            "features": order.chunk * self.unit + at_once * BETWEEN * self.unit,
            "logits": order.group * block + at_once * batch,
        }

    def state(self, order: Order) -> dict[str, int]:
        """Return the bytes that stay from task to task."""
        kept = 0 if order.disk else self.steps * self.of_group(order.group) * self.at_cuts
        return {"a piece": self.piece, "features at cuts": kept}


def admitted(
    context: Context[Any], parts: Stitchable, whole: Plan, sizes: Callable[[], Sizes], old: int = 0
) -> Order | None:
    """Admit a plan; return in which order networks pass piece by piece, None where whole ones fit, as long as one fits.

    ``whole`` is the plan of whole networks, ``sizes`` gives what the choice of an order depends on.
    """
    order = None
    if context.empty or (parts.cuts[0].traced and not whole.fits(context.workers.limits())):
        order, whole = cheapest(sizes(), old, context.workers.limits(), whole, parts.held)
    context.admit(whole)
    return order


def cheapest(
    sizes: Sizes, old: int, limits: Limits, whole: Plan, held: dict[str, int], *, disk: int | None = None
) -> tuple[Order, Plan]:
    """Return the order that moves the fewest bytes among those that fit, and its plan; the smallest where none does.

    ``whole`` is the plan of holding whole suffixes or networks, whose results are the same, ``held`` what a process
    holds anyway; pairs of the first ``old`` checkpoints are known. ``disk`` are the bytes that temporary files may
    take, what is free when None.
    """

    def planned(order: Order) -> Plan:
        return replace(
            whole,
            work=f"{whole.work}, piece by piece",
            tasks=sizes.tasks(order, old),
            reads=sizes.moved(order),
            task=sizes.task(order),
            state=held | sizes.state(order),
        )

    return least_moved(sizes.orders(), planned, sizes.on_disk, limits, disk)
