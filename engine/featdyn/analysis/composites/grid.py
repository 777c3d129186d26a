"""What every composite network predicts: the prefix of checkpoint t1 with the suffix of checkpoint t2.

A task is one t1 and one block of probes: the features at all cuts meet the suffixes of all t2 while they are at hand,
so no prefix is computed, and no feature read, more than once. Where the suffixes of all t2 do not fit into memory they
come in groups, and once for each group; where those of one do not, piece by piece (``streamed.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featdyn.analysis.composites import predictions
from featdyn.analysis.composites.order import Order
from featdyn.analysis.composites.streamed import Streamed
from featdyn.analysis.composites.tally import SOFT, Item, Tally
from featdyn.analysis.context import Context
from featdyn.analysis.inputs.class_labels import output_positions
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.inputs.suffix_banks import bank_bytes, suffixes
from featdyn.compute import Plan
from featdyn.errors import NetworkError
from featdyn.store import Run
from featdyn_kernels.stitch import SuffixBank

HELD = 2**30
"""Bytes of suffixes in memory, on each thread of a worker."""


@dataclass(frozen=True)
class Composites:
    """What the grid of pairs left."""

    prediction: NDArray[np.signedinteger]  # (cut, t1, t2, probe), -1 where a logit is NaN
    soft: NDArray[np.float64]  # (SOFT, cut, set, t1, t2)
    paths: list[str]  # how each cut's suffixes ran: "fused" or "general"
    apart: NDArray[np.int64]  # (cut, t), probes for which a checkpoint joined with itself is not its network

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """Pairs without a composite ``(cut, t1, t2)``: of one of them something passes beside the cut."""
        found = self.apart > 0
        return found[:, :, None] | found[:, None, :]


def evaluate(
    context: Context[Any],
    parts: Stitchable,
    members: NDArray[np.float64],
    labels: NDArray[np.int64],
    known: Composites | None = None,
    order: Order | None = None,
) -> Composites:
    """Run every composite on every probe; where they are not composites there is no prediction, and NaN.

    Buffers travel with their layers: a suffix brings the BatchNorm statistics of its own checkpoint. Of what an earlier
    call found for the first checkpoints, ``known``, only the rows and columns of the others are computed. ``members``
    are ``(probe, set)``, the weight of each probe in each set's mean, ``labels`` ``(probe,)``, classes. Of outputs by
    position all is of ``(probe * position,)``. With an ``order`` the network passes piece by piece.
    """
    run = context.run
    steps = len(parts.states)
    old = 0 if known is None else known.prediction.shape[1]
    shape = len(parts.cuts), steps, steps, len(members)
    prediction = np.zeros(shape, predictions.dtype_of(run))
    soft = np.zeros((len(SOFT), len(parts.cuts), members.shape[1], steps, steps))
    different = np.zeros(shape[:2], np.int64)
    if known is not None:
        different[:, :old] = known.apart
        prediction[:, :old, :old] = known.prediction
        soft[..., :old, :old] = known.soft
    make, rest = _way(order)
    items = in_memory(parts, run.schema.blocks, old) if order is None else order.items(old)
    state = make(run, parts, members, labels, *rest)
    with context.stage(state, parts.around(make, run, members, labels, *rest)) as stage:
        for tallies in context.each(stage.map(make.tally, items)):
            for tally in tallies:
                samples, each = run.schema.block_slice(tally.block), len(members) // run.schema.samples
                t1s, t2s = (slice(found.start, found.stop) for found in (tally.t1s, tally.t2s))
                prediction[:, t1s, t2s, samples.start * each : samples.stop * each] = tally.prediction
                soft[..., t1s, t2s] += tally.soft
                different[:, t1s] += tally.different
    if order is None:
        paths = [bank.path.name for bank in suffixes(parts, parts.states[:1], output_positions(run))]
    else:
        paths = ["piece by piece"] * len(parts.cuts)
    done = Composites(prediction, soft, paths, different)
    prediction[done.unknown] = -1
    np.moveaxis(soft, 2, 1)[..., done.unknown] = np.nan
    return done


def refuse_apart(
    context: Context[Any], parts: Stitchable, labels: NDArray[np.int64], order: Order | None = None
) -> None:
    """Raise :class:`NetworkError` where a checkpoint joined with itself is not its network, on any probe.

    One pass for each checkpoint: for analyses that do not join each checkpoint with itself anyway. With an ``order``
    the network passes piece by piece.
    """
    run, members = context.run, np.ones((len(labels), 1))
    make, rest = _way(order)
    groups = [range(block, block + 1) for block in range(run.schema.blocks)] if order is None else order.groups
    items = [(blocks, range(t, t + 1), range(t, t + 1)) for t in range(len(parts.states)) for blocks in groups]
    different = np.zeros((len(parts.cuts), len(parts.states)), np.int64)
    state = make(run, parts, members, labels, *rest)
    with context.stage(state, parts.around(make, run, members, labels, *rest)) as stage:
        for tallies in context.each(stage.map(make.tally, items)):
            for tally in tallies:
                different[:, tally.t1s[0]] += tally.different[:, 0]
    for cut, counts in zip(parts.cuts, different, strict=True):
        if counts.any():
            t, many = int(counts.argmax()), f"{(counts > 0).sum()} of {len(counts)} checkpoints"
            if cut.traced:  # nothing can pass beside it
                raise NetworkError(
                    f"{run.path}: the model is not the one recorded: for {many} it gives other outputs (of checkpoint "
                    f"{t} for {counts[t]} probes)"
                )
            raise NetworkError(
                f"{run.path}: at {cut.name} the halves of {many}, joined, are not their network (of checkpoint {t} for "
                f"{counts[t]} probes): what the forward function makes of earlier layers passes beside this cut; "
                "choose other cuts"
            )


def apart_macs(run: Run, parts: Stitchable) -> int:
    """Return the multiply-adds of :func:`refuse_apart`."""
    cuts = parts.cuts
    found: int = cuts[-1].prefix_macs + sum(cut.suffix_macs for cut in cuts)
    return run.checkpoints * run.schema.samples * found


def with_apart(plan: Plan, run: Run, parts: Stitchable) -> Plan:
    """Return a plan with what :func:`refuse_apart` adds; it holds outputs of a block as recorded and as joined."""
    steps, logits = run.checkpoints, run.schema["outputs/logits"].nbytes
    return replace(
        plan,
        tasks=plan.tasks + steps * run.schema.blocks,
        reads=plan.reads + steps * (parts.features.stored_bytes + logits),
        task=plan.task | {"compared": 2 * predictions.outputs_bytes(run, run.schema.shard_samples)},
    )


def in_memory(parts: Stitchable, blocks: int, old: int) -> list[Item]:
    """Return the tasks that hold whole suffixes: a block and a t1 each."""
    return [
        (range(block, block + 1), range(t1, t1 + 1), t2s)
        for t2s in suffix_groups(parts, old)
        for block in range(blocks)
        for t1 in range(old if t2s.stop <= old else 0, len(parts.states))
    ]


def suffix_groups(parts: Stitchable, old: int) -> list[range]:
    """Return the t2 whose suffixes are held together, up to :data:`HELD` bytes, in groups that ``old`` does not cut."""
    most = max(1, HELD // bank_bytes(parts))
    steps = len(parts.states)
    return [
        range(start, min(start + most, stop))
        for first, stop in ((0, old), (old, steps))
        for start in range(first, stop, most)
    ]


def _way(order: Order | None) -> tuple[type[InMemory | Streamed], tuple[Any, ...]]:
    """Return what tasks need in this order, and what it takes besides the rest."""
    return (InMemory, ()) if order is None else (Streamed, (order,))


class InMemory:
    """What the tasks of the grid need; suffixes are kept until a task asks for others."""

    def __init__(self, run: Run, parts: Stitchable, members: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        self._run, self._parts, self._members, self._labels = run, parts, members, labels
        self._banks: tuple[range, list[SuffixBank]] = range(0), []
        self._positions = output_positions(run)

    def banks(self, t2s: range) -> list[SuffixBank]:
        """Return the suffixes of some checkpoints at each cut."""
        if self._banks[0] != t2s:
            self._banks = range(0), []  # before the new ones are made
            self._banks = t2s, suffixes(self._parts, self._parts.states[t2s.start : t2s.stop], self._positions)
        return self._banks[1]

    def tally(self, item: Item) -> list[Tally]:
        """Return what one block at one t1 gives."""
        (block,), t1s, t2s = item
        tally = Tally(self._run, self._parts, self._members, self._labels, block, t1s, t2s)
        banks, batches = self.banks(t2s), self._parts.features.batches
        for batch in map(batches.__getitem__, batches.of_block(block)):
            rows = tally.rows(batch)
            with torch.inference_mode():
                for t1 in t1s:
                    for c, (cut, z) in enumerate(zip(self._parts.cuts, self._parts.features(batch, t1), strict=True)):
                        found = banks[c].run(cut.handed(z, lambda: batch.inputs), rows.labels, rows.own)  # noqa: B023
                        tally.add(c, t1, rows, found)
        return [tally]
