"""Spectra of the covariance of features, layer by layer and checkpoint by checkpoint."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.context import Context
from featdyn.analysis.features.spectra import SpectraOptions
from featdyn.analysis.inputs.positions import padding_of
from featdyn.analysis.inputs.recorded_arrays import VANISHED, is_maps, layer_coords, recorded, vanished, variables
from featdyn.analysis.inputs.rounded_away import rounded_away
from featdyn.analysis.status import DEAD, FEW, NOT_FINITE, Status
from featdyn.compute import Plan
from featdyn.statistics.alignment.spectrum import entropy_rank
from featdyn.store import ArraySpec, Run
from featdyn_kernels.eigh import eigvalsh
from featdyn_kernels.moments import Moments, accumulate

DIMS = ("layer", "set", "t")
POWERS = {"eigenvalue": 2, "variance": 2, "mean_norm": 1}
"""How what is measured follows the scale of the values; else not at all."""
AHEAD = 4
"""Blocks that are read ahead."""
COPIES = 3
"""A task holds so many copies of a block: as it was stored, one set's, and with its variables last."""

Values: TypeAlias = NDArray[np.float64]
Total: TypeAlias = list[Moments | None]  # of each set; None where a block has none of its probes


def spectra(context: Context[SpectraOptions]) -> xr.Dataset:
    """Decompose the covariance of every recorded layer's features, in one pass over the store."""
    run, sets, options = context.run, context.sets, context.options
    specs = recorded(run, options.layers, options.of)
    widths = [variables(spec) for spec in specs]
    context.admit(plan(run, specs, sets.sizes))
    groups = [[(c, t, b) for b in range(run.schema.blocks)] for c in range(len(specs)) for t in range(run.checkpoints)]
    shape = len(specs), len(sets.names), run.checkpoints
    found: dict[str, NDArray[Any]] = {}
    lost = [vanished(run, spec) for spec in specs]
    counts, status = np.zeros(shape[:2], np.int64), Status(DIMS, shape)
    masks = [padding_of(run, spec) for spec in specs]
    with context.stage((run, specs, sets.members, masks)) as stage:
        for group, of_sets in zip(groups, context.each(stage.fold(_moments, groups, _merged, _spectra)), strict=True):
            c, t, _ = group[0]
            for s, (count, values, mean, variances) in enumerate(of_sets):
                counts[c, s] = count
                why = VANISHED if lost[c][t, sets.members[s]].mean() > 0.5 else ""
                if why := why or (rounded_away(specs[c], mean, variances, averaged=False) if count > 1 else ""):
                    status.mark(why, (c, s, t))
                    values = {name: np.full_like(value, np.nan) for name, value in values.items()}
                elif np.isnan(values["stable_rank"]):
                    reason = DEAD if np.isfinite(values["variance"]) else NOT_FINITE
                    status.mark(reason if count > 1 else FEW, (c, s, t))
                scale = specs[c].attrs.get("scale_factor", 1.0)  # blocks were read as stored
                for name, value in values.items():
                    value = value * scale ** POWERS.get(name, 0)
                    wide = () if value.ndim == 0 else (max(widths),)
                    array = found.setdefault(name, np.full((*shape, *wide), np.nan))
                    array[(c, s, t, slice(len(value))) if wide else (c, s, t)] = value
    result = xr.Dataset({name: ((*DIMS, "rank")[: array.ndim], array) for name, array in found.items()})
    coords = {**layer_coords(run, specs, sets), "width": ("layer", widths), "observations": (("layer", "set"), counts)}
    return result.assign(status=status.variable()).assign_coords(coords)


def plan(run: Run, specs: list[ArraySpec], sizes: list[int]) -> Plan:
    """Return what one pass over these arrays will need, of sets with so many probes."""
    block = min(run.schema.shard_samples, run.schema.samples)
    copies = COPIES + any(padding_of(run, spec) is not None for spec in specs)  # and one without padding
    square = 8 * max(variables(spec) for spec in specs) ** 2
    return Plan(
        f"{len(specs)} layers x {run.checkpoints} checkpoints x {sum(sizes):,} probes",
        tasks=len(specs) * run.checkpoints,  # or more, smaller ones, where these are few
        reads=run.checkpoints * sum(spec.nbytes for spec in specs),
        task={
            "blocks": copies * block * max(spec.sample_bytes for spec in specs),
            # Those of a block, and as many levels of sums as a tree has that wait for their other half.
            "moments": square * len(sizes) * (2 + run.schema.blocks.bit_length()),
        },
        result={"spectra": 8 * len(specs) * len(sizes) * run.checkpoints * max(variables(spec) for spec in specs)},
    )


State: TypeAlias = tuple[Run, list[ArraySpec], list[NDArray[np.bool_]], list[NDArray[np.bool_] | None]]


def _moments(state: State, item: tuple[int, int, int]) -> Total:
    """Return the moments of each set's probes in one block."""
    run, specs, members, masks = state
    c, t, block = item
    mask = masks[c]
    for later in range(1, AHEAD + 1) if block == 0 else (AHEAD,):
        if block + later < run.schema.blocks:  # the next checkpoint is some other thread's
            run.announce(specs[c].path, t, block + later)
    values = run.block(specs[c].path, t, block, stored=True)
    samples = run.schema.block_slice(block)
    found: Total = []
    for member in members:
        mine = member[samples]
        if not mine.any():
            found.append(None)
            continue
        own = values if mine.all() else values[mine]
        if mask is not None:
            own = own[mask[samples][mine]]  # each position that is no padding is an observation
        shape = (*own.shape[:2], -1) if is_maps(specs[c]) else (-1, own.shape[-1])
        moments = accumulate(own.reshape(shape))
        # Their squares come near the ends of float32.
        if own.size and not 1e-24 < np.trace(moments.scatter) / moments.count < 1e24:
            moments = accumulate(own.reshape(shape).astype(np.float64))
        found.append(moments)
    return found


def _merged(a: Total, b: Total) -> Total:
    return [y if x is None else x if y is None else x + y for x, y in zip(a, b, strict=True)]


def _spectra(state: State, total: Total) -> list[tuple[int, dict[str, Values], Values, Values]]:
    """Return for each set how many observations it has, what their covariance shows, and means and variances."""
    found = []
    for moments in total:
        assert moments is not None  # every set has a probe, and every probe a block
        covariance, mean_norm = moments.covariance(), np.linalg.norm(moments.mean)
        finite = bool(np.isfinite(covariance).all())
        values = np.maximum(np.asarray(eigvalsh(covariance))[::-1], 0.0) if finite else np.full(len(covariance), np.nan)
        sum_, largest = values.sum(), values[0]
        varies = bool(largest > (np.finfo(np.float32).eps * mean_norm) ** 2)  # else rounding is all that there is
        with np.errstate(invalid="ignore", divide="ignore"):
            summary = {
                "eigenvalue": values,
                "variance": sum_,
                "mean_norm": mean_norm,
                "effective_rank": entropy_rank(values) if varies else np.nan,
                "participation_ratio": sum_**2 / (values**2).sum() if varies else np.nan,
                "stable_rank": sum_ / largest if varies else np.nan,
            }
        numbers = {name: np.asarray(value, np.float64) for name, value in summary.items()}
        found.append((moments.count, numbers, np.asarray(moments.mean), covariance.diagonal().copy()))
    return found
