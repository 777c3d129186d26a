"""Motion of features, similarity, distance of weights, and what a linear probe can read, over all checkpoints."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.context import Context
from featdyn.analysis.features.drift import DriftOptions
from featdyn.analysis.features.drift.cka import Found, Similarity
from featdyn.analysis.features.drift.motion import MATRICES, Moves, Units, held_rows, motion, moves
from featdyn.analysis.features.drift.weight_distance import groups, squared, task_bytes, weight_distance
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.compute import Plan
from featdyn.store import Run


def drift(context: Context[DriftOptions]) -> xr.Dataset:
    """Measure how features and weights drift over training.

    In memory are at most: for motion, features of one recorded batch at all cuts and checkpoints or 512 MiB, whichever
    is less; then, checkpoint by checkpoint, features of ``samples`` probes of each set at all cuts; and for CKA
    ``4 * cuts * T * samples^2`` bytes of Gram matrices where results are collected, which go to a scratch file beyond
    1 GiB. A prefix that is recomputed runs once for motion, and once more for the batches that hold those ``samples``.
    """
    run, sets, parts = context.run, context.sets, context.layers()
    kept = sets.choose(run, context.options.samples, context.options.seed)
    tasks, steps = _Tasks(run, parts, sets, kept, context.options), run.checkpoints
    parts, needs = parts.in_order(run, plan(run, tasks), context.workers.limits(), 2)  # for motion and for similarity
    tasks = _Tasks(run, parts, sets, kept, context.options)
    context.admit(needs)
    with context.stage(tasks, parts.around(_Tasks, run, sets, kept, context.options)) as stage:
        squares = dict[str, NDArray[np.float64]]()
        for some in context.each(stage.map(_Tasks.squared, groups(parts))):
            squares |= some
        moved = motion(context.each(stage.map(_Tasks.moves, range(len(parts.features.batches)))), tasks.units)
        alike = tasks.similarity.collect(context.each(stage.map(_Tasks.similar, range(steps))))
    coords = run.coords
    result = xr.merge([parts.coords(run, sets), moved, weight_distance(parts, squares), alike])
    result = result.assign_coords(
        t=np.arange(steps), step=("t", coords["step"].values), cut2=result["cut"].values, probe=coords["sample"].values
    )
    if "split" in coords:
        result = result.assign_coords(split=("probe", coords["split"].values))
    return result.assign_attrs(
        cka_set=tasks.similarity.name, cka_used=tasks.similarity.images, linear_labels=tasks.similarity.labels
    )


def plan(run: Run, tasks: _Tasks) -> Plan:
    """Return what motion, weights and similarity of all checkpoints will need."""
    parts, steps, probes, sets = tasks.parts, run.checkpoints, run.schema.samples, len(tasks.sets.names)
    cuts, pairs = parts.cuts, 8 * len(parts.cuts) * steps**2
    rows = min(held_rows(parts), parts.features.batches.size)
    macs = 2 * steps * probes * cuts[-1].prefix_macs + steps**2 * probes * parts.sample_bytes / 8
    shared = tasks.units.shared(parts.features.batches.spans, rows)
    one = 2 * parts.sample_bytes  # of one checkpoint in float64, for norms
    motion = rows * (steps * parts.sample_bytes + one + MATRICES * 8 * steps**2) + 12 * sets * pairs
    return Plan(
        f"{len(cuts)} cuts x {steps} checkpoints x all {probes:,} probes, at most {macs / 1e12:.3g} T multiply-adds",
        tasks=len(parts.features.batches) + steps + len(groups(parts)),
        reads=2 * steps * parts.features.stored_bytes,
        task={
            "features or parameters": max(motion, tasks.similarity.task_bytes, task_bytes(parts)),
            "batches": parts.pass_bytes + parts.features.block_bytes,  # the file of a block, beside what it holds
        },
        state=parts.held,
        result={
            "sums": 3 * 12 * sets * pairs + 4 * shared * pairs,
            "paths": 3 * 4 * len(cuts) * (steps + 6) * probes,
            "similarity": tasks.similarity.result_bytes,
        },
    )


class _Tasks:
    """What tasks need."""

    def __init__(
        self, run: Run, parts: Stitchable, sets: ProbeSets, kept: list[NDArray[np.intp]], options: DriftOptions
    ) -> None:
        self.parts, self.sets, self.units = parts, sets, Units.of_sets(sets)
        self.similarity = Similarity(run, parts, sets, kept, options)

    def squared(self, names: list[str]) -> dict[str, NDArray[np.float64]]:
        """Return how far some parameters move."""
        return squared(self.parts, names)

    def moves(self, index: int) -> Moves:
        """Return how the probes of one batch move."""
        return moves(self.parts, self.units, index)

    def similar(self, t: int) -> list[Found]:
        """Return what similarity needs of one checkpoint."""
        return self.similarity.at(t)
