"""The largest root: the test that looks for one direction."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics import tracy_widom, wishart
from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.randomness import Rng
from featdyn.statistics.result import Center, TestResult
from featdyn.statistics.sphericity.classical import GAUSSIAN

_LIMIT = 0.5
"""Variance of the trace, in Tracy-Widom units, up to which the limit law is used: our own choice."""
_REPLICATES = 20_000
"""Draws of the null where it is not: our own choice."""


def largest_root(x: Draws, *, center: Center = "estimated", rng: Rng = None) -> TestResult:
    """Test sphericity by the largest eigenvalue beside the mean one (Johnstone 2001).

    ``(m p l_1 / tr S - mu) / s`` beside the Tracy-Widom law of order one,
    ``mu = (sqrt(m - 1/2) + sqrt(p - 1/2))^2``, ``s = sqrt(mu) (1/sqrt(m - 1/2) + 1/sqrt(p - 1/2))^(1/3)``.

    For Gaussian draws. The halves are Ma's (2012), which halve the error of Johnstone's m - 1 and p. Dividing by the
    trace takes away its share of the variance, so the plain limit law (``extras["tracy_widom_pvalue"]``) is
    conservative; ``pvalue`` removes that share to first order (Nadler 2011). Where the share is large (min(m, p) below
    about 10) ``pvalue`` is from 20,000 simulated Wishart matrices of a fixed seed instead, never below 1/20,001. This
    combination is featdyn's own.
    """
    c = centred(x, center)
    share = float(c.eigenvalues[0]) / c.trace(1)
    statistic, _ = _standardise(share, c.m, c.p)
    extras = {"tracy_widom_pvalue": tracy_widom.survival(statistic), "share": share}
    pvalue = root_pvalue(share, c.m, c.p)
    return TestResult("largest_root", statistic, pvalue, c.n, c.p, c.center, "any n and p", GAUSSIAN, extras)


def root_pvalue(share: float, m: int, p: int) -> float:
    """Return P(l_1 / sum l > share) for the spectrum of a spherical Wishart matrix, m degrees of freedom."""
    statistic, variance = _standardise(share, m, p)
    if variance <= _LIMIT:
        return tracy_widom.survival_without_trace(statistic, variance)
    null = _simulated(min(m, p), max(m, p))
    return float(1 + (null >= share * (1 - 1e-12)).sum()) / (1 + _REPLICATES)


def _standardise(share: float, m: int, p: int) -> tuple[float, float]:
    """Return the standardised root, and the variance that the trace would add to it."""
    a, b = math.sqrt(m - 0.5), math.sqrt(p - 0.5)
    center, scale = (a + b) ** 2, (a + b) * (1 / a + 1 / b) ** (1 / 3)
    return (m * p * share - center) / scale, 2 / (m * p) * (center / scale) ** 2


@lru_cache(maxsize=64)
def _simulated(small: int, large: int) -> NDArray[np.float64]:
    return wishart.largest_shares(small, large, _REPLICATES, np.random.default_rng(0))
