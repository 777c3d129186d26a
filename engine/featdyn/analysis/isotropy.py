"""Is the noise of SGD isotropic, along which directions does it lie, and does drift follow them?

Tests, spectra and nulls are those of :mod:`featdyn.statistics`; which ones decide is our own choice (feature dynamics,
section 3): the tests of arXiv 2509.20334 were not found.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.grams import of
from featdyn.analysis.options import IsotropyOptions
from featdyn.compute import SERIAL, Plan, Workers, same
from featdyn.errors import FeatdynError
from featdyn.statistics import Gram
from featdyn.statistics import isotropy as test_isotropy
from featdyn.statistics.alignment import (
    drift_share,
    effective_rank,
    explained_shares,
    participation_ratio,
    split_halves,
    stable_rank,
)
from featdyn.statistics.family import FAMILY
from featdyn.statistics.multiplicity import benjamini_hochberg, holm
from featdyn.statistics.result import Center
from featdyn.statistics.wishart import KEPT, SIZES
from featdyn.store import Run
from featdyn.validation import validate

SHARES = (1, 5, 10)
SQUARES = 20
"""So many matrices of draws x draws are held by the tests of one Gram matrix, at most."""
SPACES = ("parameter", "feature", "control")
"""Noise of the parameters before a cut; what it moves features by; what isotropic noise of its norm moves them by."""


def isotropy(
    run: Run, *, progress: Callable[[int, int], None] | None = None, workers: Workers = SERIAL, **options: Any
) -> xr.Dataset:
    """Test the newest noise sample of a run.

    Parameters
    ----------
    run
        With a result of ``noise``.
    progress
        Called with (Gram matrices done, in all).
    workers
        As for :func:`featdyn.analysis.consistency.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.IsotropyOptions`.

    Returns
    -------
    xarray.Dataset
        For each space of :data:`SPACES`, over (cut, t) for parameters and (cut, t, probe) for features and control:
        ``<space>_statistic`` and ``_pvalue (test, ...)``, NaN where n and p do not allow the test; ``_valid``;
        ``_holm`` and ``_benjamini_hochberg``, p-values adjusted over all checkpoints, cuts and probes of a test;
        ``_verdict`` ("isotropic", "anisotropic", "undecided") and ``_directions``, how many stand out (-1: too many);
        ``_participation_ratio`` (unbiased), ``_effective_rank`` (of the covariance), ``_stable_rank``; ``_share``,
        ``_share_isotropic`` and ``_share_isotropic_high (k, ...)``: variance along the k largest directions, and its
        mean and 95 % quantile for isotropic noise with the lengths of the draws; ``_held_out``, ``_held_out_isotropic``
        and ``_held_out_isotropic_high (k, ...)``: the same for half of the draws along the directions of the other
        half, and ``_half_overlap (k, ...)`` of both halves' directions. For parameters and features ``_drift_share (k,
        ...)``: what part of the squared drift to the next sampled checkpoint lies along these directions,
        ``_drift_share_random``, k/p, and ``_drift_pvalue`` against a uniformly random subspace (a Beta law),
        ``_drift_share_halves``: along the directions of half of the draws. ``curvature_ratio (cut, t)``: mean curvature
        along the noise over that along random directions, if it was sampled.

    Raises
    ------
    FeatdynError
        There is no noise sample yet.
    """
    chosen = validate(IsotropyOptions, options, "isotropy")
    if not run.results("noise"):
        raise FeatdynError(f"{run.path}: no noise was sampled yet; run: featdyn analyze {run.path} noise")
    sample = run.result("noise")
    center: Center = "known" if sample.attrs["center"] == "known" else "estimated"
    small = sample[[name for name in sample.data_vars if not str(name).startswith(("directions_", "draws_"))]].load()
    shapes = {space: tuple(small.sizes[dim] for dim in _outer(space)) for space in SPACES if f"{space}_p" in sample}
    items = [(space, index) for space, shape in shapes.items() for index in product(*map(range, shape))]
    state = small, center, chosen
    workers.admit(plan(small, len(items)))
    cells = {space: np.empty(shape, dtype=object) for space, shape in shapes.items()}
    with workers.stage(state, partial(same, state)) as stage:
        for done, found in enumerate(stage.map(_cell, items), 1):
            space, index = items[done - 1]
            cells[space][index] = found
            if progress:
                progress(done, len(items))
    values: dict[str, Any] = {}
    for space, of_space in cells.items():
        values |= stacked(space, of_space, _outer(space))
    if "noise_curvature" in small:
        means = [small[f"{kind}_curvature"].mean("draw") for kind in ("noise", "isotropic")]
        values["curvature_ratio"] = means[0] / means[1]
    coords = {"test": np.array(list(FAMILY), dtype=object), "k": list(SHARES)}
    own = {name: small[name] for name in ("cut", "t", "step", "probe") if name in small.coords}
    return xr.Dataset(values, coords | own).assign_attrs(
        options=chosen.model_dump(mode="json"), sampled=sample.attrs["options"], center=center
    )


def _outer(space: str) -> tuple[str, ...]:
    return ("cut", "t") if space == "parameter" else ("cut", "t", "probe")


def plan(small: xr.Dataset, cells: int) -> Plan:
    """Return what the tests of so many Gram matrices will need."""
    draws = small.sizes["draw"]
    return Plan(
        f"{cells:,} Gram matrices of {draws} draws",
        tasks=cells,
        reads=small.nbytes,
        task=test_bytes(draws),
        state={"Gram matrices": small.nbytes},
        result={"results": 1024 * cells},
    )


def test_bytes(draws: int) -> dict[str, int]:
    """Return the bytes that :func:`tested` holds, by what they are for."""
    return {"matrices": SQUARES * 8 * draws**2, "random directions": SIZES * KEPT}


def _cell(state: tuple[xr.Dataset, Center, IsotropyOptions], item: tuple[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return what is found for one Gram matrix: name to a number, or to an array over tests or k."""
    small, center, options = state
    space, index = item
    cell = small.isel(dict(zip(_outer(space), index, strict=True)))
    gram = of(cell, space)
    found = tested(gram, center, options.alpha, options.seed)
    if space != "control":
        prefix = "drift" if space == "parameter" else "feature_drift"
        dots, square = cell[f"{prefix}_dot"].values, float(cell[f"{prefix}_square"])
        drift = drift_share(gram, dots, square, SHARES, rng=options.seed)
        found |= {"drift_share": drift.share, "drift_share_random": drift.random, "drift_pvalue": drift.pvalue}
        found["drift_share_halves"] = drift.halves.mean(axis=0)
    return found


def tested(gram: Gram, center: Center, alpha: float, seed: int) -> dict[str, Any]:
    """Return tests, verdict and spectrum of one Gram matrix: name to a number, or to an array over tests or k."""
    found = test_isotropy(gram, center=center, rng=seed, alpha=alpha)
    results = [entry.result for entry in found.tests]
    shares = explained_shares(gram, [min(k, gram.p) for k in SHARES], center=center, rng=seed)
    halves = split_halves(gram, SHARES, center=center, rng=seed)
    return {
        "statistic": np.array([np.nan if r is None else r.statistic for r in results]),
        "pvalue": np.array([np.nan if r is None else r.pvalue for r in results]),
        "valid": np.array([entry.valid for entry in found.tests]),
        "verdict": found.verdict,
        "directions": -1 if found.directions is None else found.directions,
        "participation_ratio": participation_ratio(gram, center=center, unbiased=True),
        "effective_rank": effective_rank(gram, center=center, of="covariance"),
        "stable_rank": stable_rank(gram, center=center),
        "share": shares.share,
        "share_isotropic": shares.baseline,
        "share_isotropic_high": shares.baseline_high,
        "half_overlap": halves.overlap,
        "held_out": halves.held_out,
        "held_out_isotropic": halves.random,
        "held_out_isotropic_high": halves.held_out_high,
    }


def untested() -> dict[str, Any]:
    """Return what :func:`tested` would of draws that cannot be tested."""
    tests, ks, none = np.full(len(FAMILY), np.nan), np.full(len(SHARES), np.nan), np.nan
    return {
        "statistic": tests,
        "pvalue": tests,
        "valid": np.zeros(len(FAMILY), bool),
        "verdict": "undecided",
        "directions": -1,
        **dict.fromkeys(("participation_ratio", "effective_rank", "stable_rank"), none),
        **dict.fromkeys(("share", "share_isotropic", "share_isotropic_high", "half_overlap"), ks),
        **dict.fromkeys(("held_out", "held_out_isotropic", "held_out_isotropic_high"), ks),
    }


def stacked(space: str, cells: NDArray[Any], outer: tuple[str, ...]) -> dict[str, Any]:
    """Return arrays over tests or k and the cells, with p-values adjusted over all cells of a test."""
    found: dict[str, Any] = {}
    flat = cells.ravel()
    for name, first in flat[0].items():
        stack = np.stack([np.asarray(cell[name]) for cell in flat], axis=-1)
        if isinstance(first, str):
            stack = stack.astype(object)
        inner = () if stack.ndim == 1 else ("test",) if len(stack) == len(FAMILY) else ("k",)
        found[f"{space}_{name}"] = (*inner, *outer), stack.reshape(*stack.shape[:-1], *cells.shape)
        if name == "pvalue":
            for adjust in (holm, benjamini_hochberg):
                adjusted = np.stack([adjust(of_test) for of_test in stack])
                found[f"{space}_{adjust.__name__}"] = ("test", *outer), adjusted.reshape(len(stack), *cells.shape)
    return found
