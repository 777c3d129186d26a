"""Of the singular values of a matrix: how full it is, how badly conditioned, and how they decay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.alignment.spectrum import entropy_rank

Values = NDArray[np.float64]
TOLERANCE = 1e-6
"""Singular values below this share of the largest are zero: our own choice, for numbers recorded as float32."""


def singular_values(x: ArrayLike, *, centre: bool = True) -> Values:
    """Return the singular values ``(min(n, p),)``, largest first, of ``x (n, p)`` less its mean over the samples."""
    array = checks.finite(checks.matrix(x, "x", rows=1, columns=1), "x").astype(np.float64)
    array = array - array.mean(0) if centre else array
    return np.asarray(np.linalg.svd(array, compute_uv=False))


def proportional_effective_rank(x: ArrayLike, *, of: Literal["features", "weights"] = "features") -> float:
    """Return the effective rank of singular values (Roy and Vetterli 2007) over the largest that is possible.

    That is ``min(n, p)`` of features (n samples, p), which are centred; and p, the rows, of a matrix of weights, as in
    pico-analyze, which are not. NaN where all is zero.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(1000, 4))
    >>> round(proportional_effective_rank(x), 2)
    1.0
    """
    values = singular_values(x, centre=of == "features")
    if not values[0] > 0:
        return math.nan
    return entropy_rank(values) / (len(values) if of == "features" else np.shape(x)[0])


def condition_number(values: ArrayLike, *, tolerance: float = TOLERANCE) -> tuple[float, int]:
    """Return the largest singular value over the smallest that is not zero, and the rank; NaN and 0 of none."""
    s = np.sort(np.asarray(values, np.float64))[::-1]
    kept = s[s > tolerance * s[0]] if len(s) and s[0] > 0 else s[:0]
    return (float(kept[0] / kept[-1]), len(kept)) if len(kept) else (math.nan, 0)


@dataclass(frozen=True)
class PowerLaw:
    """A line through ``ln l_i`` over ``ln i``."""

    exponent: float  # minus its slope; NaN where fewer than three eigenvalues are in range
    fit: float  # R^2, share of the variance of ln l_i that the line explains
    first: int  # range of i, both included
    last: int


def power_law(values: ArrayLike, *, first: int = 1, last: int | None = None, tolerance: float = TOLERANCE) -> PowerLaw:
    """Return by what power of their rank the eigenvalues ``(m,)`` of a covariance fall.

    The range, from ``first`` to ``last`` (of those whose root is above ``tolerance`` of the largest's), is our own
    choice, and decides much.
    """
    if first < 1:
        raise ValueError(f"first must be at least 1, got {first}")
    lam = np.sort(np.asarray(values, np.float64))[::-1]
    positive = int((lam > tolerance**2 * lam[0]).sum()) if len(lam) and lam[0] > 0 else 0
    stop = min(positive, positive if last is None else last)
    if stop - first < 2:
        return PowerLaw(math.nan, math.nan, first, stop)
    rank, size = np.log(np.arange(first, stop + 1)), np.log(lam[first - 1 : stop])
    slope, start = np.polyfit(rank, size, 1)
    left = float(np.square(size - start - slope * rank).sum())
    whole = float(np.square(size - size.mean()).sum())
    return PowerLaw(-float(slope), 1 - left / whole if whole > 0 else math.nan, first, stop)
