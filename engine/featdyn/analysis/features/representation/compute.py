"""Spectrum, sparsity, dimension, class manifolds and margins of some probes of each set at every recorded layer."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.cells import Cells
from featdyn.analysis.context import Context
from featdyn.analysis.features.representation import GROUPS, RepresentationOptions
from featdyn.analysis.features.representation.capacity import CAPACITY
from featdyn.analysis.features.representation.capacity import STATUSES as OF_CAPACITY
from featdyn.analysis.features.representation.cell import MARGINS, State, cell
from featdyn.analysis.inputs.layer_vectors import block_bytes
from featdyn.analysis.inputs.recorded_arrays import VANISHED, layer_coords, recorded, vanished, variables
from featdyn.compute import Plan
from featdyn.statistics.representation.dimension import PIECE
from featdyn.store import ArraySpec, Run

DIMS = ("layer", "set", "t")
MARGIN = ("margin", "margin_low", "margin_high", "margin_positive")
NEIGHBOURS, SQUARES = 30, 12
"""So many float64 matrices of chosen probes are held by the fit of a linear probe or the search for neighbours."""
COPIES = 5
"""And so many times their features."""


def representation(context: Context[RepresentationOptions]) -> xr.Dataset:
    """Measure some probes of each set, one of each image, at every recorded layer and checkpoint."""
    run, sets, options = context.run, context.sets, context.options
    specs = recorded(run, options.layers, "activation")
    # Copies are near each other, and vary in fewer directions, than that many images.
    kept = sets.choose(run, options.samples, options.seed, per_origin=True)
    shape, widths = (len(specs), len(kept), run.checkpoints), [variables(spec) for spec in specs]
    names = [name for held in GROUPS.values() for name in held]
    more: tuple[tuple[str, ...], tuple[str, ...]] = (CAPACITY, OF_CAPACITY) if options.capacity_draws else ((), ())
    cells = Cells(DIMS, shape, [*names, "duplicates", *MARGIN, *more[0]], [*GROUPS, *MARGINS, *more[1]])
    context.admit(plan(run, specs, kept, cells.nbytes))
    lost, items = [vanished(run, spec) for spec in specs], list(product(range(shape[0]), range(shape[2])))
    with context.stage(State.of(run, specs, sets, kept, options)) as stage:
        for (c, t), found in zip(items, context.each(stage.map(cell, items)), strict=True):
            for s, of_set in enumerate(found):
                if lost[c][t, kept[s]].mean() > 0.5:
                    cells.fail((c, s, t), VANISHED)
                else:
                    cells.put((c, s, t), *of_set)
    coords = {**layer_coords(run, specs, sets), "width": ("layer", widths), "used": ("set", [len(k) for k in kept])}
    return cells.dataset().assign_coords(coords)


def plan(run: Run, specs: list[ArraySpec], kept: list[NDArray[np.intp]], result: int) -> Plan:
    """Return what the chosen probes will need: of all sets together, as linear probes are fitted to one of them."""
    rows, most, widest = sum(map(len, kept)), max(map(len, kept)), max(map(variables, specs))
    return Plan(
        f"{len(specs)} layers x {run.checkpoints} checkpoints, {rows:,} probes of {len(kept)} sets",
        tasks=len(specs) * run.checkpoints,
        reads=run.checkpoints * rows * sum(spec.itemsize * prod(spec.shape[1:]) for spec in specs),
        task={
            "features": 8 * COPIES * rows * widest,
            "matrices": 8 * max(SQUARES * most**2, 2 * min(PIECE, most * NEIGHBOURS * widest)),
            "blocks": block_bytes(run, specs),
        },
        state={"labels": 32 * run.schema.samples},
        result={"cells": result},
    )
