"""Which part of a drift lies along the main directions of noise, and whether that says anything of this noise.

A drift of SGD is a sum of mini-batch gradients, so it lies where gradients lie in any case, far above random subspaces.
:func:`drift_beside` compares with directions of equally many draws from elsewhere (other data, permuted labels, another
checkpoint), :attr:`DriftShare.halves` with those of half of the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.blas import one_thread
from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.result import Center

_NOTHING = 1e-12
"""Share of the largest variance that is rounding: our own choice."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class DriftShare:
    """The part of one squared drift along the k main directions of n draws of noise."""

    k: NDArray[np.int64]  # (len(k),)
    share: Values  # (len(k),), NaN where there is no drift
    random: Values  # (len(k),), ``k / p``, the mean share in a uniformly random subspace
    pvalue: Values  # (len(k),), P(share there >= share), a Beta law; NaN where k directions are all there are
    halves: Values  # (2, len(k)), shares along the directions of two random halves of the draws
    n: int


def drift_share(
    noise: Draws,
    dots: ArrayLike,
    square: float,
    k: Sequence[int] = (1, 5, 10),
    *,
    center: Center = "estimated",
    rng: Rng = None,
) -> DriftShare:
    """Return which part of a drift vector lies along the k main directions of noise, k by k.

    Parameters
    ----------
    dots : (n,)
        Products of the draws with the drift vector, in units of the draws as they are given.
    square
        Squared length of the drift.
    k
        Numbers of directions, at least 1; beyond the rank of the draws all their directions.

    Notes
    -----
    ``V_k' d = L^(-1/2) U' X d`` of the draws X about their centre, so the vectors themselves are not needed.
    """
    c, ks = centred(noise, center), np.asarray(k, dtype=np.int64)
    products = np.asarray(dots, dtype=np.float64)
    if products.shape != (c.n,):
        raise ValueError(f"dots must have shape ({c.n},), got {products.shape}")
    products = products / c.unit
    order = generator(rng).permutation(c.n)
    with one_thread(min(c.rows.shape)):
        whole, *halves = (
            _shares(c.rows[part], products[part], square, ks, center)
            for part in (np.arange(c.n), order[: c.n // 2], order[c.n // 2 :])
        )
    random = np.minimum(ks / c.p, 1.0)
    law = [
        float(scipy.stats.beta.sf(s, i / 2, (c.p - i) / 2)) if i < c.p else np.nan
        for i, s in zip(ks, whole, strict=True)
    ]
    return DriftShare(ks, whole, random, np.array(law), np.stack(halves), c.n)


@dataclass(frozen=True)
class DriftBeside:
    """A drift along directions of its own noise and of others', each (len(k),)."""

    share: Values  # of its own noise
    others: Values  # the mean of the others'
    most: Values  # the largest of them
    pvalue: Values  # ``(1 + #{others >= share}) / (1 + #others)``, where all directions would be exchangeable


def drift_beside(own: DriftShare, others: Sequence[DriftShare]) -> DriftBeside:
    """Compare a drift's share along its noise with that of the same drift along one or more sets of as many others."""
    if not others or any(other.n != own.n or not np.array_equal(other.k, own.k) for other in others):
        raise ValueError(f"others must be one or more shares in {own.n} draws each, for the same k")
    shares = np.stack([other.share for other in others])
    pvalue = (1 + (shares >= own.share).sum(axis=0)) / (1 + len(shares))
    return DriftBeside(own.share, shares.mean(axis=0), shares.max(axis=0), pvalue)


def _shares(rows: Values, dots: Values, square: float, ks: NDArray[np.int64], center: Center) -> Values:
    if center == "estimated":
        rows, dots = rows - rows.mean(axis=0), dots - dots.mean()
    sides, scale, _ = np.linalg.svd(rows, full_matrices=False)
    kept = np.square(scale) > _NOTHING * np.square(scale[0])
    along = np.r_[0.0, np.cumsum(np.square(sides[:, kept].T @ dots / scale[kept]))]  # along no direction lies nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        share = along[np.minimum(ks, len(along) - 1)] / square if square > 0 else np.full(len(ks), np.nan)
    return np.asarray(np.minimum(share, 1))  # but for rounding it is no more
