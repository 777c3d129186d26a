"""Do features move while predictions hold? Motion, similarity, distance of weights, and what a linear probe can read.

That consistency is no artefact of convergence needs features that move (arXiv 2509.20334); which of these measures show
it is our own choice (feature dynamics, section 2.2 item 9, and the tunnel effect of section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from featdyn.analysis.features.drift.motion import Moves, held_rows, motion, moves
from featdyn.analysis.features.drift.parameters import groups, parameter_distance, squared, task_bytes
from featdyn.analysis.features.drift.similarity import Found, Similarity
from featdyn.analysis.inputs.probe_sets import ProbeSets, spread
from featdyn.analysis.inputs.stitchable import Stitchable, cut_network
from featdyn.analysis.options import DriftOptions
from featdyn.compute import SERIAL, Plan, Workers
from featdyn.store import Run
from featdyn.validation import validate

MATRICES = 10
"""So many float64 matrices over (t1, t2) are held for each probe that moves, at most."""

Value = TypeVar("Value")


def drift(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
    **options: Any,
) -> xr.Dataset:
    """Measure how features and weights drift over training.

    In memory are at most: for motion, features of one recorded batch at all cuts and checkpoints or 512 MiB, whichever
    is less; then, checkpoint by checkpoint, features of ``samples`` probes of each set at all cuts; and for CKA
    ``4 * cuts * T * samples^2`` bytes of Gram matrices where results are collected, which go to a scratch file beyond
    1 GiB. A prefix that is recomputed runs once for motion, and once more for the batches that hold those ``samples``.

    Parameters
    ----------
    run, model, progress, workers
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.DriftOptions`.

    Returns
    -------
    xarray.Dataset
        What :func:`featdyn.analysis.features.drift.motion.motion` and :func:`featdyn.analysis.features.drift.parameters.parameter_distance` give;
        ``cka`` and ``cka_debiased`` with ``_low`` and ``_high``, ``(cut, cut2, t1, t2)``, linear CKA between cut at t1
        and cut2 at t2 (:mod:`featdyn.statistics.cka`), on test probes where there are any;
        ``linear_accuracy`` with ``_low`` and ``_high`` (Wilson), ``(cut, set, t)``, of a linear probe fitted to the
        training probes' true labels, on training probes each left out in turn; ``linear_penalty (cut, t)``, its ridge
        penalty (:mod:`featdyn.analysis.features.drift.linear_probe`). ``used (set)``: probes behind CKA and linear probes.

    Raises
    ------
    NetworkError
        The network cannot be cut, or there is no such cut.
    """
    chosen = validate(DriftOptions, options, "drift")
    parts, sets = cut_network(run, model, chosen.cuts, chosen.features), ProbeSets.of(run)
    kept = spread(run, sets, chosen.samples)
    tasks, batches, steps = _Tasks(run, parts, sets, kept), parts.features.batches, run.checkpoints
    workers.admit(_plan(run, tasks))
    done, total = 0, steps * (run.schema.samples + sum(map(len, kept)))

    def counted(found: Iterable[Value], probes: Iterable[int]) -> Iterator[Value]:
        nonlocal done
        for one, passes in zip(found, probes, strict=True):
            yield one
            done += passes
            if progress:
                progress(done, total)

    with workers.stage(tasks, parts.around(_Tasks, run, sets, kept)) as stage:
        squares = dict[str, NDArray[np.float64]]()
        for some in stage.map(_Tasks.squared, groups(parts)):
            squares |= some
        rows = [(stop - start) * steps for _, start, stop in batches.spans]
        moved = motion(counted(stage.map(_Tasks.moves, range(len(batches))), rows))
        passes = [sum(map(len, kept))] * steps
        alike = tasks.similarity.collect(counted(stage.map(_Tasks.similar, range(steps)), passes))
    coords = run.coords
    result = xr.merge([parts.coords(run, sets), moved, parameter_distance(parts, squares), alike])
    result = result.assign_coords(
        t=np.arange(steps), step=("t", coords["step"].values), cut2=result["cut"].values, probe=coords["sample"].values
    )
    if "split" in coords:
        result = result.assign_coords(split=("probe", coords["split"].values))
    return result.assign_attrs(options=chosen.model_dump(mode="json"), cka_set=tasks.similarity.name)


def _plan(run: Run, tasks: _Tasks) -> Plan:
    parts, steps, probes, sets = tasks.parts, run.checkpoints, run.schema.samples, len(tasks.sets.names)
    cuts, pairs = parts.cuts, 8 * len(parts.cuts) * sets * steps**2
    rows = min(held_rows(parts), parts.features.batches.size)
    macs = 2 * steps * probes * cuts[-1].prefix_macs + steps**2 * probes * parts.sample_bytes / 8
    motion = rows * (steps * parts.sample_bytes + MATRICES * 8 * steps**2) + 6 * pairs
    return Plan(
        f"{len(cuts)} cuts x {steps} checkpoints x {probes:,} probes, at most {macs / 1e12:.3g} T multiply-adds",
        tasks=len(parts.features.batches) + steps + len(groups(parts)),
        reads=2 * steps * parts.features.stored_bytes,
        task={
            "features or parameters": max(motion, tasks.similarity.task_bytes, task_bytes(parts)),
            "batches": parts.pass_bytes,
        },
        state=parts.held,
        result={
            "sums": 3 * 6 * pairs,
            "paths": 3 * 4 * len(cuts) * (steps + 6) * probes,
            "similarity": tasks.similarity.result_bytes,
        },
    )


class _Tasks:
    """What tasks need."""

    def __init__(self, run: Run, parts: Stitchable, sets: ProbeSets, kept: list[NDArray[np.intp]]) -> None:
        self.parts, self.sets, self.similarity = parts, sets, Similarity(run, parts, sets, kept)

    def squared(self, names: list[str]) -> dict[str, NDArray[np.float64]]:
        """Return how far some parameters move."""
        return squared(self.parts, names)

    def moves(self, index: int) -> Moves:
        """Return how the probes of one batch move."""
        return moves(self.parts, self.sets, index)

    def similar(self, t: int) -> list[Found]:
        """Return what similarity needs of one checkpoint."""
        return self.similarity.at(t)
