"""Labels, losses and phases of stored tables: no network is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.cells import Cells
from featdyn.analysis.context import Context
from featdyn.analysis.features.generalization import DECAY, ORDER, GeneralizationOptions
from featdyn.analysis.features.generalization.joined import Baseline, Joined, joined
from featdyn.analysis.features.generalization.labels import NO_PROBE, Labels, OfCheckpoint
from featdyn.analysis.features.generalization.phases import ENDS, NO_LOSSES, NUMBERS, STATUSES, WORDS, Curves, phases
from featdyn.analysis.features.interactions import NO_SPREAD
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.status import FEW
from featdyn.compute import Plan
from featdyn.errors import FeatdynError
from featdyn.statistics.interactions.ratio_of_sums import DRAWS


def generalization(context: Context[GeneralizationOptions]) -> xr.Dataset:
    """Label the interactions of the newest tables beside those of baselines, and tell phases."""
    run, options = context.run, context.options
    ProbeSets.of(run).refuse_unknown(run, options)
    own = run.result("interactions")
    if "split" not in own.coords:
        raise FeatdynError(f"{run.path}: its interactions are of an earlier version: analyze them again")
    baselines = [Baseline.read(text, run, own) for text in options.baselines]
    cuts, sets, steps = own.sizes["cut"], own["set"].values.tolist(), own["step"].values
    items = [(c, t) for c in range(cuts) for t in range(len(steps))]
    context.admit(_plan(own, len(baselines), len(items)))
    tables = [joined(own, baselines, c) for c in range(cuts)]
    state = Labels(tables, sets, options)
    with context.stage(state) as stage:
        found = dict(zip(items, context.each(stage.map(Labels.at, items)), strict=True))
    coords = {
        "cut": own["cut"].values, "set": own["set"].values, "t": own["t"].values, "step": ("t", steps),
        "order": own["order"].values, "role": np.array(["train", "test"], dtype=object),
        "criterion": np.array([*state.names, DECAY, ORDER], dtype=object),
    }  # fmt: skip
    values = _cells(found, (cuts, sets, len(steps), own.sizes["order"]), state.names)
    values = values.merge(_phases(tables, found, sets, steps, state.names, options))
    used = [[int((cut.splits == name).sum()) for name in sets] for cut in tables]
    seen = [{"name": b.name, "store": b.store, "t": int(b.result["t"])} for b in baselines]
    return values.assign(used=(("cut", "set"), used)).assign_coords(coords).assign_attrs(
        baselines=seen, tables=own.attrs["options"]
    )  # fmt: skip


def _cells(found: dict[tuple[int, int], OfCheckpoint], shape: tuple[Any, ...], names: Sequence[str]) -> xr.Dataset:
    """Return what is known of each checkpoint alone."""
    cuts, sets, steps, orders = shape
    grid = (cuts, len(sets), steps)
    order = ("order", orders)
    every = Cells(
        ("cut", "set", "t"), grid, [*_ends("decay_share"), "decay_r2"], ["status", "decay_status"],
        {"strength_positive": order, "strength_negative": order, "decay_by_order": order},
    )  # fmt: skip
    network = Cells(("cut", "t"), (cuts, steps), _ends("gap"), ["gap_status"], {"loss": ("role", 2)})
    made = [every, network]
    if names:
        labelled = Cells(
            ("cut", "set", "t", "reference"), (*grid, len(names)),
            [*_ends("power", "count_share", "beyond_chance"), "chance", "decay_correlation"],
            ["reference_status", "chance_status"],
            dict.fromkeys([*_ends("power_by_order"), "generalizable_positive", "generalizable_negative"], order),
        )  # fmt: skip
        losses = Cells(
            ("cut", "t", "reference"), (cuts, steps, len(names)), _ends("gap_without", "explained"), [],
            {"loss_without": ("role", 2)} | dict.fromkeys(_ends("explained_by_order"), order),
        )  # fmt: skip
        made += [labelled, losses]
    pairs = list(next((s.pairs for cell in found.values() for s in cell.sets.values() if s.pairs), {}))
    if pairs:
        both = Cells(("cut", "set", "t", "compared"), (*grid, len(pairs)), _ends("kappa"), ["pair_status"])
        made.append(both)
    for (c, t), cell in found.items():
        for s, name in enumerate(sets):
            of = cell.sets[name]
            every.put((c, s, t), of.values, {"status": of.reason, "decay_status": of.reason or of.decay_reason})
            for r, reference in enumerate(names):
                numbers, reason = of.references.get(reference, ({}, NO_PROBE))
                few = "" if np.isfinite(numbers.get("chance", np.nan)) else FEW  # no other image
                labelled.put((c, s, t, r), numbers, {"reference_status": reason, "chance_status": reason or few})
            for p, pair in enumerate(pairs):
                numbers, reason = of.pairs.get(pair, ({}, NO_PROBE))
                both.put((c, s, t, p), numbers, {"pair_status": reason})
        numbers, references = cell.losses
        reason = NO_LOSSES if not numbers else NO_SPREAD if np.isnan(numbers["gap_low"]) else ""
        network.put((c, t), numbers, {"gap_status": reason})
        for r, reference in enumerate(names):
            losses.put((c, t, r), references.get(reference, ({}, ""))[0], {})
    coords = {"reference": np.array(names, dtype=object)} if names else {}
    coords |= {"compared": np.array(pairs, dtype=object)} if pairs else {}
    return xr.merge([cells.dataset() for cells in made]).assign_coords(coords)


def _phases(
    tables: Sequence[Joined],
    found: dict[tuple[int, int], OfCheckpoint],
    sets: Sequence[str],
    steps: NDArray[np.int64],
    names: Sequence[str],
    options: GeneralizationOptions,
) -> xr.Dataset:
    """Return where phases begin."""
    criteria = [*names, DECAY, ORDER]
    dims, shape = ("cut", "set", "criterion"), (len(tables), len(sets), len(criteria))
    cells = Cells(dims, shape, NUMBERS, STATUSES)
    words = {name: np.full(shape, "", object) for name in WORDS}
    for c, table in enumerate(tables):
        of_cut = [found[c, t] for t in range(len(steps))]
        strength, loss = (np.stack([getattr(cell, name) for cell in of_cut]) for name in ("strength", "loss"))
        labelled = {name: np.stack([cell.generalizable[name] for cell in of_cut]) for name in table.baselines}
        known = np.isfinite(loss).all(0)
        roles = [known & (table.splits == name) for name in (options.train, options.test)]
        for s, name in enumerate(sets):
            mine = known & (table.splits == name)
            curves = Curves(
                steps.astype(np.float64), strength[:, mine], {k: x[:, mine] for k, x in labelled.items()},
                table.origins[mine], (loss[:, roles[0]], loss[:, roles[1]]),
                (table.origins[roles[0]], table.origins[roles[1]]),
            )  # fmt: skip
            for k, criterion in enumerate(criteria):
                values, reasons = phases(curves, criterion, options)
                for word in WORDS:
                    words[word][c, s, k] = values.pop(word, "")
                cells.put((c, s, k), values, reasons)
    return cells.dataset().assign({name: (dims, values) for name, values in words.items()})


def _ends(*names: str) -> list[str]:
    return [f"{name}{end}" for name in names for end in ENDS]


def _plan(own: xr.Dataset, baselines: int, tasks: int) -> Plan:
    """Return what so many tables will need; of a table there are about 25 copies in float64 while it is labelled."""
    table = 4 * own.sizes["probe"] * own.sizes["subset"]
    return Plan(
        f"{own.sizes['cut']} cuts x {own.sizes['t']} checkpoints x {own.sizes['probe']} probes beside {baselines} "
        "baselines",
        tasks=tasks,
        reads=4 * int(own["v"].size) + own.sizes["cut"] * baselines * table,
        task={"models and labels": 2 * (25 + 5 * baselines) * table},
        state={"tables": 4 * int(own["v"].size), "baselines": own.sizes["cut"] * baselines * 12 * table},
        result={
            "cells": 2**13 * tasks,
            "fits": 2**22,  # of a block of draws
            "draws": DRAWS * (24 * own.sizes["probe"] + 8 * own.sizes["t"] * (2 * own.sizes["order"] + 6)),
        },
    )
