"""Tests of isotropy of many sets of draws: each cell is a number, or missing with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.isotropy_variables import SHARES, TESTED, Table
from featdyn.analysis.status import FEW, NOT_FINITE, Status
from featdyn.statistics import Gram, alignment, isotropy
from featdyn.statistics.family import FAMILY
from featdyn.statistics.multiplicity import benjamini_hochberg, holm
from featdyn.statistics.result import Center
from featdyn.statistics.wishart import directions_bytes

LEAST = 4
"""Draws below which there is nothing to test: our own choice."""
SQUARES, SMALLER = 4, 16
"""So many matrices of draws x draws, and of draws and the smaller of their two numbers, are held by tests, at most."""
ALIKE = "draws_do_not_vary"
ONE_DIMENSION = "one_dimension"

Cell: TypeAlias = tuple[str, dict[str, Any]]
"""Why draws cannot be tested, or nothing; and what was found: name to a number, or to an array over tests or k."""


def bytes_of_tests(draws: int, coordinates: int) -> dict[str, int]:
    """Return the bytes that :func:`tested` holds, by what they are for."""
    matrices = 8 * draws * (SQUARES * draws + SMALLER * min(draws, coordinates))
    return {"matrices": matrices, "random directions": directions_bytes(draws, coordinates)}


def tested(gram: Gram, center: Center, alpha: float, seed: int) -> Cell:
    """Return tests, verdict and spectrum of one Gram matrix."""
    reason = untestable(gram, center)
    if reason:
        return reason, {}
    found = isotropy(gram, center=center, rng=seed, alpha=alpha)
    # A statistic that is infinite, as a likelihood ratio of a singular covariance is, tells no more than none.
    results = [r if (r := entry.result) is None or np.isfinite(r.statistic) else None for entry in found.tests]
    shares = alignment.explained_shares(gram, [min(k, gram.p) for k in SHARES], center=center, rng=seed)
    halves = alignment.split_halves(gram, SHARES, center=center, rng=seed)
    return "", {
        "statistic": [np.nan if r is None else r.statistic for r in results],
        "pvalue": [np.nan if r is None else r.pvalue for r in results],
        "valid": [entry.valid for entry in found.tests],
        "verdict": found.verdict,
        "reason": found.reason,
        "directions": -1 if found.directions is None else found.directions,
        **{name: getattr(found.checks, name) for name in TESTED if hasattr(found.checks, name)},
        "participation_ratio": alignment.participation_ratio(gram, center=center, unbiased=True),
        "effective_rank": alignment.effective_rank(gram, center=center, of="covariance"),
        "stable_rank": alignment.stable_rank(gram, center=center),
        "share": shares.share,
        "share_isotropic": shares.baseline,
        "share_isotropic_high": shares.baseline_high,
        "held_out": halves.held_out,
        "held_out_isotropic": halves.random,
        "held_out_isotropic_high": halves.held_out_high,
        "half_overlap": halves.overlap,
    }


def untestable(gram: Gram, center: Center) -> str:
    """Return why draws have no spectrum to speak of, or nothing."""
    if not np.isfinite(gram.centred).all():
        return NOT_FINITE
    if gram.n < LEAST:
        return FEW
    if gram.p < 2:
        return ONE_DIMENSION
    try:
        about = gram.about(center)
    except ValueError:  # all of them are the centre
        return ALIKE
    return ALIKE if about.centre_free.n < 2 else ""


def stacked(prefix: str, cells: NDArray[Any], dims: Sequence[str], *tables: Table) -> dict[str, xr.Variable]:
    """Return the variables of :func:`featdyn.analysis.isotropy_variables.isotropy_variables`, and their status.

    P-values are adjusted over all cells of a test.
    """
    lengths = {"test": len(FAMILY), "k": len(SHARES)}
    missing = {"valid": False, "verdict": "undecided", "reason": "", "directions": -1}
    status = Status(dims, cells.shape)
    found: dict[str, xr.Variable] = {}
    flat: list[Cell] = list(cells.ravel())
    for place in np.ndindex(cells.shape):
        if reason := cells[place][0]:
            status.mark(reason, place)
    for name, (inner, _, _) in [item for table in tables or (TESTED,) for item in table.items()]:
        size = (lengths[inner],) if inner else ()
        none = np.full(size, missing.get(name, np.nan), object if name in ("verdict", "reason") else None)
        if name == "reason":
            rows = [np.array(values.get(name, reason.replace("_", " ")), object) for reason, values in flat]
        else:
            rows = [np.asarray(values.get(name, none), none.dtype) for _, values in flat]
        stack = np.stack(rows, axis=-1)
        if name in ("holm", "benjamini_hochberg"):
            adjust = holm if name == "holm" else benjamini_hochberg
            stack = np.stack([adjust(of_test) for of_test in found[f"{prefix}_pvalue"].values.reshape(len(FAMILY), -1)])
        outer = ((inner,) if inner else ()) + tuple(dims)
        found[f"{prefix}_{name}"] = xr.Variable(outer, stack.reshape(*size, *cells.shape))
    return found | {f"{prefix}_status": status.variable()}
