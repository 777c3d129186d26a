"""How many directions do features use, layer by layer and checkpoint by checkpoint? Spectra of their covariance.

The variables are a layer's channels or features; positions and tokens count as observations like probes do, so that a
covariance has a size that fits memory. This is our own choice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.options import SpectraOptions
from featdyn.analysis.recorded import layer_coords, recorded
from featdyn.analysis.sets import Sets
from featdyn.compute import SERIAL, Plan, Workers, same
from featdyn.statistics.alignment.spectrum import entropy_rank
from featdyn.store import ArraySpec, Run
from featdyn.validation import validate
from featdyn_kernels.eigh import eigvalsh
from featdyn_kernels.moments import Moments, accumulate

DIMS = ("layer", "set", "t")
UNITS = {"eigenvalue": 2, "variance": 2, "mean_norm": 1}
"""Powers of the features' unit; gradients are stored scaled."""
AHEAD = 4
"""Blocks that are read ahead."""
COPIES = 3
"""A task holds so many copies of a block: as it was stored, one set's, and with its variables last."""

Total: TypeAlias = list[Moments | None]  # of each set; None where a block has none of its probes


def spectra(
    run: Run,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
    **options: Any,
) -> xr.Dataset:
    """Decompose the covariance of every recorded layer's features, in one pass over the store.

    Parameters
    ----------
    run, progress, workers
        As for :func:`featdyn.analysis.consistency.consistency`; no network is needed.
    **options
        Fields of :class:`featdyn.analysis.options.SpectraOptions`.

    Returns
    -------
    xarray.Dataset
        Over (layer, set, t): ``eigenvalue (layer, set, t, rank)`` of the covariance about the set's mean, largest
        first, NaN beyond a layer's width; ``variance``, their sum; ``mean_norm``, the length of the mean;
        ``effective_rank``, the exponential of the entropy of the spectrum; ``participation_ratio``; ``stable_rank``;
        NaN where nothing varies. Coordinates ``width (layer)``, the number of variables, and ``observations (layer,
        set)``.

    Raises
    ------
    FeatdynError
        No recorded layer matches.
    """
    chosen = validate(SpectraOptions, options, "spectra")
    specs, sets = recorded(run, chosen.layers, chosen.of), Sets.of(run)
    widths = [_width(spec) for spec in specs]
    workers.admit(plan(run, specs, len(sets.names)))
    groups = [[(c, t, b) for b in range(run.schema.blocks)] for c in range(len(specs)) for t in range(run.checkpoints)]
    shape = len(specs), len(sets.names), run.checkpoints
    found: dict[str, NDArray[Any]] = {}
    counts = np.zeros(shape[:2], np.int64)
    state = run, specs, sets.members
    with workers.stage(state, partial(same, state)) as stage:
        for done, of_sets in enumerate(stage.fold(_moments, groups, _merged, _spectra), 1):
            c, t, _ = groups[done - 1][0]
            scale = float(specs[c].attrs.get("scale_factor", 1.0))
            for s, (count, values) in enumerate(of_sets):
                counts[c, s] = count
                for name, value in values.items():
                    size = () if value.ndim == 0 else (max(widths),)
                    array = found.setdefault(name, np.full((*shape, *size), np.nan))
                    array[(c, s, t, slice(len(value))) if size else (c, s, t)] = value * scale ** UNITS.get(name, 0)
            if progress:
                progress(done, len(groups))
    result = xr.Dataset({name: ((*DIMS, "rank")[: array.ndim], array) for name, array in found.items()})
    coords = {
        **layer_coords(run, specs, sets),
        "width": ("layer", widths),
        "observations": (("layer", "set"), counts),
    }
    return result.assign_coords(coords).assign_attrs(options=chosen.model_dump(mode="json"))


def plan(run: Run, specs: list[ArraySpec], sets: int) -> Plan:
    """Return what one pass over these arrays will need."""
    block = min(run.schema.shard_samples, run.schema.samples)
    square = 8 * max(_width(spec) for spec in specs) ** 2
    return Plan(
        f"{len(specs)} layers x {run.checkpoints} checkpoints x {run.schema.samples:,} probes",
        tasks=len(specs) * run.checkpoints,  # or more, smaller ones, where these are few
        reads=run.checkpoints * sum(spec.nbytes for spec in specs),
        task={
            "blocks": COPIES * block * max(spec.sample_bytes for spec in specs),
            # Those of a block, and as many levels of sums as a tree has that wait for their other half.
            "moments": square * sets * (2 + run.schema.blocks.bit_length()),
        },
        result={"spectra": 8 * len(specs) * sets * run.checkpoints * max(_width(spec) for spec in specs)},
    )


def _is_maps(spec: ArraySpec) -> bool:
    """Whether the variables are channels, which come before the positions; else they are the last axis."""
    return "channel" in spec.dims


def _width(spec: ArraySpec) -> int:
    return spec.shape[1 if _is_maps(spec) else -1]


State: TypeAlias = tuple[Run, list[ArraySpec], list[NDArray[np.bool_]]]


def _moments(state: State, item: tuple[int, int, int]) -> Total:
    """Return the moments of each set's probes in one block."""
    run, specs, members = state
    c, t, block = item
    for later in range(1, AHEAD + 1) if block == 0 else (AHEAD,):
        if block + later < run.schema.blocks:  # the next checkpoint is some other thread's
            run.announce(specs[c].path, t, block + later)
    values = run.block(specs[c].path, t, block)
    samples = run.schema.block_slice(block)
    found: Total = []
    for member in members:
        mine = member[samples]
        if not mine.any():
            found.append(None)
            continue
        own = values if mine.all() else values[mine]
        shape = (*own.shape[:2], -1) if _is_maps(specs[c]) else (-1, own.shape[-1])
        found.append(accumulate(own.reshape(shape)))
    return found


def _merged(a: Total, b: Total) -> Total:
    return [y if x is None else x if y is None else x + y for x, y in zip(a, b, strict=True)]


def _spectra(state: State, total: Total) -> list[tuple[int, dict[str, NDArray[np.float64]]]]:
    """Return for each set how many observations it has and what their covariance shows."""
    found = []
    for moments in total:
        assert moments is not None  # every set has a probe, and every probe a block
        covariance = moments.covariance()
        values = np.maximum(np.asarray(eigvalsh(covariance))[::-1], 0.0)
        sum_, largest = values.sum(), values[0]
        varies = bool(largest > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            summary = {
                "eigenvalue": values,
                "variance": sum_,
                "mean_norm": np.linalg.norm(moments.mean),
                "effective_rank": entropy_rank(values) if varies else np.nan,
                "participation_ratio": sum_**2 / (values**2).sum() if varies else np.nan,
                "stable_rank": sum_ / largest if varies else np.nan,
            }
        found.append((moments.count, {name: np.asarray(value, np.float64) for name, value in summary.items()}))
    return found
