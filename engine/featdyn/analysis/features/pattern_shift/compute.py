"""Decision patterns of some probes of each set, how far they are from their class's, and whether loss goes with it."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.cells import Cells
from featdyn.analysis.context import Context
from featdyn.analysis.features.pattern_shift import PatternShiftOptions
from featdyn.analysis.features.pattern_shift.correlations import over_checkpoints, over_classes, with_loss
from featdyn.analysis.inputs.class_labels import grouping_labels
from featdyn.analysis.inputs.layer_vectors import block_bytes, chosen_vectors
from featdyn.analysis.inputs.recorded_arrays import VANISHED, layer_coords, recorded, vanished, variables
from featdyn.analysis.status import ALIKE, FEW, NO_TRAINING_PROBES, NOT_FINITE
from featdyn.compute import Plan
from featdyn.errors import FeatdynError
from featdyn.statistics.dealing import dealt
from featdyn.statistics.resampling import effective_groups, group_sums, mean_interval
from featdyn.statistics.rounding import roundoff
from featdyn.store import ArraySpec, Run

DIMS = ("layer", "set", "t")
NUMBERS = (
    "shift", "shift_low", "shift_high", "shift_shuffled", "undefined",
    "loss_correlation", "loss_correlation_low", "loss_correlation_high", "loss_spearman",
    "class_correlation", "class_correlation_low", "class_correlation_high",
)  # fmt: skip
STATUSES = (
    "shift_status", "shift_interval_status", "null_status", "loss_status", "loss_interval_status", "class_status",
    "class_interval_status",
)  # fmt: skip
GAP = ("gap_correlation", "gap_correlation_low", "gap_correlation_high")
NONE_DEFINED = "no_probe_has_a_pattern"
LOSS = "outputs/loss"

Values: TypeAlias = NDArray[np.float64]
State: TypeAlias = tuple[
    Run,
    list[ArraySpec],
    NDArray[np.intp],
    NDArray[np.intp],
    NDArray[np.bool_],
    NDArray[np.int64],
    NDArray[np.int64],
    int,
]


def pattern_shift(context: Context[PatternShiftOptions]) -> xr.Dataset:
    """Measure the shift of decision patterns at every layer with gradients, at every checkpoint."""
    run, sets, options = context.run, context.sets, context.options
    specs = [run.schema[spec.path] for spec in recorded(run, options.layers, "gradient") if _both(run, spec)]
    if not specs:
        raise FeatdynError(f"{run.path}: no layer has both activations and gradients")
    kept, train = sets.choose(run, options.samples, options.seed), sets.index(options.train)
    every, of_set = np.concatenate(kept), np.repeat(np.arange(len(kept)), [len(k) for k in kept])
    order = np.argsort(every)
    every, of_set = every[order], of_set[order]
    labels = grouping_labels(run, "label")[every]
    origins, trained = sets.origins[every], of_set == (-1 if train is None else train)
    shape = len(specs), len(kept), run.checkpoints
    cells = Cells(DIMS, shape, NUMBERS, STATUSES)
    gaps = Cells(DIMS[:2], shape[:2], GAP, ("gap_status", "gap_interval_status"))
    context.admit(plan(run, specs, len(every), cells.nbytes))
    losses = np.array([_loss(run, t, every) for t in range(run.checkpoints)])  # (t, probe)
    shifts = np.full((shape[0], shape[2], len(every)), np.nan)
    items = list(product(range(shape[0]), range(shape[2])))
    state = run, specs, every, of_set, trained, labels, origins, options.seed
    with context.stage(state) as stage:
        for (c, t), (shift, dealt, flaws) in zip(items, context.each(stage.map(_shifts, items)), strict=True):
            shifts[c, t] = shift
            for s in range(shape[1]):
                mine = of_set == s
                flaw = flaws.get(s) or ("" if train is None else flaws.get(train, ""))
                if train is None or flaw:
                    cells.put((c, s, t), {"undefined": mine.sum()}, dict.fromkeys(STATUSES, flaw or NO_TRAINING_PROBES))
                else:
                    values, reasons = _of_set(shift[mine], dealt[mine], losses[t, mine], origins[mine], options.seed)
                    if "shift" in values:
                        known = mine & np.isfinite(shift)
                        of_training = None if s == train else _by_class(losses[t, trained], labels[trained])
                        more, why = over_classes(
                            shift[known], losses[t, known], labels[known], of_training, options.seed
                        )
                        values, reasons = values | more, reasons | why
                    cells.put((c, s, t), values, reasons)
    for c, s in product(range(shape[0]), range(shape[1])):
        if train is None:
            gaps.fail((c, s), NO_TRAINING_PROBES)
            continue
        mine, known = (of_set == s) & (labels >= 0), trained & (labels >= 0)
        gaps.put((c, s), *over_checkpoints(shifts[c], losses, mine, known, origins, options.seed, same=s == train))
    widths, used = [variables(spec) for spec in specs], [len(k) for k in kept]
    coords = {**layer_coords(run, specs, sets), "width": ("layer", widths), "used": ("set", used)}
    return cells.dataset().merge(gaps.dataset()).assign_coords(coords)


def plan(run: Run, specs: list[ArraySpec], rows: int, result: int) -> Plan:
    """Return what the patterns of some probes will need."""
    widest, tasks = max(map(variables, specs)), len(specs) * run.checkpoints
    return Plan(
        f"{len(specs)} layers x {run.checkpoints} checkpoints, {rows:,} probes",
        tasks=tasks,
        reads=2 * run.checkpoints * rows * sum(spec.itemsize * prod(spec.shape[1:]) for spec in specs),
        task={"patterns": 8 * 8 * rows * widest, "blocks": block_bytes(run, specs)},
        result={"cells": result, "shifts": 8 * rows * 4 * tasks},
    )


def _by_class(loss: Values, labels: NDArray[np.int64]) -> dict[int, float]:
    return {label: float(loss[labels == label].mean()) for label in np.unique(labels[labels >= 0]).tolist()}


def _both(run: Run, spec: ArraySpec) -> bool:
    return spec.path.replace("/gradient", "/activation") in run.nodes


def _loss(run: Run, t: int, places: NDArray[np.intp]) -> Values:
    return chosen_vectors(run, LOSS, t, places)[:, 0] if LOSS in run.nodes else np.full(len(places), np.nan)


def _shifts(state: State, item: tuple[int, int]) -> tuple[Values, Values, dict[int, str]]:
    """Return each probe's shift, that by labels dealt at random, NaN where there is none, and what is wrong, by set."""
    (run, specs, places, of_set, trained, labels, origins, seed), (c, t) = state, item
    spec, path = specs[c], specs[c].path
    arrays = [chosen_vectors(run, of, t, places) for of in (path, path.replace("/gradient", "/activation"))]
    finite = np.asarray(np.isfinite(np.hstack(arrays)).all(1))
    lost = vanished(run, spec)[t, places]
    flaws = {}
    for s in np.unique(of_set).tolist():
        mine = of_set == s
        if lost[mine].mean() > 0.5 or not finite[mine].all():
            flaws[s] = VANISHED if lost[mine].mean() > 0.5 else NOT_FINITE
    usable = finite & ~np.isin(of_set, list(flaws))
    gradient, activation = (np.where(usable[:, None], x, 0.0) for x in arrays)
    shuffled = labels.copy()
    shuffled[trained] = labels[trained][dealt(int(trained.sum()), seed, origins[trained])]
    found = [shift_of(gradient * activation, mine, labels, trained, origins) for mine in (labels, shuffled)]
    least = roundoff(spec.dtype) ** 2  # patterns along one direction are that far apart from rounding alone
    return np.where(found[0] < least, 0.0, found[0]), np.where(found[1] < least, 0.0, found[1]), flaws


def shift_of(
    pattern: Values,
    dealt: NDArray[np.int64],
    labels: NDArray[np.int64],
    trained: NDArray[np.bool_],
    origins: NDArray[np.int64],
) -> Values:
    """Return ``(n,)``, 1 less the cosine of each pattern ``(n, p)`` and its class's mean, without the probe's image.

    ``dealt (n,)`` are the labels by which training probes form the means of the classes.
    """
    shift = np.full(len(pattern), np.nan)
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(trained & (dealt == label))
        if not len(members):
            continue
        total, mine = pattern[members].sum(0), np.flatnonzero(labels == label)
        image = np.unique(origins[members], return_inverse=True)
        sums = group_sums(np.ascontiguousarray(pattern[members].T), image[1]).T
        place = np.searchsorted(image[0], origins[mine])
        same = image[0][np.minimum(place, len(image[0]) - 1)] == origins[mine]
        left = np.where(same, np.bincount(image[1])[np.where(same, place, 0)], 0) < len(members)
        mean = total - np.where(same[:, None], sums[np.where(same, place, 0)], 0.0)
        lengths = np.linalg.norm(mean, axis=1) * np.linalg.norm(pattern[mine], axis=1)
        usable = left & (lengths > 0)
        cosine = (mean[usable] * pattern[mine][usable]).sum(1) / lengths[usable]
        shift[mine[usable]] = 1 - np.clip(cosine, -1, 1)
    return shift


def _of_set(
    shift: Values, dealt: Values, loss: Values, origins: NDArray[np.int64], seed: int
) -> tuple[dict[str, Any], dict[str, str]]:
    known = np.isfinite(shift)
    values: dict[str, Any] = {"undefined": int((~known).sum())}
    if not known.any():
        return values, dict.fromkeys(STATUSES, NONE_DEFINED)
    found = mean_interval(shift[known], groups=origins[known])
    low, high = np.clip([found.low, found.high], 0.0, 2.0)
    values |= {"shift": found.estimate, "shift_low": low, "shift_high": high}
    few = FEW if effective_groups(origins[known], int(known.sum())) <= 1 else ALIKE
    reasons = {"shift_interval_status": "" if np.isfinite(found.low) else few}
    if np.isfinite(dealt).any():
        values["shift_shuffled"] = float(np.nanmean(dealt))
    else:
        reasons["null_status"] = NONE_DEFINED
    more, why = with_loss(shift[known], loss[known], origins[known], seed)
    return values | more, reasons | why
