"""Is the noise of SGD isotropic, along which directions does it lie, and does drift follow them?

``parameter``: noise of the parameters before a cut; ``feature``: what it moves features by; ``control``: what isotropic
noise of its length moves them by.
"""

from __future__ import annotations

from itertools import product
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.context import Context
from featdyn.analysis.gradient_noise.gram_arrays import of
from featdyn.analysis.gradient_noise.isotropy import IsotropyOptions
from featdyn.analysis.isotropy_cells import Cell, bytes_of_tests, stacked, tested, untestable
from featdyn.analysis.isotropy_variables import DRIFT, SHARES, TESTED
from featdyn.analysis.status import NO_LATER, STILL, Status
from featdyn.compute import Plan
from featdyn.statistics import Gram
from featdyn.statistics.alignment import DriftShare, drift_share
from featdyn.statistics.family import FAMILY
from featdyn.statistics.result import Center

SPACES = {"parameter": "permuted", "feature": "permuted_feature", "control": ""}
"""Names of draws, and of those with permuted labels."""
OF_DRIFT = {name.removeprefix("drift_"): of for name, of in DRIFT.items()}
NOT_SAMPLED = "permuted_labels_were_not_sampled"
FLAT = "loss_is_flat_along_random_directions"

State: TypeAlias = tuple[xr.Dataset, Center, IsotropyOptions]


def noise_isotropy(context: Context[IsotropyOptions]) -> xr.Dataset:
    """Test the newest noise sample of a run."""
    sample = context.run.result("noise")
    center: Center = "known" if sample.attrs["center"] == "known" else "estimated"
    small = sample[[name for name in sample.data_vars if not str(name).startswith(("directions_", "draws_"))]].load()
    shapes = {space: tuple(small.sizes[dim] for dim in _dims(space)) for space in SPACES if f"{space}_p" in small}
    items = [(space, index) for space, shape in shapes.items() for index in product(*map(range, shape))]
    context.admit(plan(small, len(items)))
    cells = {space: np.empty(shape, dtype=[("noise", object), ("drift", object)]) for space, shape in shapes.items()}
    with context.stage((small, center, context.options)) as stage:
        for (space, index), found in zip(items, context.each(stage.map(_cell, items)), strict=True):
            cells[space][index] = found
    values: dict[str, Any] = {}
    for space, of_space in cells.items():
        values |= stacked(space, of_space["noise"], _dims(space), TESTED)
        if SPACES[space]:
            values |= stacked(f"{space}_drift", of_space["drift"], _dims(space), OF_DRIFT)
            values[f"{space}_drift_permuted_status"] = _why_not_permuted(of_space["drift"], _dims(space))
    if "noise_curvature" in small:
        along, random = (small[f"{kind}_curvature"].mean("draw") for kind in ("noise", "isotropic"))
        values["curvature_ratio"] = along / random.where(random != 0)
        status = Status(("cut", "t"), random.shape).mark(STILL, along.isnull().values).mark(FLAT, (random == 0).values)
        values["curvature_ratio_status"] = status.variable()
    coords = {"test": np.array(list(FAMILY), dtype=object), "k": list(SHARES)}
    own = {name: small[name] for name in ("cut", "t", "step", "rate", "probe") if name in small.coords}
    said = {name: sample.attrs[name] for name in ("center_because",) if name in sample.attrs}
    return xr.Dataset(values, coords | own).assign_attrs(sampled=sample.attrs["options"], center=center, **said)


def _why_not_permuted(cells: NDArray[Any], dims: tuple[str, ...]) -> xr.Variable:
    """Return why drift has no share along permuted labels: as it has none at all, or these draws tell nothing."""
    status = Status(dims, cells.shape)
    for place in np.ndindex(cells.shape):
        reason, found = cells[place]
        if why := reason or found["permuted"]:
            status.mark(why, place)
    return status.variable()


def _dims(space: str) -> tuple[str, ...]:
    return ("cut", "t") if space == "parameter" else ("cut", "t", "probe")


def plan(small: xr.Dataset, cells: int) -> Plan:
    """Return what the tests of so many Gram matrices will need."""
    draws = small.sizes["draw"]
    return Plan(
        f"{cells:,} Gram matrices of {draws} draws",
        tasks=cells,
        reads=small.nbytes,
        task=bytes_of_tests(draws, draws),
        state={"Gram matrices": small.nbytes},
        result={"results": 1024 * cells},
    )


def _cell(state: State, item: tuple[str, tuple[int, ...]]) -> tuple[Cell, Cell]:
    """Return what is found for the draws of one cell, and for the drift along them."""
    small, center, options = state
    space, index = item
    cell = small.isel(dict(zip(_dims(space), index, strict=True)))
    gram = of(cell, space)
    return tested(gram, center, options.alpha, options.seed), _drift(cell, space, gram, options.seed)


def _drift(cell: xr.Dataset, space: str, gram: Gram, seed: int) -> Cell:
    """Return which part of the drift lies along the noise, and along draws with permuted labels."""
    if not SPACES[space]:
        return "", {}
    prefix, other = "feature_" if space == "feature" else "", SPACES[space]
    square = float(cell[f"{prefix}drift_square"])
    reason = untestable(gram, "estimated") or (NO_LATER if np.isnan(square) else STILL if square == 0 else "")
    if reason:
        return reason, {}
    own = _along(gram, cell[f"{prefix}drift_dot"], square, seed)
    found: dict[str, Any] = {
        "share": own.share,
        "share_random": own.random,
        "pvalue": own.pvalue,
        "share_halves": own.halves.mean(0),
    }
    found["permuted"] = untestable(of(cell, other), "estimated") if f"{other}_p" in cell else NOT_SAMPLED
    if not found["permuted"]:
        beside = _along(of(cell, other), cell[f"permuted_{prefix}drift_dot"], square, seed)
        found |= {"share_permuted": beside.share, "share_permuted_halves": beside.halves.mean(0)}
    return "", found


def _along(gram: Gram, dots: xr.DataArray, square: float, seed: int) -> DriftShare:
    return drift_share(gram, dots.values, square, SHARES, rng=seed)
