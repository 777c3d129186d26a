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
    items, cells, draws = list(product(*map(range, shape))), np.empty(shape, dtype=object), np.zeros(shape, np.int64)
    with context.stage((run, specs, kept, options)) as stage:
        for item, (cell, count) in zip(items, context.each(stage.map(_cell, items)), strict=True):
            cells[item], draws[item] = cell, count
    coords = {"test": np.array(list(FAMILY), dtype=object), "k": list(SHARES), **layer_coords(run, specs, sets)}
    found = {**stacked(options.of, cells, DIMS), f"{options.of}_draws": (DIMS, draws)}
    return xr.Dataset(found, coords).assign_attrs(center="estimated")


def plan(run: Run, specs: list[ArraySpec], kept: list[NDArray[np.intp]]) -> Plan:
    """Return what the tests of these arrays will need."""
    rows, widest = max(map(len, kept)), max(spec.sample_bytes // spec.itemsize for spec in specs)
    cells = len(specs) * len(kept) * run.checkpoints
    return Plan(
        f"{len(specs)} layers x {len(kept)} sets of up to {rows} probes x {run.checkpoints} checkpoints",
        tasks=cells,
        reads=run.checkpoints * sum(map(len, kept)) * sum(spec.sample_bytes for spec in specs),
        task={"draws": 8 * rows * widest} | bytes_of_tests(rows, widest),
        result={"results": 1024 * cells},
    )


def _cell(state: State, item: tuple[int, ...]) -> tuple[Cell, int]:
    """Return what is found for one layer, set and checkpoint, and of how many draws."""
    run, specs, kept, options = state
    c, s, t = item
    order = np.random.default_rng(options.seed).permutation(len(kept[s]))  # neighbours in a store may be of one class
    draws = _draws(run, specs[c], t, kept[s])[order]
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
