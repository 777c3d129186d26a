"""What comparing a representation takes, made once; and the measures of a pair, with why some are missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.features.similarity import MEASURES
from featdyn.analysis.inputs.layer_vectors import EPS
from featdyn.analysis.status import DEAD, FEW, NOT_FINITE
from featdyn.statistics.similarity.cca import Basis, canonical
from featdyn.statistics.similarity.neighbours import first, imbalance, neighbours, overlap, squared
from featdyn.statistics.similarity.paired import scaled
from featdyn.statistics.similarity.rsa import dissimilarities
from featdyn.statistics.similarity.shape import nuclear
from featdyn.statistics.tied_ranks import tied_ranks

NEIGHBOURS, SHARE, LEAST = 10, 0.99, 4
"""Neighbours of a probe, the share of variance whose directions count, and the least probes: our own choice."""
VARIABLES = "no_more_probes_than_variables"
EQUAL_FEATURES = "features_of_a_probe_are_all_equal"
TIED = "nearest_neighbours_are_tied"
NO_ORDER = "dissimilarities_do_not_vary"

Values = NDArray[np.float64]
Found: TypeAlias = tuple[dict[str, float], dict[str, str]]  # values by measure, and reasons by status variable


@dataclass(frozen=True, eq=False)
class Ready:
    """One representation of the chosen probes."""

    flaw: str
    order: NDArray[np.intp]  # another order of the probes
    unit: Values  # (n, min(n, p)), centred, of length 1, of more variables than probes in its own directions
    features: Values  # (n, p), as they are
    basis: Basis
    ranks: Values | None  # of its dissimilarities, centred and of length 1
    near: NDArray[np.bool_] | None  # (n, n)
    first: NDArray[np.bool_]  # (n, n), which are nearest to each probe
    places: NDArray[np.float32]  # (n, n), ranks of each probe's distances

    @classmethod
    def of(cls, x: Values, seed: int, rounded: float, flaw: str = "") -> Ready:
        """Make it of features ``(n, p)``, of numbers rounded by a share; ``flaw`` says what is known to be wrong."""
        order, none = np.random.default_rng(seed).permutation(len(x)), np.zeros((0, 0))
        flaw = flaw or _flaw(x)
        if flaw:
            nobody = none.astype(bool)
            return cls(flaw, order, none, none, Basis(none, np.zeros(0)), None, None, nobody, none.astype(np.float32))
        x = x / np.abs(x).max()
        basis = Basis.of(x, rounded)
        near, apart = neighbours(x, NEIGHBOURS), squared(x)
        places = tied_ranks(apart).astype(np.float32)  # halves, which float32 holds
        cloud = scaled(x) if x.shape[1] <= len(x) else _turned(Basis.of(x))
        return cls(flaw, order, cloud, x, basis, _ranks(x), near, first(apart), places)


def compared(a: Ready, b: Ready) -> Found:
    """Return every measure of b as seen from a, and why some are missing."""
    flaw = a.flaw or b.flaw
    if flaw:
        return {}, {f"{name}_status": flaw for name in MEASURES}
    overlapping = min(nuclear(a.unit, b.unit), 1.0)
    values = {"procrustes": 2 - 2 * overlapping, "angular": float(np.arccos(overlapping))}
    values["imbalance"] = imbalance(a.first, b.places)
    reasons = {}
    for name, share, weighted in (("cca", 1.0, False), ("svcca", SHARE, False), ("pwcca", 1.0, True)):
        x, y = (part.basis if share == 1 else part.basis.leading(share) for part in (a, b))
        features = a.features if weighted else None
        for key, other in ((name, y), (f"{name}_shuffled", Basis(y.vectors[a.order], y.values))):
            found = canonical(x, other, features)
            if found is None:
                reasons[f"{name}_status"] = VARIABLES
            else:
                values[key] = found.weighted if weighted else found.mean
    if a.ranks is None or b.ranks is None:
        reasons["rsa_status"] = EQUAL_FEATURES
    elif not len(a.ranks) or not len(b.ranks):
        reasons["rsa_status"] = NO_ORDER
    else:
        values["rsa"] = float(np.clip(a.ranks @ b.ranks, -1, 1))
    alike = math.nan if a.near is None or b.near is None else overlap(a.near, b.near)
    if math.isnan(alike):
        reasons["jaccard_status"] = FEW if a.near is None else TIED
    else:
        values["jaccard"] = alike
    return values, reasons


def _turned(basis: Basis) -> Values:
    return basis.vectors * basis.values


def _ranks(x: Values) -> Values | None:
    """Return the ranks of dissimilarities, centred, of length 1: none where they are equal, None where one is NaN."""
    rows = dissimilarities(x) if x.shape[1] > 1 else np.full(1, np.nan)
    if np.isnan(rows).any():
        return None
    ranks = tied_ranks(rows)
    ranks = ranks - ranks.mean()
    size = float(np.linalg.norm(ranks))
    return np.asarray(ranks / size) if size > 0 else np.zeros(0)


def _flaw(x: Values) -> str:
    if not np.isfinite(x).all():
        return NOT_FINITE
    if len(x) < LEAST:
        return FEW
    return "" if (np.ptp(x, axis=0) > EPS * np.abs(x).max(0)).any() else DEAD
