"""All pairs of recorded layers and checkpoints, in blocks of representations that are made ready once a block.

The features of the chosen probes are read once, shard by shard, and kept where those of all layers and checkpoints fit
into memory; else each block reads its own, which goes through the store many times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from featdyn.analysis.inputs.rounded_away import vectors_rounded_away
from featdyn.compute import Plan
from featdyn.statistics.rounding import roundoff
from featdyn.statistics.similarity import jaccard_chance
from featdyn.store import ArraySpec, Run

ACROSS = ("layer", "layer2", "t1", "t2")
Features: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class State:
    """What tasks need."""

    run: Run
    specs: list[ArraySpec]
    kept: NDArray[np.intp]  # places of the probes
    options: SimilarityOptions
    lost: NDArray[np.bool_]  # (layer, checkpoint), features that vanished in float16
    read: list[Features] | None = None  # of every layer and checkpoint, where they are kept


def similarity(context: Context[SimilarityOptions]) -> xr.Dataset:
    """Compare any two layers at any two checkpoints, on some probes of the unseen set, one of each image."""
    run, sets, options = context.run, context.sets, context.options
    s = sets.index(options.test) or 0
    specs = recorded(run, options.layers, "activation")
    # Of copies, correlations would be near 1 and neighbours the same whatever the features.
    kept = sets.choose(run, options.samples, options.seed, per_origin=True)[s]
    lost = np.array([vanished(run, spec)[:, kept].mean(1) > 0.5 for spec in specs])  # (layer, checkpoint)
    steps, each = run.checkpoints, list(product(range(len(specs)), range(run.checkpoints)))
    spans = [range(i, min(i + options.block, len(each))) for i in range(0, len(each), options.block)]
    names = [*MEASURES, *(f"{name}_shuffled" for name in CCA)]
    cells = Cells(ACROSS, (len(specs), len(specs), steps, steps), names, [f"{name}_status" for name in MEASURES])
    items = list(product(spans, spans))
    limits = context.workers.limits()
    plans = [plan(run, specs, kept, len(items), options.block, cells.nbytes, once=once) for once in (True, False)]
    once = plans[0].fits(limits)
    context.admit(plans[0] if once else plans[1])
    state = State(run, specs, kept, options, lost)
    if once:
        with context.stage(state) as stage:
            state = replace(state, read=[*context.each(stage.map(_features, range(len(each))))])
    with context.stage(state) as stage:
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


def plan(
    run: Run, specs: list[ArraySpec], kept: NDArray[np.intp], pairs: int, block: int, result: int, *, once: bool
) -> Plan:
    """Return what all pairs will need, where features are read ``once`` and kept, or by each of the tasks of pairs."""
    widths, count = [*map(variables, specs)], len(specs) * run.checkpoints
    spans, features = -(-count // block), 8 * len(kept) * run.checkpoints * sum(widths)
    # Features, directions and their lengths; distances, ranks, neighbours.
    one = 8 * len(kept) * (3 * max(widths) + 4 * len(kept))
    whole = [run.schema.block_slice(b) for b in np.unique(kept // run.schema.shard_samples).tolist()]
    rows = sum(samples.stop - samples.start for samples in whole)  # a shard is read whole
    reads = run.checkpoints * rows * sum(spec.itemsize * prod(spec.shape[1:]) for spec in specs)
    return Plan(
        f"{count:,} x {count:,} pairs of layers and checkpoints, {len(kept):,} probes",
        tasks=pairs + (count if once else 0),
        # Of two spans that differ both are read, of a span with itself one.
        reads=reads if once else (2 * spans - 1) * reads,
        task={"representations": min(2 * block, count) * one, "blocks": block_bytes(run, specs)},
        state={"features": features if once else 0},
        result={"cells": result},
    )


def _block(state: State, item: tuple[range, range]) -> dict[tuple[int, int], Found]:
    """Return what is found of every pair of one of the first and one of the second representations."""
    rows, columns = item
    ready = {i: _ready(state, i) for i in sorted({*rows, *columns})}
    return {(a, b): compared(ready[a], ready[b]) for a in rows for b in columns}


def _ready(state: State, i: int) -> Ready:
    c, t = divmod(i, state.run.checkpoints)
    x = _features(state, i) if state.read is None else state.read[i]
    spec, flaw = state.specs[c], VANISHED if state.lost[c, t] else ""
    flaw = flaw or vectors_rounded_away(spec, x, averaged=True)
    return Ready.of(x, state.options.seed, roundoff(spec.dtype), flaw)


def _features(state: State, i: int) -> Features:
    """Read one representation ``(n, p)``."""
    c, t = divmod(i, state.run.checkpoints)
    return chosen_vectors(state.run, state.specs[c].path, t, state.kept)
