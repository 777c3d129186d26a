"""How many directions carry more noise than the rest, whatever the tails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics import checks
from featdyn.statistics.blas import one_thread
from featdyn.statistics.centred import Centred, smaller_products
from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.result import Center
from featdyn.statistics.sphericity.largest_root import root_pvalue

_NOTHING = 1e-12
"""Share of all squares that is rounding, as float32 draws hold no smaller noise: our own choice."""
_ROUNDS = 3
"""Of scaling and fitting: our own choice. Tried on 25 sets each of 1 to 10 directions of excess 20 to 1e5, Gaussian
and t3, from 64 x 512 to 300 x 12: one round counts up to six too many among very strong directions, two to five are
alike."""


@dataclass(frozen=True)
class Directions:
    """Directions of larger variance.

    Attributes
    ----------
    count : int or None
        How many; None where more than a third of min(n, p) stand out: featdyn's own limit for a small set of
        directions, past which n draws of even more directions look alike.
    pvalues : of each step: whether one more direction stands out of what is left
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
    with one_thread(min(c.rows.shape)):
        return _count(c, alpha)


def _count(c: Centred, alpha: float) -> Directions:
    most = min(c.n, c.p) // 3
    total = float(c.square_norms.sum())
    unscaled = _spectrum(c.directions)
    pvalues: list[float] = []
    for k in range(most + 1):
        rows, p = c.n - k, c.p - k
        if rows < 2 or p < 2:
            break
        roots, left = _roots_outside(c, unscaled, k)
        if left <= _NOTHING * total:  # the draws span k directions and nothing else
            return Directions(k, tuple(pvalues))
        pvalues.append(root_pvalue(float(roots[0] / roots.sum()), rows, p))
        if pvalues[-1] > alpha:
            return Directions(k, tuple(pvalues))
    return Directions(None, tuple(pvalues))


Spectrum: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]


def _spectrum(rows: NDArray[np.float64]) -> Spectrum:
    """Return the roots of rows (n, p), descending, and the squares of their coordinates along each direction.

    Of the smaller side's products, at a quarter of what a decomposition of the rows takes; what that is more exact in
    is far below :data:`_NOTHING`.
    """
    roots, vectors = np.linalg.eigh(smaller_products(rows))
    roots = np.maximum(roots, 0.0)
    wide = rows.shape[1] > len(rows)
    along = np.square(vectors) * roots if wide else np.square(rows @ vectors)
    return roots[::-1], along[:, ::-1]


def _roots_outside(c: Centred, unscaled: Spectrum, k: int) -> tuple[NDArray[np.float64], float]:
    """Return the roots after the k largest, of draws scaled by their lengths outside those, and the squares left."""
    squares, scaled, (roots, along) = c.square_norms, c.directions, unscaled
    for remaining in range(_ROUNDS if k else 0, -1, -1):
        outside = along[:, k:].sum(axis=1)
        left = float(squares @ outside)
        if not remaining or left <= _NOTHING * c.square_norms.sum():
            break
        # A fitted direction also takes noise from the draws it is fitted to, in proportion to their part in it: give it
        # back, or the draws that lie along it would seem to hold less noise than others.
        noise = roots[k:].sum() / ((c.n - k) * (c.p - k)) * (c.n - k + c.p - k)
        outside += along[:, :k] @ np.minimum(noise / roots[:k], 1.0)
        scaled = scaled / np.sqrt(outside)[:, None]
        squares = squares * outside
        roots, along = _spectrum(scaled)
    return roots[k:], left
