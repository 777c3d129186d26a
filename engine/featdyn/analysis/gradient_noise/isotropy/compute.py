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
from scipy import stats

from featdyn.analysis.gradient_noise.gram_arrays import of
from featdyn.analysis.options import IsotropyOptions
from featdyn.compute import SERIAL, Plan, Workers, same
from featdyn.errors import FeatdynError
from featdyn.statistics import Gram
from featdyn.statistics import isotropy as test_isotropy
from featdyn.statistics.alignment import effective_rank, explained_shares, participation_ratio, stable_rank
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
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`.
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
        mean and 95 % quantile for isotropic noise. For parameters and features ``_drift_share (k, ...)``: what part of
        the squared drift to the next sampled checkpoint lies along these directions, ``_drift_share_random``, k/p, and
        ``_drift_pvalue`` against a uniformly random subspace (a Beta law), ``_half_overlap (k, ...)``: of the
        directions of two halves of the draws. ``curvature_ratio (cut, t)``: mean curvature along the noise over that
        along random directions, if it was sampled.

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
        found |= drift_in_noise(gram, dots, square)
        found["half_overlap"] = half_overlap(gram, options.seed)
    return found


def tested(gram: Gram, center: Center, alpha: float, seed: int) -> dict[str, Any]:
    """Return tests, verdict and spectrum of one Gram matrix: name to a number, or to an array over tests or k."""
    found = test_isotropy(gram, center=center, rng=seed, alpha=alpha)
    results = [entry.result for entry in found.tests]
    shares = explained_shares(gram, [min(k, gram.p) for k in SHARES], center=center, rng=seed)
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
        **dict.fromkeys(("share", "share_isotropic", "share_isotropic_high"), ks),
    }


def drift_in_noise(gram: Gram, dots: NDArray[np.float64], square: float) -> dict[str, NDArray[np.float64]]:
    """Return which part of one drift vector lies along the k largest directions of noise.

    Parameters
    ----------
    gram
        Of the draws ``X``; the directions are those about their mean.
    dots
        ``(n,)``, products of the draws with the drift vector.
    square
        Its squared length.

    Notes
    -----
    ``V_k' d = L^(-1/2) U' (X - mean) d``, so the draws themselves are not needed. The share of a fixed vector in a
    uniformly random k-dimensional subspace follows Beta(k/2, (p-k)/2).
    """
    values, vectors = np.linalg.eigh(gram.centred)
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    kept = values > values[0] * 1e-12
    along = np.where(kept, vectors.T @ (dots - dots.mean()), 0.0) ** 2 / np.where(kept, values, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.array([along[:k].sum() / square for k in SHARES])
    law = [stats.beta(k / 2, (gram.p - k) / 2) if k < gram.p else None for k in SHARES]
    return {
        "drift_share": share,
        "drift_share_random": np.array([min(1.0, k / gram.p) for k in SHARES]),
        "drift_pvalue": np.array([np.nan if one is None else one.sf(s) for one, s in zip(law, share, strict=True)]),
    }


def half_overlap(gram: Gram, seed: int) -> NDArray[np.float64]:
    """Return ``|V_k' W_k|^2 / k`` of the main directions V and W of two random halves of the draws, for each k.

    NaN where a half does not hold k directions.
    """
    order = np.random.default_rng(seed).permutation(gram.n)
    halves = order[: gram.n // 2], order[gram.n // 2 :]
    bases = []
    for half in halves:
        centring = np.eye(len(half)) - 1 / len(half)
        values, vectors = np.linalg.eigh(centring @ gram.centred[np.ix_(half, half)] @ centring)
        kept = values[::-1] > values[-1] * 1e-12
        bases.append(centring @ (vectors[:, ::-1][:, kept] / np.sqrt(values[::-1][kept])))
    product_ = bases[0].T @ gram.centred[np.ix_(*halves)] @ bases[1]
    return np.array([
        np.square(product_[:k, :k]).sum() / k if min(product_.shape) >= k else np.nan for k in SHARES
    ])  # fmt: skip


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
