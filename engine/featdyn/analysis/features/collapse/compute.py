"""NC1 to NC4 of every recorded layer: one pass for the moments of classes, a second one for the nearest class mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.cells import Cells
from featdyn.analysis.context import Context
from featdyn.analysis.features.collapse import MEASURES, CollapseOptions
from featdyn.analysis.features.folded_moments import bounds, flaw, fold_of, folded, left_out, rounded, whole
from featdyn.analysis.inputs.class_labels import class_count, labelled
from featdyn.analysis.inputs.lacking import keeps_moments
from featdyn.analysis.inputs.layer_vectors import LOGITS, block_bytes, outputs, pieces, vectors
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.recorded_arrays import VANISHED, layer_coords, vanished, variables
from featdyn.analysis.inputs.recorded_moments import NOT_KEPT, features_or_moments, kept_moments
from featdyn.analysis.inputs.targets import UNKNOWN
from featdyn.analysis.status import FEW, NOT_FINITE, ONE_CLASS
from featdyn.classes import class_logits
from featdyn.compute import Plan
from featdyn.statistics.dealing import dealt
from featdyn.statistics.resampling import share_interval
from featdyn.statistics.richness import of_class_moments
from featdyn.statistics.richness.collapse import misses
from featdyn.store import ArraySpec, Run
from featdyn_kernels.moments import Moments

DIMS = ("layer", "set", "t")
NAMES = dict(zip(("within", "norms", "angles", "simplex", "read_out"), MEASURES, strict=False))
ENDS = ("", "_low", "_high", "_shuffled")
STATUSES = [f"{name}{kind}_status" for name in MEASURES for kind in ("", "_interval", "_shuffled")]
TWO = "two_classes_always_form_a_simplex"
ONE_OUTPUT = "one_output_has_no_simplex"
ALONE = "a_class_has_one_probe"
"""Which has no scatter within: NC1 would be smaller than it is."""
COINCIDE = "class_means_coincide"
AT_CENTRE = "a_class_mean_is_at_the_centre"
OUTPUTS_COINCIDE = "outputs_at_the_class_means_coincide"
COPIES = 6
"""So many moments, beside those of each fold, are held while measures are made of them."""


@dataclass(frozen=True, eq=False)
class State:
    """What every cell needs."""

    run: Run
    specs: list[ArraySpec]
    names: list[str]  # of the sets
    members: list[NDArray[np.bool_]]  # (probe,) for each set: those with a label
    folds: list[NDArray[np.intp]]
    labels: NDArray[np.int64]
    shuffled: list[NDArray[np.int64]]  # labels dealt to the images of each set at random
    origins: NDArray[np.int64]


def collapse(context: Context[CollapseOptions]) -> xr.Dataset:
    """Measure the collapse of every recorded layer at every checkpoint, for every set of probes."""
    run, options = context.run, context.options
    specs, width = features_or_moments(run, options.layers), outputs(run)
    sets, labels = labelled(run, context.sets)
    folds = [fold_of(sets, s, options.folds, options.seed, labels) for s in range(len(sets.names))]
    shuffled = []
    for s, member in enumerate(sets.members):
        of_set = labels.copy()
        of_set[member] = labels[member][dealt(int(member.sum()), [options.seed, s], sets.origins[member])]
        shuffled.append(of_set)
    shape = len(specs), len(sets.names), run.checkpoints
    cells = Cells(DIMS, shape, [name + end for name in MEASURES for end in ENDS], STATUSES)
    context.admit(plan(run, specs, sets.sizes, width, options.folds, cells.nbytes))
    lost, items = [vanished(run, spec) for spec in specs], list(product(*map(range, shape)))
    of_task = _from_moments if keeps_moments(run) else _cell
    with context.stage(State(run, specs, sets.names, sets.members, folds, labels, shuffled, sets.origins)) as stage:
        for at, found in zip(items, context.each(stage.map(of_task, items)), strict=True):
            if lost[at[0]][at[2], sets.members[at[1]]].mean() > 0.5:
                cells.fail(at, VANISHED)
            else:
                cells.put(at, *found)
    widths = [variables(spec) for spec in specs]
    return cells.dataset().assign_coords({**layer_coords(run, specs, sets), "width": ("layer", widths)})


def plan(run: Run, specs: list[ArraySpec], sizes: list[int], width: int, folds: int, result: int) -> Plan:
    """Return what two passes over features and outputs will need."""
    widest, classes, logits = max(map(variables, specs)), class_count(run), run.schema[LOGITS]
    moments = 8 * (widest**2 + widest * (width + 2 * classes) + (width + classes) ** 2)
    return Plan(
        f"{len(specs)} layers x {len(sizes)} sets x {run.checkpoints} checkpoints, {sum(sizes):,} probes",
        tasks=len(specs) * len(sizes) * run.checkpoints,
        reads=2 * run.checkpoints * (sum(spec.nbytes for spec in specs) + len(specs) * logits.nbytes),
        task={"moments": (folds + COPIES) * moments, "blocks": 2 * block_bytes(run, [*specs, logits])},
        state={"labels and folds": 8 * run.schema.samples * (2 + 3 * len(sizes))},
        result={"cells": result},
    )


def _cell(state: State, item: tuple[int, ...]) -> tuple[dict[str, float], dict[str, str]]:
    (c, s, t), run = item, state.run
    member, shuffled, classes = state.members[s], state.shuffled[s], class_count(run)

    def beside(block: int, mine: NDArray[np.bool_], places: NDArray[np.intp]) -> dict[str, Any]:
        dealt = np.eye(classes)[shuffled[places]]  # whose cross-moments are the sums of the shuffled classes
        logits = class_logits(vectors(run, LOGITS, t, block, mine))
        return {"outputs": np.hstack([logits, dealt]), "labels": state.labels[places], "classes": classes}

    (parts,) = folded(run, state.specs[c], t, [member], [state.folds[s]], beside)
    total = _true(whole(parts), classes)
    if reason := rounded(state.specs[c], total) or _flaw(total):
        return {}, dict.fromkeys(STATUSES, reason)
    null = _dealt(whole(parts), classes)
    values, reasons = _values(total, outputs(run))
    others, why_not = _values(null, outputs(run))
    values |= {f"{name}_shuffled": value for name, value in others.items()}
    reasons |= {name.replace("_status", "_shuffled_status"): why for name, why in why_not.items()}
    rest = (_true(moments, classes) for moments in left_out(parts))  # one at a time
    estimates = [_values(moments, outputs(run))[0] if _same_classes(moments, total) else {} for moments in rest]
    for name in NAMES.values():
        if name in values:
            left = [e.get(name, np.nan) for e in estimates]
            low, high, why = bounds(values[name], left, MEASURES[name][1], [part.count for part in parts])
            values |= {f"{name}_low": low, f"{name}_high": high}
        reasons[f"{name}_interval_status"] = why if name in values else reasons[f"{name}_status"]
    wrong, dealt_wrong, origins = _misses(state, item, total, null)
    found = share_interval(wrong, groups=origins)
    values |= found.named("nc4") | {"nc4_shuffled": float(dealt_wrong.mean())}
    return values, reasons


def _from_moments(state: State, item: tuple[int, ...]) -> tuple[dict[str, float], dict[str, str]]:
    """Return what follows where moments were kept in place of features: no interval, no null and no NC4."""
    (c, s, t), run = item, state.run
    everyone = ProbeSets.of(run).member(state.names[s])
    if everyone.sum() > state.members[s].sum():
        return {}, dict.fromkeys(STATUSES, UNKNOWN)
    total = _dealt(kept_moments(run, state.specs[c], t, state.names[s], everyone), class_count(run))
    if reason := rounded(state.specs[c], total) or _flaw(total):
        return {}, dict.fromkeys(STATUSES, reason)
    values, reasons = _values(total, outputs(run))
    return values, dict.fromkeys(STATUSES, NOT_KEPT) | reasons


def _flaw(total: Moments) -> str:
    """Return why classes have no measure, or ""."""
    seen = int((np.asarray(total.class_count) > 0).sum())
    reason = flaw(total) or (ONE_CLASS if seen < 2 else FEW if total.count < 2 * seen else "")
    finite = bool(np.isfinite(np.asarray(total.output_scatter)).all())
    return reason or ("" if finite else NOT_FINITE)


def _values(moments: Moments, width: int) -> tuple[dict[str, float], dict[str, str]]:
    """Return what class moments say, and why the rest is missing."""
    found = asdict(of_class_moments(moments))
    two = int((np.asarray(moments.class_count) > 0).sum()) == 2
    alone = bool((np.rint(np.asarray(moments.class_count)) == 1).any())
    values, reasons = {}, {}
    for key, name in NAMES.items():
        reason = TWO if two and name.startswith("nc2") else ONE_OUTPUT if width == 1 and name == "nc3" else ""
        reason = reason or (ALONE if alone and name == "nc1" else "")
        if not reason and np.isnan(found[key]):
            reason = OUTPUTS_COINCIDE if name == "nc3" else AT_CENTRE if np.isfinite(found["simplex"]) else COINCIDE
        if not reason:
            values[name] = float(found[key])
        reasons[f"{name}_status"] = reason
    return values, reasons


def _misses(
    state: State, item: tuple[int, ...], total: Moments, dealt: Moments
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Return which probes NC4 counts, by true and by shuffled class means, and the image of each."""
    (c, s, t), run = item, state.run
    found = []
    for block, mine, places in pieces(run, state.members[s]):
        x = vectors(run, state.specs[c].path, t, block, mine)
        logits = np.asarray(class_logits(vectors(run, LOGITS, t, block, mine)), np.float64)
        found.append((misses(x, logits, total), misses(x, logits, dealt), state.origins[places]))
    wrong, dealt_wrong, origins = (np.concatenate(each) for each in zip(*found, strict=True))
    return wrong, dealt_wrong, origins


def _true(moments: Moments, classes: int) -> Moments:
    """Return moments of the outputs alone, with the classes that the labels say."""
    assert moments.class_output_sum is not None
    width = moments.class_output_sum.shape[1] - classes
    return replace(_outputs_alone(moments, classes), class_output_sum=moments.class_output_sum[:, :width])


def _outputs_alone(moments: Moments, classes: int) -> Moments:
    """Leave out the classes that stand beside the outputs, one-hot."""
    assert moments.output_mean is not None
    assert moments.output_scatter is not None
    assert moments.cross_scatter is not None
    own = slice(0, len(moments.output_mean) - classes)
    return replace(
        moments,
        output_mean=moments.output_mean[own],
        output_scatter=moments.output_scatter[own, own],
        cross_scatter=moments.cross_scatter[:, own],
    )


def _dealt(moments: Moments, classes: int) -> Moments:
    """Return the same with the classes that stand beside the outputs: sums over them are cross-moments."""
    assert moments.output_mean is not None
    own, dealt = slice(0, len(moments.output_mean) - classes), slice(len(moments.output_mean) - classes, None)
    return replace(
        _outputs_alone(moments, classes),
        class_count=np.rint(moments.output_sum[dealt]),
        class_sum=moments.cross[:, dealt].T,
        class_output_sum=moments.output_second[dealt, own],
    )


def _same_classes(moments: Moments, total: Moments) -> bool:
    return bool(((np.asarray(moments.class_count) > 0) == (np.asarray(total.class_count) > 0)).all())
