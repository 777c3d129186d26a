"""Interactions of layers, through linear probes, beside those of the output."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np
import xarray as xr

from featdyn.analysis.context import Context
from featdyn.analysis.features.interactions.compute import MODEL, OUTPUTS, of_probes
from featdyn.analysis.features.interactions.tables import ROWS, Asked, of_batches
from featdyn.analysis.features.layer_interactions import CELLS, LayerInteractionsOptions
from featdyn.analysis.features.layer_interactions.compared import Tables, compared
from featdyn.analysis.features.layer_interactions.tables import LayerTables
from featdyn.analysis.inputs.at_input import whole_network
from featdyn.analysis.inputs.class_labels import class_count, labelled
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.stitchable import BETWEEN, Stitchable
from featdyn.analysis.status import reasons
from featdyn.compute import Plan
from featdyn.store import Run


def layer_interactions(context: Context[LayerInteractionsOptions]) -> xr.Dataset:
    """Evaluate layers and output on all maskings of each probe's input, then compare their interactions.

    Tables that an earlier result holds are kept: after another checkpoint only its own are computed.
    """
    run, options = context.run, context.options
    sets, labels = labelled(run, context.sets)
    parts = context.stitchable(masked=True)
    chosen = sets.choose(run, options.samples, options.seed)
    probes = np.unique(np.concatenate(chosen))
    every, fitted = labelled(run, ProbeSets.of(run))[0], np.zeros(0, np.intp)  # also where ``sets`` leaves training out
    if (place := every.index(options.train)) is not None:
        fitted = every.choose(run, options.fitted, options.seed)[place]
    steps, cuts = run.checkpoints, len(parts.cuts)
    v = np.full((cuts, steps, len(probes), 2**options.players), np.nan, np.float32)
    output, region = np.full(v.shape[1:], np.nan, np.float32), np.full((len(probes), options.players), -1)
    why, known = np.full(v.shape[:3], "", object), 0
    if (earlier := context.known) is not None:
        known = earlier.sizes["t"]
        v[:, :known] = earlier["v"].transpose(*CELLS.split(), "subset").values
        output[:known] = earlier["v_output"].transpose("t", "probe", "subset").values
        region[:] = earlier["region"].transpose("probe", "player").values
        if (said := reasons(earlier, "v")) is not None:
            why[:, :known] = said.str.replace(" ", "_").transpose(*CELLS.split()).values
    spans = of_batches(run, parts, probes)
    items = [(t, b) for t in range(known, steps) for b, mine in enumerate(spans) if len(mine)]
    asked = Asked(probes, labels, np.any(sets.members, axis=0))
    context.admit(_plan(run, parts, len(items), asked, len(fitted), options))
    # That the model is the one that was recorded was seen when it was taken apart.
    again = partial(whole_network, run, context.model, context.call, checked=True)
    rest = again, asked, fitted, sets.origins, options
    state, rebuild = LayerTables(run, parts, *rest), parts.around(LayerTables, run, *rest)

    def first(count: int) -> xr.Dataset:
        """Return the result of so many of the checkpoints."""
        places = [np.searchsorted(probes, mine) for mine in chosen]
        tables = Tables(v[:, :count], output[:count], why[:, :count], region[:, 0] < 0)
        found = compared(tables, places, sets.origins[probes], options)
        return of_probes(run, parts, sets, labels, probes, chosen, np.arange(count), options.players).assign(
            v=((*CELLS.split(), "subset"), v[:, :count]),
            v_output=(("t", "probe", "subset"), output[:count]),
            region=(("probe", "player"), region),
            **found,
        )

    with context.stage(state, rebuild) as stage:
        for (t, b), found in zip(items, context.each(stage.map(LayerTables.tables, items)), strict=True):
            v[:, t, spans[b]], output[t, spans[b]], region[spans[b]] = found.v, found.output, found.region
            for (c, i), reason in found.reasons.items():
                why[c, t, spans[b][i]] = reason
            if b == items[-1][1]:
                context.keep(partial(first, t + 1))
    return first(steps)


def _plan(
    run: Run, parts: Stitchable, tasks: int, asked: Asked, fitted: int, options: LayerInteractionsOptions
) -> Plan:
    """Return what the tables of so many batches and checkpoints will need."""
    rows, probes, cuts = 2**options.players, len(asked.probes), len(parts.cuts)
    macs = parts.cuts[0].prefix_macs + parts.cuts[0].suffix_macs
    widest, steps, classes = max(prod(cut.shape) for cut in parts.cuts), run.checkpoints, class_count(run)
    given = prod(run.nodes["inputs/input"]["shape"][1:]) if "inputs/input" in run.nodes else widest
    together = min(ROWS, rows)
    return Plan(
        f"{cuts} layers x {steps} checkpoints x {probes:,} probes x {rows:,} maskings, "
        f"{steps * probes * rows * macs / 1e12:.3g} T multiply-adds",
        tasks=tasks,
        reads=0,
        task={
            "features": parts.pass_bytes,
            "masked": together * (7 * given + parts.sample_bytes + 4 * widest * BETWEEN + 8 * widest),
            "outputs": OUTPUTS * 8 * together * classes,
            "linear probes": fitted * (4 + 8) * widest
            + 6 * 8 * fitted**2
            + 8 * (classes + 1) * parts.sample_bytes // 4,
        },
        state=parts.held,
        result={
            "tables": 4 * (cuts + 1) * steps * probes * rows,
            "models": 2 * MODEL * 8 * rows * probes,
        },
    )
