"""Are a layer's gradients, or its features, isotropic over the probes, and along how many directions do they lie?"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.context import Context
from featdyn.analysis.features.layer_isotropy import LayerIsotropyOptions
from featdyn.analysis.inputs.positions import mean_of_real, padding_of
from featdyn.analysis.inputs.recorded_arrays import layer_coords, recorded
from featdyn.analysis.inputs.rounded_away import vectors_rounded_away
from featdyn.analysis.isotropy_cells import LEAST, Cell, bytes_of_tests, stacked, tested
from featdyn.analysis.isotropy_variables import SHARES
from featdyn.analysis.status import FEW, NOT_FINITE
from featdyn.compute import Plan
from featdyn.statistics import Gram
from featdyn.statistics.family import FAMILY
from featdyn.store import ArraySpec, Run

DIMS = ("layer", "set", "t")
SMALLEST = 1e-6
"""A draw shorter than this share of the longest has lost its direction to rounding, and is left out: our own choice."""

State: TypeAlias = tuple[Run, list[ArraySpec], list[NDArray[np.intp]], LayerIsotropyOptions]


def layer_isotropy(context: Context[LayerIsotropyOptions]) -> xr.Dataset:
    """Test what was recorded of every layer, at every checkpoint and for every set of probes."""
    run, sets, options = context.run, context.sets, context.options
    specs = recorded(run, options.layers, options.of)
    kept = sets.choose(run, options.samples, options.seed, per_origin=True)
    context.admit(plan(run, specs, kept))
    shape = len(specs), len(kept), run.checkpoints
    items, cells, draws = list(product(range(shape[0]), range(shape[2]))), np.empty(shape, object), np.zeros(shape, int)
    with context.stage((run, specs, kept, options)) as stage:
        for (c, t), of_sets in zip(items, context.each(stage.map(_cells, items)), strict=True):
            for s, (cell, count) in enumerate(of_sets):
                cells[c, s, t], draws[c, s, t] = cell, count
    coords = {"test": np.array(list(FAMILY), dtype=object), "k": list(SHARES), **layer_coords(run, specs, sets)}
    variables = {**stacked(options.of, cells, DIMS), f"{options.of}_draws": (DIMS, draws)}
    return xr.Dataset(variables, coords).assign_attrs(center="estimated")


def plan(run: Run, specs: list[ArraySpec], kept: list[NDArray[np.intp]]) -> Plan:
    """Return what the tests of these arrays will need."""
    rows, widest = max(map(len, kept)), max(spec.sample_bytes // spec.itemsize for spec in specs)
    tasks, whole = len(specs) * run.checkpoints, sum(map(len, kept))
    return Plan(
        f"{len(specs)} layers x {len(kept)} sets of up to {rows} probes x {run.checkpoints} checkpoints",
        tasks=tasks,
        reads=run.checkpoints * whole * sum(spec.sample_bytes for spec in specs),
        task={"draws": 4 * (whole + 2 * rows) * widest} | bytes_of_tests(rows, widest),
        result={"results": 1024 * tasks * len(kept)},
    )


def _cells(state: State, item: tuple[int, int]) -> list[tuple[Cell, int]]:
    """Return what is found for each set of one layer and checkpoint, and of how many draws.

    A block is read once, as it may hold probes of every set.
    """
    run, specs, kept, options = state
    c, t = item
    draws = _draws(run, specs[c], t, np.concatenate(kept))
    each = np.split(draws, np.cumsum([len(mine) for mine in kept])[:-1])
    averaged, found = padding_of(run, specs[c]) is not None, []
    for of_set in each:
        flaw = vectors_rounded_away(specs[c], of_set, averaged=averaged)
        found.append(((flaw, {}), len(of_set)) if flaw else _cell(of_set, options))
    return found


def _cell(draws: NDArray[np.float32], options: LayerIsotropyOptions) -> tuple[Cell, int]:
    """Return what is found for draws, and how many there are."""
    draws = draws[np.random.default_rng(options.seed).permutation(len(draws))]  # neighbours may be of one class
    if not np.isfinite(draws).all():
        return (NOT_FINITE, {}), len(draws)
    length = np.linalg.norm(draws.astype(np.float64), axis=1)
    draws = draws[length > SMALLEST * length.max()] if length.max() > 0 else draws
    if len(draws) < LEAST:
        return (FEW, {}), len(draws)
    return tested(Gram.of(draws), "estimated", options.alpha, options.seed), len(draws)


def _draws(run: Run, spec: ArraySpec, t: int, kept: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return what was recorded of some probes, ``(n, p)``; of positions without padding the mean."""
    size, mask = run.schema.shard_samples, padding_of(run, spec)
    found = np.empty((len(kept), prod(spec.shape[1 if mask is None else 2 :])), np.float32)
    for block in np.unique(kept // size).tolist():
        mine = kept // size == block
        values = run.block(spec.path, t, block, stored=True)[kept[mine] - block * size]
        if mask is not None:
            values = mean_of_real(values, mask[kept[mine]])
        found[mine] = values.reshape(len(values), -1)
    return found
