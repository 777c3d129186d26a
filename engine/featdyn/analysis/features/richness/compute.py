"""Low-rank measure, feature metrics and the change of the kernel, in one pass over features and outputs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.cells import Cells
from featdyn.analysis.context import Context
from featdyn.analysis.features.folded_moments import fold_of
from featdyn.analysis.features.richness import LEADING, RichnessOptions
from featdyn.analysis.features.richness.cell import NUMBERS, STATUSES, FirstVectors, Found, State, cells
from featdyn.analysis.features.richness.weights import PARAMETERS, weight_bytes, weights
from featdyn.analysis.inputs.lacking import keeps_moments
from featdyn.analysis.inputs.layer_vectors import LOGITS, block_bytes, outputs
from featdyn.analysis.inputs.recorded_arrays import VANISHED, layer_coords, vanished, variables
from featdyn.analysis.inputs.recorded_moments import features_or_moments
from featdyn.analysis.inputs.targets import targets
from featdyn.compute import Plan
from featdyn.store import ArraySpec, Run

DIMS = ("layer", "set", "t")
COPIES = 4
"""So many moments, beside those of each fold, are held while a measure is made of them."""


def richness(context: Context[RichnessOptions]) -> xr.Dataset:
    """Measure every recorded layer at every checkpoint, for every set of probes."""
    run, sets, options = context.run, context.sets, context.options
    specs, width, wanted = features_or_moments(run, options.layers), outputs(run), targets(run)
    if keeps_moments(run) and wanted.classes is None:  # moments were kept with classes alone
        wanted = replace(wanted, values=wanted.values[:, :0])
    members, steps, widths = sets.members, run.checkpoints, [variables(spec) for spec in specs]
    folds = [
        fold_of(sets, s, options.folds, options.seed, _planned(wanted.classes, member))
        for s, member in enumerate(members)
    ]
    shape, kept = (len(specs), len(members), steps), min(options.leading, max(widths))
    found = Cells(DIMS, shape, NUMBERS, STATUSES, dict.fromkeys(LEADING, ("k", kept)))
    of_weights = Cells(("t",), (steps,), PARAMETERS, ("parameter_status",))
    beside, limits = width + wanted.values.shape[1], context.workers.limits()
    plans = {
        (n, keeps): plan(run, specs, sets.sizes, beside, options.folds, found.nbytes, n, keeps)
        for n, keeps in product(range(len(members), 0, -1), (True, False) if steps > 1 else (False,))
    }
    ways = sorted(plans, key=lambda way: plans[way].reads)
    together, keeps = next((way for way in ways if plans[way].fits(limits)), (1, False))
    context.admit(plans[together, keeps])
    groups = [range(s, min(s + together, len(members))) for s in range(0, len(members), together)]
    lost, items = [vanished(run, spec) for spec in specs], list(product(range(len(specs)), groups, range(steps)))
    images = [len(np.unique(sets.origins[member])) for member in members]
    state = State(run, specs, sets.names, members, images, folds, wanted, options, FirstVectors(run, keeps))
    with context.stage(state) as stage:
        for (c, group, t), of_sets in zip(items, context.each(stage.map(cells, items)), strict=True):
            for s, of_set in zip(group, of_sets, strict=True):
                if lost[c][t, members[s]].mean() > 0.5:
                    found.fail((c, s, t), VANISHED)
                else:
                    found.put((c, s, t), *of_set)
        for t, of_checkpoint in enumerate(context.each(stage.map(_weights, range(steps)))):
            of_weights.put((t,), *of_checkpoint)
    coords = {**layer_coords(run, specs, sets), "width": ("layer", widths), "k": np.arange(kept) + 1}
    return found.dataset().merge(of_weights.dataset()).assign_coords(coords)


def _planned(classes: NDArray[np.int64] | None, member: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Return the classes where a set has equally many probes of each, None where their numbers are by chance.

    Chance then varies the measures too: folds with each class in its share would hide half of it and more.
    """
    counts = np.zeros(0) if classes is None else np.unique(classes[member], return_counts=True)[1]
    return classes if len(counts) and np.ptp(counts) <= 1 else None


def plan(
    run: Run, specs: list[ArraySpec], sizes: list[int], beside: int, folds: int, result: int, together: int, kept: bool
) -> Plan:
    """Return what passes over features and outputs will need, one for each group of so many sets ``together``.

    ``beside`` are the variables of outputs and targets; ``kept`` says whether those of the first checkpoint are.
    """
    widest, logits, groups = max(map(variables, specs)), run.schema[LOGITS], -(-len(sizes) // together)
    passes = run.checkpoints + (1 if kept else run.checkpoints)
    moments = 8 * (widest**2 + widest * (widest + beside) + (widest + beside) ** 2)
    return Plan(
        f"{len(specs)} layers x {len(sizes)} sets x {run.checkpoints} checkpoints, {sum(sizes):,} probes",
        tasks=len(specs) * groups * run.checkpoints + run.checkpoints,
        reads=groups * (passes * sum(spec.nbytes for spec in specs) + run.checkpoints * len(specs) * logits.nbytes),
        task={
            "moments or weights": max((together * folds + COPIES) * moments, 5 * weight_bytes(run, 0)),
            "blocks": 2 * block_bytes(run, [*specs, logits]),
        },
        state={
            "targets and folds": 8 * run.schema.samples * (beside + 2 * len(sizes)),
            "the first checkpoint": 8 * run.schema.samples * widest * kept,
        },
        result={"cells": result},
    )


def _weights(state: State, t: int) -> Found:
    values, reason = weights(state.run, t)
    return values, {"parameter_status": reason}
