"""Canonical correlations, and what is made of them: mean CCA, SVCCA (Raghu et al. 2017), PWCCA (Morcos et al. 2018).

They rise with the number of variables: of n samples and p + q variables that are unrelated they are 1 where p + q is
not below n. There, and where features do not vary, they are NaN; below 5 samples for each variable put the value of
shuffled samples beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from featdyn.statistics.rounding import noise_share, roundoff
from featdyn.statistics.similarity.paired import Values, pair, scaled

TOLERANCE = 1e-6
"""Directions up to this share of the largest singular value are none: our own choice."""


@dataclass(frozen=True)
class Basis:
    """A centred representation by its directions, strongest first."""

    vectors: Values  # (n, r), orthonormal
    values: Values  # (r,), their singular values

    @classmethod
    def of(cls, x: Values, unit: float = 0.0) -> Basis:
        """Return that of ``x (n, p)``, whose numbers are rounded by this share; r is 0 where it does not vary.

        Directions that may be rounding alone are none: of rank and all correlations they would be as many as others.
        """
        z = scaled(x)
        if not z.any():
            return cls(np.zeros((len(x), 0)), np.zeros(0))
        u, s, _ = np.linalg.svd(z, full_matrices=False)
        moved = float(np.abs(x).max())
        size = float(np.square(x / moved).mean())
        varied = float(np.linalg.norm((x - x.mean(0)) / moved)) * float(s[0])
        kept = s > max(TOLERANCE, noise_share(unit, size, x.shape, varied)) * s[0]
        return cls(u[:, kept], s[kept])

    def leading(self, share: float) -> Basis:
        """Return the fewest directions that hold this share of the variance."""
        held = np.cumsum(self.values**2)
        count = int(np.searchsorted(held, share * held[-1] * (1 - 1e-12)) + 1) if len(held) else 0
        return Basis(self.vectors[:, :count], self.values[:count])


@dataclass(frozen=True)
class Canonical:
    """Canonical correlations of x and y, largest first, and the weights that PWCCA gives them."""

    correlations: Values  # (min(r, s),)
    weights: Values  # (min(r, s),), of x's variates, summing to 1

    @property
    def mean(self) -> float:
        """Mean CCA."""
        return float(self.correlations.mean())

    @property
    def weighted(self) -> float:
        """PWCCA, which is not symmetric."""
        return float((self.weights * self.correlations).sum())


def canonical(x: Basis, y: Basis, features: Values | None = None) -> Canonical | None:
    """Return the canonical correlations of two bases; None where samples are too few, or either does not vary.

    The weights are ``sum_j |<h_i, x_j>|`` over the ``features (n, p)`` that x is the basis of; equal where not given.
    """
    n, r, s = len(x.vectors), x.vectors.shape[1], y.vectors.shape[1]
    if not r or not s or r + s >= n:
        return None
    left, found, _ = np.linalg.svd(x.vectors.T @ y.vectors, full_matrices=False)
    found = np.clip(found, 0, 1)
    weights = np.ones(len(found))
    if features is not None:
        weights = np.abs((x.vectors @ left).T @ scaled(features)).sum(1)
    return Canonical(found, weights / weights.sum())


def mean_cca(x: ArrayLike, y: ArrayLike) -> float:
    """Return the mean of the canonical correlations of ``x (n, p)`` and ``y (n, q)``."""
    a, b = _bases(x, y)
    found = canonical(a, b)
    return math.nan if found is None else found.mean


def svcca(x: ArrayLike, y: ArrayLike, *, share: float = 0.99) -> float:
    """Return the mean of the canonical correlations of the leading directions with this share of the variance.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> round(svcca(x, x @ np.random.default_rng(1).normal(size=(5, 5))), 6)
    1.0
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    a, b = _bases(x, y)
    found = canonical(a.leading(share), b.leading(share))
    return math.nan if found is None else found.mean


def pwcca(x: ArrayLike, y: ArrayLike) -> float:
    """Return the mean of the canonical correlations, weighted by what x's variates say of x.

    No linear map of y changes it; the weights are of the variables of x as they are, so that a rotation of x does.
    """
    a, b = _bases(x, y)
    found = canonical(a, b, pair(x, y)[0])
    return math.nan if found is None else found.weighted


def _bases(x: ArrayLike, y: ArrayLike) -> tuple[Basis, Basis]:
    a, b = (Basis.of(z, roundoff(np.asarray(own).dtype)) for z, own in zip(pair(x, y), (x, y), strict=True))
    return a, b
