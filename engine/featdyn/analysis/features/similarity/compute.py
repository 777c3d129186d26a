"""All pairs of recorded layers and checkpoints, in blocks of representations that are made ready once a block."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.cells import Cells
from featdyn.analysis.context import Context
from featdyn.analysis.features.similarity import CCA, MEASURES, SimilarityOptions
from featdyn.analysis.features.similarity.prepared import NEIGHBOURS, Found, Ready, compared
from featdyn.analysis.inputs.layer_vectors import block_bytes, chosen_vectors
from featdyn.analysis.inputs.recorded_arrays import VANISHED, recorded, vanished, variables
from featdyn.compute import Plan
from featdyn.statistics.rounding import roundoff
from featdyn.statistics.similarity import jaccard_chance
from featdyn.store import ArraySpec, Run

ACROSS = ("layer", "layer2", "t1", "t2")
State: TypeAlias = tuple[Run, list[ArraySpec], NDArray[np.intp], SimilarityOptions, NDArray[np.bool_]]


def similarity(context: Context[SimilarityOptions]) -> xr.Dataset:
    """Compare any two layers at any two checkpoints, on some probes of the unseen set."""
    run, sets, options = context.run, context.sets, context.options
    s = sets.index(options.test) or 0
    specs, kept = recorded(run, options.layers, "activation"), sets.choose(run, options.samples, options.seed)[s]
    lost = np.array([vanished(run, spec)[:, kept].mean(1) > 0.5 for spec in specs])  # (layer, checkpoint)
    steps, each = run.checkpoints, list(product(range(len(specs)), range(run.checkpoints)))
    spans = [range(i, min(i + options.block, len(each))) for i in range(0, len(each), options.block)]
    names = [*MEASURES, *(f"{name}_shuffled" for name in CCA)]
    cells = Cells(ACROSS, (len(specs), len(specs), steps, steps), names, [f"{name}_status" for name in MEASURES])
    items = list(product(spans, spans))
    context.admit(plan(run, specs, len(kept), len(items), options.block, cells.nbytes))
    with context.stage((run, specs, kept, options, lost)) as stage:
        for of_block in context.each(stage.map(_block, items)):
            for (a, b), found in of_block.items():
                (layer, t1), (layer2, t2) = each[a], each[b]
                cells.put((layer, layer2, t1, t2), *found)
    layers, step = np.array([spec.path.split("/")[1] for spec in specs], dtype=object), run.values("step")
    coords: dict[str, Any] = {"layer": layers, "layer2": layers, "t1": np.arange(steps), "t2": np.arange(steps)}
    coords |= {"step1": ("t1", step), "step2": ("t2", step)}
    coords["width"] = "layer", [variables(spec) for spec in specs]
    return (
        cells.dataset()
        .assign_coords(coords)
        .assign_attrs(
            similarity_set=sets.names[s],
            used=len(kept),
            jaccard_chance=jaccard_chance(len(kept), NEIGHBOURS) if len(kept) > NEIGHBOURS else "",
        )
    )


def plan(run: Run, specs: list[ArraySpec], kept: int, tasks: int, block: int, result: int) -> Plan:
    """Return what all pairs will need."""
    widest, count = max(map(variables, specs)), len(specs) * run.checkpoints
    spans = -(-count // block)
    one = 8 * kept * (3 * widest + 4 * kept)  # features, directions and their lengths; distances, ranks, neighbours
    return Plan(
        f"{count:,} x {count:,} pairs of layers and checkpoints, {kept:,} probes",
        tasks=tasks,
        # Of two spans that differ both are read, of a span with itself one.
        reads=(2 * spans - 1) * run.checkpoints * kept * sum(spec.itemsize * prod(spec.shape[1:]) for spec in specs),
        task={"representations": min(2 * block, count) * one, "blocks": block_bytes(run, specs)},
        result={"cells": result},
    )


def _block(state: State, item: tuple[range, range]) -> dict[tuple[int, int], Found]:
    """Return what is found of every pair of one of the first and one of the second representations."""
    rows, columns = item
    ready = {i: _ready(state, i) for i in sorted({*rows, *columns})}
    return {(a, b): compared(ready[a], ready[b]) for a in rows for b in columns}


def _ready(state: State, i: int) -> Ready:
    run, specs, kept, options, lost = state
    c, t = divmod(i, run.checkpoints)
    x = chosen_vectors(run, specs[c].path, t, kept)
    return Ready.of(x, options.seed, roundoff(specs[c].dtype), VANISHED if lost[c, t] else "")
