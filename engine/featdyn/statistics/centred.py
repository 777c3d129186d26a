"""Draws about their centre, reduced to the smaller of their two sides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics.blas import one_thread
from featdyn.statistics.result import Center

_PLAIN = 120  # binary exponent of lengths up to which their eighth powers are in the range of float64
_NOTHING = (8 * np.finfo(np.float64).eps) ** 2
"""Share of squared deviations that is rounding: our own choice."""


@dataclass(frozen=True, eq=False, repr=False)
class Centred:
    """Draws about their centre, in min(n, p) coordinates: every test here depends on their inner products alone."""

    rows: NDArray[np.float64]  # (n, r), in some orthonormal basis of the space that the draws span; r <= min(n, p)
    p: int  # coordinates of the draws themselves
    center: Center
    fourth: float = float("nan")  # sum of the fourth powers of all n * p entries; NaN where it is not known
    squares: NDArray[np.float64] | None = None  # (r,), optional, eigenvalues of ``rows' rows``, where they are known
    unit: float = 1.0  # what the rows are given in; 1 but for very large or small ones

    @classmethod
    def of_rows(cls, x: NDArray[Any], center: Center) -> Centred:
        """Return draws ``x (n, p)`` about their mean or about zero."""
        if center not in ("estimated", "known"):
            raise ValueError(f"center must be 'estimated' or 'known', got {center!r}")
        rows = np.array(x, dtype=np.float64)
        total = np.square(rows).sum()
        if center == "estimated":
            rows -= rows.mean(axis=0)
        squares = np.square(rows)
        _require_spread(float(squares.sum()), float(total), x.shape)
        return cls(rows, x.shape[1], center, float(np.square(squares).sum()))

    @classmethod
    def of_products(cls, products: NDArray[np.float64], p: int, center: Center, fourth: float, total: float) -> Centred:
        """Return draws from their inner products (n, n); ``total`` is the sum of squares before centring."""
        n = len(products)
        _require_spread(float(np.trace(products)), total, (n, p))
        exponent = int(np.frexp(np.trace(products))[1]) // 2
        if abs(exponent) > _PLAIN:
            small = cls.of_products(
                np.ldexp(products, -2 * exponent), p, center, math.ldexp(fourth, -4 * exponent), 0.0
            )
            return replace(small, unit=math.ldexp(1.0, exponent))
        with one_thread(n):
            values, vectors = np.linalg.eigh(products)
        kept = slice(max(0, n - p), None)
        values = np.maximum(values[kept], 0.0)
        return cls(vectors[:, kept] * np.sqrt(values), p, center, fourth, values)

    def __repr__(self) -> str:
        return f"Centred(n={self.n}, p={self.p}, center={self.center!r})"

    @property
    def n(self) -> int:
        """Draws."""
        return len(self.rows)

    @property
    def m(self) -> int:
        """Degrees of freedom: n about a known centre, n - 1 about the mean."""
        return self.n - (self.center == "estimated")

    @cached_property
    def square_norms(self) -> NDArray[np.float64]:
        """Squared length of each draw, (n,)."""
        return np.asarray(np.einsum("ij,ij->i", self.rows, self.rows))

    @cached_property
    def eigenvalues(self) -> NDArray[np.float64]:
        """The min(m, p) largest eigenvalues of ``S = X'X / m``, descending; the others are zero."""
        n, r = self.rows.shape
        if self.squares is not None:
            values = self.squares
        else:
            with one_thread(min(n, r)):
                values = np.asarray(np.linalg.eigvalsh(smaller_products(self.rows)))
        return np.maximum(np.sort(values)[::-1][: min(self.m, self.p)], 0.0) / self.m

    def trace(self, k: int = 1) -> float:
        """Return ``t_k = tr S^k``."""
        return float((self.eigenvalues**k).sum())

    @property
    def departure(self) -> float:
        """John's ``U = p t_2 / t_1^2 - 1``: 0 where the sample covariance is a multiple of the identity."""
        return self.p * self.trace(2) / self.trace(1) ** 2 - 1.0

    @cached_property
    def unbiased_traces(self) -> tuple[float, float]:
        """Unbiased estimates (T1, T2) of ``tr Sigma`` and ``tr Sigma^2`` for any law (Chen, Zhang and Zhong 2010).

        The U-statistics over tuples of different draws, in closed form. About the mean ``sum_j G_ij = 0`` for every i,
        which leaves only the lengths of the draws and the sum of all ``G_ij^2``.
        """
        n, w = self.n, self.square_norms
        squares = self.m**2 * self.trace(2) - float(w @ w)  # q: G_ij^2 over i != j
        trace, pairs = float(w.sum()), n * (n - 1)
        if self.center == "known":
            return trace / n, squares / pairs
        if n < 4:
            raise ValueError(f"x must have at least 4 rows where the centre is estimated, got {n}")
        threes = float(w @ w) - squares  # S3: G_ij G_ik over different i, j, k
        fours = trace**2 - 2 * squares - 4 * threes  # S4: G_ij G_kl over different i, j, k, l
        triples, quadruples = pairs * (n - 2), pairs * (n - 2) * (n - 3)
        return trace / n + trace / pairs, squares / pairs - 2 * threes / triples + fours / quadruples

    @property
    def excess_kurtosis(self) -> float:
        """Excess kurtosis of the entries, all coordinates pooled: what their common law has if they are independent.

        About the mean the fourth cumulant and the variance of a deviation are known multiples of the entries' own.
        """
        n, size = self.n, self.n * self.p
        pooled = size * self.fourth / float(self.square_norms.sum()) ** 2 - 3.0
        if self.center == "known":
            return pooled
        kept = 1.0 - 1.0 / n
        return pooled * kept**2 / (kept**4 + (n - 1) / n**4)

    @cached_property
    def centre_free(self) -> Centred:
        """Rows whose law is centred without an estimate: the draws, or ``x_1 - x_2, x_3 - x_4, ...`` (n // 2 rows).

        Deviations from an estimated centre share it: with p >> n that drowns tests that look at directions only. Rows
        that are zero, as differences of equal draws are, have no direction and are left out.
        """
        rows = self.rows
        if self.center == "estimated":
            rows = rows[: self.n // 2 * 2]
            rows = rows[::2] - rows[1::2]
        squares = np.einsum("ij,ij->i", rows, rows)
        lost = self.n * np.finfo(np.float64).eps * self.square_norms.max()  # rounding of the roots of a Gram matrix
        kept = squares > lost
        if self.center == "known" and kept.all():
            return self
        return Centred(rows[kept], self.p, "known", unit=self.unit)

    @cached_property
    def lengths(self) -> NDArray[np.float64]:
        """Lengths of the draws about the law's centre, (n,).

        About an estimated one they follow from those of the deviations: ``E |x_i - mean|^2 = r_i^2 (1 - 2/n) + S/n^2``
        for draws ``x_i`` of length r_i, S the sum of their squares.
        """
        w, n = self.square_norms, self.n
        if self.center == "estimated":
            w = np.maximum((w - w.sum() / (n * (n - 1))) / (1 - 2 / n), 0.0)
        return np.sqrt(w)

    def redrawn(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sets of draws with these directions (b, n, r) and the lengths of the draws, centred as those are."""
        rows = self.lengths[:, None] * directions
        if self.center == "estimated":
            rows -= rows.mean(axis=1, keepdims=True)
        return rows

    @cached_property
    def directions(self) -> NDArray[np.float64]:
        """The rows at unit length, (n, r); of :attr:`centre_free`, as others may have none."""
        return np.asarray(self.rows / np.sqrt(self.square_norms)[:, None])


def smaller_products(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smaller of ``X'X`` and ``X X'`` of rows (..., n, r), which have the same eigenvalues but for zeros."""
    n, r = rows.shape[-2:]
    turned = rows.swapaxes(-1, -2)
    return turned @ rows if r <= n else rows @ turned


def _require_spread(squares: float, total: float, shape: tuple[int, ...]) -> None:
    if not squares > _NOTHING * total:
        raise ValueError(f"x {shape} does not vary: all its rows are the centre")
