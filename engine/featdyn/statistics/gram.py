"""The Gram matrix of n draws: one product over all coordinates, from which every test of isotropy follows.

Sums are in float64 whatever the input: blocks of columns are converted, centred exactly and multiplied in float64. Test
statistics subtract numbers of size p to look for differences of size one, which float32 products would not survive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.blas import one_thread
from featdyn.statistics.centred import Centred
from featdyn.statistics.result import Center

_BLOCK = 2**16
"""Entries of one float64 block of columns, 512 KiB: it and its copies stay in the cache of a core. On a Sapphire Rapids
core (2 MiB of it) 64 x 268,784 take 0.41 s of processor time with 2**20, 0.26 with 2**18, 0.21 with 2**17, 0.18 so."""
_LARGEST = 230  # binary exponent, about 1e69: fourth powers of larger entries, or of smaller than its inverse, are lost
_PLAIN = 100  # binary exponent up to which draws are taken in their own units


@dataclass(frozen=True, eq=False, repr=False)
class Gram:
    """Inner products of n draws; grams of two blocks of coordinates add to the gram of both.

    Attributes
    ----------
    centred : (n, n), products of the deviations from the mean draw
    along_mean : (n,), products of the deviations with the mean draw
    mean_square : float
        Squared length of the mean draw. With these, the products of the draws themselves follow, without loss where the
        mean is large beside the deviations.
    fourth_centred, fourth : sums of the fourth powers of all deviations and of all entries
    """

    n: int
    p: int
    centred: NDArray[np.float64]
    along_mean: NDArray[np.float64]
    mean_square: float
    fourth_centred: float
    fourth: float

    @classmethod
    def of(cls, x: ArrayLike) -> Gram:
        """Return the Gram matrix of draws ``x (n, p)``, n >= 3, real and finite; their largest within 1e-69 to 1e69."""
        rows = checks.matrix(x, "x", rows=3, columns=1)
        if abs(checks.exponent(rows)) > _LARGEST:
            raise ValueError(
                f"the largest entry of x {rows.shape} must lie between 1e-69 and 1e69: give it other units"
            )
        n, p = rows.shape
        width = max(1, _BLOCK // n)
        with one_thread(min(n, p)):
            gram = cls._of_block(rows[:, :width])
            for start in range(width, p, width):
                gram = gram + cls._of_block(rows[:, start : start + width])
        if not np.isfinite([gram.fourth, gram.fourth_centred]).all():  # fourth powers see what any entry holds
            raise ValueError(f"x {rows.shape} must be finite, with fourth powers in the range of float64")
        return gram

    @classmethod
    def _of_block(cls, block: NDArray[Any]) -> Gram:
        with np.errstate(over="ignore", invalid="ignore"):  # reported by of()
            x = np.ascontiguousarray(block, dtype=np.float64)
            mean = x.mean(axis=0)
            squares = np.square(x).ravel()
            fourth = float(squares @ squares)
            x = x - mean
            np.square(x.ravel(), out=squares)
            fourth_centred = float(squares @ squares)
            return cls(len(x), x.shape[1], x @ x.T, x @ mean, float(mean @ mean), fourth_centred, fourth)

    def __repr__(self) -> str:
        return f"Gram(n={self.n}, p={self.p})"

    def __add__(self, other: Gram) -> Gram:
        if not isinstance(other, Gram):
            return NotImplemented
        if self.n != other.n:
            raise ValueError(f"cannot add Gram matrices of {self.n} and {other.n} draws")
        return Gram(self.n, *(getattr(self, f.name) + getattr(other, f.name) for f in fields(Gram) if f.name != "n"))

    def about(self, center: Center) -> Centred:
        """Return the draws about their mean (``"estimated"``) or about zero (``"known"``), as tests take them."""
        if center not in ("estimated", "known"):
            raise ValueError(f"center must be 'estimated' or 'known', got {center!r}")
        return self._about_mean if center == "estimated" else self._about_zero

    @cached_property
    def _about_mean(self) -> Centred:
        total = np.trace(self.centred) + self.n * self.mean_square
        return Centred.of_products(self.centred, self.p, "estimated", self.fourth_centred, total)

    @cached_property
    def _about_zero(self) -> Centred:
        products = self.centred + self.along_mean + self.along_mean[:, None] + self.mean_square
        return Centred.of_products(products, self.p, "known", self.fourth, np.trace(products))


def group_means(x: Draws, groups: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of each group of draws ``x (n, p)``, in the order in which groups first appear: (groups, p).

    Copies of one image are not independent draws; their means are.
    """
    if isinstance(x, Gram | Centred):
        raise TypeError("groups need the draws themselves, not their inner products")
    rows = checks.matrix(x, "x", rows=1, columns=1)
    member = checks.groups(groups, len(rows))
    first = np.unique(member, return_index=True)[1]
    sums = np.zeros((len(first), rows.shape[1]))
    np.add.at(sums, member, rows)
    return np.asarray((sums / np.bincount(member)[:, None])[np.argsort(first)])


Draws: TypeAlias = ArrayLike | Gram | Centred


def centred(x: Draws, center: Center) -> Centred:
    """Return the draws about their centre; what the tests take is checked here.

    ``x`` is an array (n, p) with n >= 3 and p >= 2, its :class:`Gram`, or what an earlier call returned, so that
    several tests share the work.
    """
    if isinstance(x, Centred):
        if x.center != center:
            raise ValueError(f"x was centred with center={x.center!r} and is asked for with center={center!r}")
        return x
    if not isinstance(x, Gram):
        rows = checks.matrix(x, "x", rows=3, columns=2)
        exponent = checks.exponent(rows)
        if abs(exponent) > _PLAIN:  # no test sees units, but their squares leave the range of float64
            rows = np.ldexp(rows.astype(np.float64), -exponent)
            return replace(centred(rows, center), unit=math.ldexp(1.0, exponent))
        if rows.shape[0] > rows.shape[1]:  # the smaller side is that of the coordinates
            return Centred.of_rows(checks.finite(rows, "x"), center)
        x = Gram.of(rows)
    if x.p < 2:
        raise ValueError(f"x must have at least 2 columns, got shape {(x.n, x.p)}")
    return x.about(center)
