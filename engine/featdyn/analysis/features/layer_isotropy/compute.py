"""Are a layer's gradients, or its features, isotropic over the probes, and along how many directions do they lie?

The tests are those of :mod:`featdyn.analysis.gradient_noise.isotropy.compute`, here on what was recorded, so that neither training data nor
the network are needed. That each probe is a draw, the gradient of its own loss at the layer's output, is our own
choice, and so is :data:`SMALLEST`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.gradient_noise.isotropy.compute import SHARES, stacked, test_bytes, tested, untested
from featdyn.analysis.inputs.probe_sets import ProbeSets, spread
from featdyn.analysis.inputs.recorded_arrays import layer_coords, recorded
from featdyn.analysis.options import LayerIsotropyOptions
from featdyn.compute import SERIAL, Plan, Workers, same
from featdyn.errors import FeatdynError
from featdyn.statistics import Gram, group_means
from featdyn.statistics.family import FAMILY
from featdyn.store import ArraySpec, Run
from featdyn.validation import validate

DIMS = ("layer", "set", "t")
LEAST = 4
"""Draws below which there is nothing to test."""
SMALLEST = 1e-6
"""A draw shorter than this share of the longest has lost its direction to rounding, and is left out."""

State: TypeAlias = tuple[Run, list[ArraySpec], list[NDArray[np.intp]], LayerIsotropyOptions]


def layer_isotropy(
    run: Run, *, progress: Callable[[int, int], None] | None = None, workers: Workers = SERIAL, **options: Any
) -> xr.Dataset:
    """Test what was recorded of every layer, at every checkpoint and for every set of probes.

    Parameters
    ----------
    run, progress, workers
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`; no network is needed.
    **options
        Fields of :class:`featdyn.analysis.options.LayerIsotropyOptions`.

    Returns
    -------
    xarray.Dataset
        Over (layer, set, t), with names as in :func:`featdyn.analysis.gradient_noise.isotropy.compute.isotropy` after the array's:
        ``gradient_statistic``, ``_pvalue``, ``_holm``, ``_benjamini_hochberg`` and ``_valid (test, ...)``,
        ``_verdict``, ``_directions``, ``_participation_ratio``, ``_effective_rank``, ``_stable_rank``, ``_share``,
        ``_share_isotropic`` and ``_share_isotropic_high``, ``_held_out``, ``_held_out_isotropic``,
        ``_held_out_isotropic_high`` and ``_half_overlap (k, ...)``; and ``_draws``, how many were draws: probes in a
        random order, those of one ``origin`` as one draw, their mean.
        "undecided" and NaN where they are too few or do not vary.

    Raises
    ------
    FeatdynError
        Nothing of that kind was recorded, or a set has fewer than four probes.
    """
    chosen = validate(LayerIsotropyOptions, options, "layer_isotropy")
    specs, sets = recorded(run, chosen.layers, chosen.of), ProbeSets.of(run)
    kept = spread(run, sets, chosen.samples)
    few = [name for name, mine in zip(sets.names, kept, strict=True) if len(mine) < LEAST]
    if few:
        raise FeatdynError(f"{run.path}: {few[0]} has fewer than {LEAST} probes, too few to test")
    workers.admit(plan(run, specs, kept))
    items = list(product(range(len(specs)), range(len(kept)), range(run.checkpoints)))
    cells = np.empty((len(specs), len(kept), run.checkpoints), dtype=object)
    state = run, specs, kept, chosen
    with workers.stage(state, partial(same, state)) as stage:
        for done, found in enumerate(stage.map(_cell, items), 1):
            cells[items[done - 1]] = found
            if progress:
                progress(done, len(items))
    coords = {"test": np.array(list(FAMILY), dtype=object), "k": list(SHARES), **layer_coords(run, specs, sets)}
    result = xr.Dataset(stacked(chosen.of, cells, DIMS), coords)
    return result.assign_attrs(options=chosen.model_dump(mode="json"), center="estimated")


def plan(run: Run, specs: list[ArraySpec], kept: list[NDArray[np.intp]]) -> Plan:
    """Return what the tests of these arrays will need."""
    rows, widest = max(map(len, kept)), max(spec.sample_bytes // spec.itemsize for spec in specs)
    cells = len(specs) * len(kept) * run.checkpoints
    return Plan(
        f"{len(specs)} layers x {len(kept)} sets of up to {rows} probes x {run.checkpoints} checkpoints",
        tasks=cells,
        reads=run.checkpoints * sum(map(len, kept)) * sum(spec.sample_bytes for spec in specs),
        task={"draws": 8 * rows * widest} | test_bytes(rows),
        result={"results": 1024 * cells},
    )


def _cell(state: State, item: tuple[int, int, int]) -> dict[str, Any]:
    run, specs, kept, options = state
    c, s, t = item
    order = np.random.default_rng(options.seed).permutation(kept[s])  # neighbours in a store may be of one class
    draws = _draws(run, specs[c], t, order)
    if "origin" in run.coords:
        draws = group_means(draws, run.coords["origin"].values[order])
    length = np.linalg.norm(draws, axis=1)
    draws = draws[length > SMALLEST * length.max()]
    try:
        found = tested(Gram.of(draws), "estimated", options.alpha, options.seed)
    except ValueError:  # too few, or all the same
        found = untested()
    return found | {"draws": len(draws)}


def _draws(run: Run, spec: ArraySpec, t: int, kept: NDArray[np.intp]) -> NDArray[np.floating]:
    """Return what was recorded of some probes, ``(n, p)``; gradients stay scaled, which no test sees."""
    size = run.schema.shard_samples
    found = np.empty((len(kept), spec.sample_bytes // spec.itemsize), np.float32)
    for block in np.unique(kept // size).tolist():
        mine = kept // size == block
        values = run.block(spec.path, t, block, stored=True)[kept[mine] - block * size]
        found[mine] = values.reshape(len(values), -1)
    return found
