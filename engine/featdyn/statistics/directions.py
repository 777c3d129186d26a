"""How many directions carry more noise than the rest, whatever the tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics import checks
from featdyn.statistics.blas import one_thread
from featdyn.statistics.centred import Centred
from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.result import Center
from featdyn.statistics.sphericity.largest_root import root_pvalue

_NOTHING = 1e-12  # share of all squares that is rounding: float32 draws hold no smaller noise
# Rounds of scaling and fitting. Tried on 25 data sets each with 1 to 10 directions, n = 64, p = 512, Gaussian and t3:
# one leaves a direction too many among very strong ones, three and more let single draws pull directions to themselves.
_ROUNDS = 2


@dataclass(frozen=True)
class Directions:
    """Directions of larger variance.

    Attributes
    ----------
    count : int or None
        How many; None where more stand out than half of what the draws span, which is no small set of directions.
    pvalues : tuple of float
        Of each step: whether one more direction stands out of what is left.
    """

    count: int | None
    pvalues: tuple[float, ...]


def count_directions(x: Draws, *, center: Center = "estimated", alpha: float = 0.05) -> Directions:
    """Count the directions that stand out of isotropic noise, one after the other.

    With k directions found, every draw is divided by its length outside them, the directions are fitted again, and the
    largest root of what is left is tested in n - k rows and p - k coordinates; k grows until a test does not reject.
    Sequential testing is that of Kritchman and Nadler (2009). Scaling by the length that is left, which keeps single
    long draws from posing as directions and leaves Gaussian draws nearly as they are, is featdyn's own choice.

    Parameters
    ----------
    x : (n, p), Gram or Centred
    center
        ``"known"`` (zero): all draws. ``"estimated"``: differences of consecutive draws, as in
        :func:`~featdyn.statistics.sphericity.sign_test`.
    alpha
        Level of each step; close to the probability of one direction too many.

    Notes
    -----
    A direction is found if its excess over the others is well above ``sqrt(p / n)`` of their variance, n the number of
    rows used (the transition of Baik, Ben Arous and Péché 2005); draws may hold fewer.
    """
    checks.fraction(alpha, "alpha")
    c = centred(x, center).centre_free
    with one_thread(c.n):
        return _count(c, alpha)


def _count(c: Centred, alpha: float) -> Directions:
    most = min(c.n, c.p) // 2
    pvalues: list[float] = []
    for k in range(most + 1):
        scaled, left = _scale(c.rows, c.directions, k)
        if left <= _NOTHING * c.square_norms.sum():  # the draws span k directions and nothing else
            return Directions(k, tuple(pvalues))
        if c.n - k < 2 or c.p - k < 2:
            break
        roots = np.linalg.svd(scaled, compute_uv=False)[k:] ** 2
        pvalues.append(root_pvalue(float(roots[0] / roots.sum()), c.n - k, c.p - k))
        if pvalues[-1] > alpha:
            return Directions(k, tuple(pvalues))
    return Directions(None, tuple(pvalues))


def _scale(rows: NDArray[np.float64], scaled: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], float]:
    """Return the rows divided by their lengths outside their k main directions, and the squares outside in all."""
    left = np.square(rows).sum(axis=1)
    for _ in range(_ROUNDS if k else 0):
        basis = np.linalg.svd(scaled, full_matrices=False)[2][:k]
        outside = rows - (rows @ basis.T) @ basis
        left = np.square(outside).sum(axis=1)
        if left.sum() <= _NOTHING * np.square(rows).sum():
            break
        scaled = rows / np.sqrt(np.maximum(left, _NOTHING * left.max()))[:, None]
    return scaled, float(left.sum())
