"""What tests of isotropy assume of the draws, checked: independence, a centre of symmetry, a spherical law.

Each check holds for draws of any covariance, so that what it finds is no sign of anisotropy. From inner products and
fourth powers alone; that these are looked at, and how, is featdyn's own choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from featdyn.statistics.blas import one_thread
from featdyn.statistics.centred import Centred

LEVEL = 0.01
"""Of the checks, where a false alarm costs the verdict: our own choice."""
_FEW = 8
"""Draws below which neighbours tell nothing: our own choice."""
_ROWS = 512  # of one block of products


@dataclass(frozen=True)
class Assumptions:
    """Checks of the draws.

    Attributes
    ----------
    order_pvalue : float
        Of neighbouring draws being no more alike, or unlike, than others: against all orders of the draws. NaN below 8
        draws.
    centre_pvalue : of a centre of symmetry at zero: against all signs of the draws. NaN where the centre is estimated
    fourth_excess : float
        By how many standard deviations the fourth powers of the entries exceed what a spherical law with these lengths
        has: positive for sparse or heavy-tailed coordinates, also for unequal ones, negative for bounded ones. NaN
        where the fourth powers are not known.
    variance_pvalue : float
        Of isotropy with the variance of products of directions estimated: for any law of independent coordinates and
        any spherical one.
    """

    order_pvalue: float
    centre_pvalue: float
    fourth_excess: float
    variance_pvalue: float

    @property
    def broken(self) -> str:
        """Why no test here can be believed, or nothing."""
        if self.order_pvalue <= LEVEL:
            seen = f"draws depend on their neighbours (p = {self.order_pvalue:.2g})"
            return f"{seen}, and every test needs independent ones"
        if self.centre_pvalue <= LEVEL:
            seen = f"draws are not symmetric about the known centre (p = {self.centre_pvalue:.2g})"
            return f"{seen}: it is another, or they are skewed"
        return ""

    @property
    def spherical(self) -> bool:
        """Whether fourth powers are those of a spherical law with these lengths, within three standard deviations."""
        return not abs(self.fourth_excess) > 3


def assumptions(c: Centred) -> Assumptions:
    """Return the checks of draws about their centre."""
    with one_thread(min(c.rows.shape)):
        lengths = np.sqrt(c.square_norms)
        s = c.rows[lengths > 0] / lengths[lengths > 0, None]
        squares = _pair_sums(s, s)[0]
        centre = _centre(s, squares) if c.center == "known" else math.nan
        return Assumptions(_order(s, squares), centre, _fourth(c), _variance(c))


def _order(s: NDArray[np.float64], squares: float) -> float:
    """Return the two-sided p-value of ``sum_t s_t's_(t+1)`` over all orders, by its exact mean and variance."""
    n = len(s)
    if n < _FEW:
        return math.nan
    rows = s @ s.sum(axis=0) - 1.0
    pairs, mean = n * (n - 1), float(rows.sum()) / (n * (n - 1))
    two = squares - pairs * mean**2  # sums of products of deviations: of a pair with itself, with one that
    three = float(np.square(rows - (n - 1) * mean).sum()) - two  # shares a draw, with one that shares none
    four = -2 * two - 4 * three
    triples, quadruples = pairs * (n - 2), pairs * (n - 2) * (n - 3)
    variance = (n - 1) * two / pairs + 2 * (n - 2) * three / triples + (n - 2) * (n - 3) * four / quadruples
    if not variance > 1e-20 * n:
        return 1.0
    observed = float(np.einsum("ij,ij->", s[:-1], s[1:])) - (n - 1) * mean
    return float(2 * scipy.stats.norm.sf(abs(observed) / math.sqrt(variance)))


def _centre(s: NDArray[np.float64], squares: float) -> float:
    """Return the p-value of ``|sum s_i|^2`` over all signs, by the gamma law of its exact first three moments."""
    n, total = len(s), s.sum(axis=0)
    values = np.square(np.linalg.svd(s, compute_uv=False))
    third = 8 * (float(((values - 1) ** 3).sum()) - (n - len(values)))
    deviation = math.sqrt(2 * squares)
    if deviation == 0:
        return 1.0
    z, skewness = (float(total @ total) - n) / deviation, third / deviation**3
    if skewness < 1e-3:
        return float(scipy.stats.norm.sf(z))
    shape = 4 / skewness**2
    return float(scipy.stats.gamma.sf(shape + z * math.sqrt(shape), shape))


def _fourth(c: Centred) -> float:
    """Return the excess of the fourth powers of the entries over ``3 sum r^4 / (p+2)``, in deviations given lengths."""
    p, squares = c.p, c.square_norms
    mean = 3 / (p + 2)
    variance = (105 + 9 * (p - 1)) / ((p + 2) * (p + 4) * (p + 6)) - mean**2
    fourths = np.square(squares)
    return float((c.fourth - mean * fourths.sum()) / math.sqrt(max(variance, 1e-16) * float(np.square(fourths).sum())))


def _variance(c: Centred) -> float:
    """Return the p-value of isotropy from products of directions, studentised.

    About an estimated centre differences of pairs lose half of the rows, products about the mean let long draws speak
    loudest: the smaller p-value of both, doubled. About the mean the statistic is Chen, Zhang and Zhong's.
    """
    free = c.centre_free
    if free.n < 2:
        return 1.0
    z = _studentised(free.directions, free.p, None)
    if c.center == "known":
        return float(scipy.stats.norm.sf(z))
    t1, t2 = c.unbiased_traces
    about = _studentised(c.rows / math.sqrt(t1), c.p, (c.p * t2 / t1**2 - 1) * c.n * (c.n - 1))
    return float(min(1.0, 2 * scipy.stats.norm.sf(max(z, about))))


def _studentised(rows: NDArray[np.float64], p: int, total: float | None) -> float:
    """Return the sum of ``p (x_i'x_j)^2 - 1`` over pairs, or ``total`` for it, over its standard deviation."""
    n = len(rows)
    squares, fourths = _pair_sums(rows, rows)
    found = p * squares - n * (n - 1) if total is None else total
    variance = 2 * (p**2 * fourths - 2 * p * squares + n * (n - 1))
    return found / math.sqrt(variance) if variance > 0 else 0.0


def _pair_sums(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Return the sums of second and fourth powers of the products of different rows."""
    second = fourth = 0.0
    own = np.square(np.einsum("ij,ij->i", a, b))
    for start in range(0, len(a), _ROWS):
        squares = np.square(a[start : start + _ROWS] @ b.T)
        second += float(squares.sum())
        fourth += float(np.square(squares).sum())
    return second - float(own.sum()), fourth - float(np.square(own).sum())
