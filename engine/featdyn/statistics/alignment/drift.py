"""Which part of a drift lies along the main directions of noise, and whether that says anything of this noise.

A drift of SGD is a sum of mini-batch gradients, so it lies where gradients lie in any case, far above random subspaces.
:func:`drift_beside` compares with directions of equally many draws from elsewhere (other data, permuted labels, another
checkpoint), :attr:`DriftShare.halves` with those of half of the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from featdyn.statistics.blas import one_thread
from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.randomness import Rng, generator
from featdyn.statistics.result import Center

_NOTHING = 1e-12  # share of the largest variance that is rounding

Values = NDArray[np.float64]


@dataclass(frozen=True)
class DriftShare:
    """The part of one squared drift along the k main directions of n draws of noise.

    Attributes
    ----------
    k : (len(k),)
    share : (len(k),)
        NaN where there is no drift.
    random, pvalue : (len(k),)
        ``k / p``, the mean share in a uniformly random subspace, and P(share there >= share), by its law
        ``Beta(k/2, (p-k)/2)``; NaN where k directions are all there are.
    halves : (2, len(k))
        Shares along the directions of two random halves of the draws.
    n : int
    """

    k: NDArray[np.int64]
    share: Values
    random: Values
    pvalue: Values
    halves: Values
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
    noise : (n, p), Gram or Centred
        The draws.
    dots : (n,)
        Products of the draws with the drift vector, in units of the draws as they are given.
    square
        Squared length of the drift.
    k
        Numbers of directions, at least 1; beyond the rank of the draws all their directions.
    center
        ``"estimated"`` or ``"known"`` (zero).
    rng
        Generator or seed of the halves; 0 by default.

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
    law = [float(stats.beta.sf(s, i / 2, (c.p - i) / 2)) if i < c.p else np.nan for i, s in zip(ks, whole, strict=True)]
    return DriftShare(ks, whole, random, np.array(law), np.stack(halves), c.n)


@dataclass(frozen=True)
class DriftBeside:
    """A drift along directions of its own noise and of others', each (len(k),).

    Attributes
    ----------
    share, others, most : of its own noise; mean and largest of the others'
    pvalue : ``(1 + #{others >= share}) / (1 + #others)``, where all directions would be exchangeable
    """

    share: Values
    others: Values
    most: Values
    pvalue: Values


def drift_beside(own: DriftShare, others: Sequence[DriftShare]) -> DriftBeside:
    """Compare a drift's share along directions of noise with that along directions of other draws.

    Parameters
    ----------
    own
        The drift in the noise.
    others
        The same drift in as many draws from elsewhere, one or more sets of them.
    """
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
    along = np.cumsum(np.square(sides[:, kept].T @ dots / scale[kept]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(along[np.minimum(ks, len(along)) - 1] / square if square > 0 else np.full(len(ks), np.nan))
