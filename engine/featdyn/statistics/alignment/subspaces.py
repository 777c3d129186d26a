"""Subspaces beside each other and beside drift, with the law of a uniformly random subspace as the null.

Estimate a subspace on other draws than those it is judged on: :func:`split_half_overlap` does. Drift vectors of
different samples share one weight change; the null here takes their second moment as given and only the subspace as
random, so it needs no independence. A random subspace is easily beaten: compare with structured ones too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, stats

from featdyn.statistics import checks
from featdyn.statistics.alignment.spectrum import principal_directions
from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.result import Center


@dataclass(frozen=True)
class SubspaceShare:
    """A share that a subspace captures, beside a uniformly random subspace of its dimension.

    Attributes
    ----------
    share : float
    null_mean, null_variance : float
        Exact.
    z : float
        ``(share - null_mean) / sqrt(null_variance)``.
    pvalue : float
        P(share of a random subspace >= share), by the Beta law of this mean and variance: exact where drift lies along
        one direction, otherwise featdyn's own approximation, for k well below p.
    """

    share: float
    null_mean: float
    null_variance: float
    z: float
    pvalue: float


def drift_share(drift: ArrayLike, basis: ArrayLike) -> SubspaceShare:
    """Return how much of the drift lies in a subspace: ``R_k = tr(V' C V) / tr C``.

    ``C`` is the second moment of the drift vectors. For a uniformly random subspace the mean is ``k / p`` and the
    variance ``2k(p-k) / (p(p-1)(p+2)) [tr C^2 / (tr C)^2 - 1/p]``.

    Parameters
    ----------
    drift : (N, p)
        Vectors ``z_{t+s}(x) - z_t(x)``, N >= 1, not all zero.
    basis : (p, k)
        Orthonormal columns, such as :func:`~featdyn.statistics.alignment.principal_directions` of noise; k < p.
    """
    rows = checks.finite(checks.matrix(drift, "drift", rows=1, columns=2, shape="(N, p)"), "drift").astype(np.float64)
    v = _basis(basis, "basis")
    if rows.shape[1] != len(v):
        raise ValueError(f"drift {rows.shape} and basis {v.shape} must share p")
    n, p = rows.shape
    side = rows @ rows.T if n <= p else rows.T @ rows
    trace = float(np.trace(side))
    if trace == 0:
        raise ValueError(f"drift {rows.shape} is zero")
    share = float(np.square(rows @ v).sum()) / trace
    return _beside_random(share, p, v.shape[1], float(np.vdot(side, side)) / trace**2)


def subspace_overlap(v: ArrayLike, w: ArrayLike) -> SubspaceShare:
    """Return ``O_k = |V' W|_F^2 / k``, the mean squared cosine of the principal angles; null as in :func:`drift_share`.

    Parameters
    ----------
    v, w : (p, k)
        Orthonormal columns; where their numbers differ, k is that of ``w``.
    """
    a, b = _pair(v, w)
    k = b.shape[1]
    return _beside_random(float(np.square(a.T @ b).sum()) / k, len(a), a.shape[1], 1 / k)


def principal_angles(v: ArrayLike, w: ArrayLike) -> NDArray[np.float64]:
    """Return the principal angles in radians, ascending: ``arccos`` of the singular values of ``V' W``, by SciPy.

    Parameters
    ----------
    v, w : (p, k)
        Orthonormal columns.
    """
    a, b = _pair(v, w)
    return np.asarray(linalg.subspace_angles(a, b))[::-1]


def split_half_overlap(x: ArrayLike, k: int, *, center: Center = "estimated", rng: Rng = None) -> SubspaceShare:
    """Return the overlap of the k main directions of two random halves of the draws: how well draws determine them.

    Parameters
    ----------
    x : (n, p)
        The draws, n >= 6.
    k
        Number of directions.
    center
        ``"estimated"`` or ``"known"`` (zero).
    rng
        Generator or seed of the split; 0 by default.
    """
    rows = checks.matrix(x, "x", rows=6, columns=2)
    order = generator(rng).permutation(len(rows))
    halves = np.array_split(order, 2)
    v, w = (principal_directions(rows[half], k, center=center) for half in halves)
    return subspace_overlap(v, w)


def _beside_random(share: float, p: int, k: int, concentration: float) -> SubspaceShare:
    """``concentration`` is ``tr C^2 / (tr C)^2``."""
    if k >= p:
        raise ValueError(f"a subspace of {k} of {p} dimensions captures everything")
    mean = k / p
    variance = 2 * k * (p - k) / (p * (p - 1) * (p + 2)) * max(concentration - 1 / p, 0.0)
    if variance < 1e-14 * mean**2:  # an isotropic second moment: every subspace captures k / p
        return SubspaceShare(share, mean, 0.0, 0.0, 1.0)
    size = mean * (1 - mean) / variance - 1
    pvalue = float(stats.beta.sf(share, mean * size, (1 - mean) * size))
    return SubspaceShare(share, mean, variance, (share - mean) / math.sqrt(variance), pvalue)


def _pair(v: ArrayLike, w: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _basis(v, "v"), _basis(w, "w")
    if len(a) != len(b):
        raise ValueError(f"v {a.shape} and w {b.shape} must share p")
    return a, b


def _basis(basis: ArrayLike, name: str) -> NDArray[np.float64]:
    v = checks.finite(checks.matrix(basis, name, rows=2, columns=1, shape="(p, k)"), name).astype(np.float64)
    if not np.allclose(v.T @ v, np.eye(v.shape[1]), atol=1e-4):
        raise ValueError(f"{name} {v.shape} must have orthonormal columns")
    return v
