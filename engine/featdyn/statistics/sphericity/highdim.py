"""Tests whose null limit lets p grow with n or beyond it; Gaussian draws or independent coordinates."""

from __future__ import annotations

import math

import numpy as np

from featdyn.statistics.centred import Centred
from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.randomness import Rng
from featdyn.statistics.result import Center, TestResult
from featdyn.statistics.sphericity.classical import GAUSSIAN, standardised

INDEPENDENT = "independent coordinates of one law with finite 4th moment"


def ledoit_wolf(x: Draws, *, center: Center = "estimated", rng: Rng = None) -> TestResult:
    """Test sphericity by John's U with its limit for p in proportion to n (Ledoit and Wolf 2002).

    ``m U - p -> N(1, 4)``; ``statistic`` is standardised. In practice the same test as :func:`john`.
    """
    c = centred(x, center)
    statistic = (c.m * c.departure - c.p - 1) / 2
    return standardised("ledoit_wolf", c, statistic, "p in proportion to n; p > n too", GAUSSIAN)


def wang_yao(
    x: Draws, *, center: Center = "estimated", rng: Rng = None, excess_kurtosis: float | None = None
) -> TestResult:
    """Test sphericity by John's U, corrected for the kurtosis of independent coordinates (Wang and Yao 2013).

    ``m U - p -> N(1 + b, 4)``, b the excess kurtosis, which None estimates from all entries, pooled; ``statistic`` is
    standardised. Draws whose length varies as a whole (elliptical laws) are rejected however isotropic they are.
    """
    c = centred(x, center)
    b = c.excess_kurtosis if excess_kurtosis is None else excess_kurtosis
    statistic = (c.m * c.departure - c.p - 1 - b) / 2
    return standardised("wang_yao", c, statistic, "p in proportion to n", INDEPENDENT, excess_kurtosis=b)


def srivastava(x: Draws, *, center: Center = "estimated", rng: Rng = None) -> TestResult:
    """Test sphericity by unbiased estimates of the first two spectral moments (Srivastava 2005).

    ``a1 = tr S / p``, ``a2 = m^2 / ((m-1)(m+2)) (tr S^2 - (tr S)^2 / m) / p``; ``(m/2)(a2 / a1^2 - 1) -> N(0, 1)``.
    """
    c = centred(x, center)
    statistic = c.m / 2 * (second_moment(c) * c.p**2 / c.trace(1) ** 2 - 1)
    return standardised("srivastava", c, statistic, "n and p large, any ratio", GAUSSIAN)


def fisher(x: Draws, *, center: Center = "estimated", rng: Rng = None) -> TestResult:
    """Test sphericity by the fourth spectral moment (Fisher, Sun and Gallagher 2010).

    ``m / sqrt(8 (8 + 12 c + c^2)) (a4 / a2^2 - 1) -> N(0, 1)``, c = p/m, a2 and a4 unbiased for ``tr Sigma^k / p``.
    Strong against few large eigenvalues.

    Raises
    ------
    ValueError
        If m < 4.
    """
    c = centred(x, center)
    if c.m < 4:
        raise ValueError(f"fisher needs m >= 4, got x of shape {(c.n, c.p)}, m = {c.m}")
    ratio = c.p / c.m
    scale = c.m / math.sqrt(8 * (8 + 12 * ratio + ratio**2))
    statistic = scale * (fourth_moment(c) / second_moment(c) ** 2 - 1)
    return standardised("fisher", c, statistic, "p in proportion to n; p > n too", GAUSSIAN)


def quasi_lrt(
    x: Draws, *, center: Center = "estimated", rng: Rng = None, excess_kurtosis: float | None = 0.0
) -> TestResult:
    """Test sphericity by the likelihood ratio of the m non-zero eigenvalues, p much larger than n (Li and Yao 2016).

    ``l`` the non-zero eigenvalues of ``X X' / p``, ``Q = (p/m) [m ln(mean l) - sum ln l]``;
    ``Q - m/2 - m^2/(6p) - (b + 1)/2 -> N(0, 1)``.

    Parameters
    ----------
    excess_kurtosis
        b, of the independent coordinates: 0 for Gaussian ones, None to estimate it.

    Raises
    ------
    ValueError
        If p <= m.
    """
    c = centred(x, center)
    m, p = c.m, c.p
    if p <= m:
        raise ValueError(f"quasi_lrt needs p > m, got x of shape {(c.n, p)}, m = {m}")
    b = c.excess_kurtosis if excess_kurtosis is None else excess_kurtosis
    with np.errstate(divide="ignore"):  # draws of lower rank: infinite, the null is false
        spread = m * math.log(c.trace(1) / m) - float(np.log(c.eigenvalues).sum())
    statistic = p / m * spread - m / 2 - m**2 / (6 * p) - (b + 1) / 2
    assumptions = GAUSSIAN if excess_kurtosis == 0 else INDEPENDENT
    return standardised("quasi_lrt", c, statistic, "p much larger than n", assumptions, excess_kurtosis=b)


def chen_zhang_zhong(x: Draws, *, center: Center = "estimated", rng: Rng = None) -> TestResult:
    """Test sphericity by U-statistics for the first two spectral moments (Chen, Zhang and Zhong 2010).

    ``n/2 (p T2 / T1^2 - 1) -> N(0, 1)``, T1 and T2 (``extras``) unbiased for ``tr Sigma`` and ``tr Sigma^2``: averages
    over tuples of different draws, here in closed form from the Gram matrix. With a known centre the terms that remove
    the mean drop out; about an estimated one n >= 4.

    For linear models, ``x = mean + Gamma z`` with independent coordinates z of finite 8th moment. Draws whose length
    varies as a whole (elliptical laws) are rejected too often: 12 % at nominal 5 % for elliptical t5, n = 64, p = 512.
    """
    c = centred(x, center)
    t1, t2 = c.unbiased_traces
    statistic = c.n / 2 * (c.p * t2 / t1**2 - 1)
    found = {"T1": t1 * c.unit * c.unit, "T2": t2 * c.unit * c.unit * c.unit * c.unit}
    return standardised(
        "chen_zhang_zhong", c, statistic, "n large, any p", "linear in independent coordinates", **found
    )


def second_moment(c: Centred) -> float:
    """Return a2, unbiased for ``tr Sigma^2 / p`` under a Gaussian law."""
    m = c.m
    return m**2 / ((m - 1) * (m + 2)) * (c.trace(2) - c.trace(1) ** 2 / m) / c.p


def fourth_moment(c: Centred) -> float:
    """Return a4, unbiased for ``tr Sigma^4 / p`` under a Gaussian law (Fisher, Sun and Gallagher 2010)."""
    m = float(c.m)
    t1, t2, t3, t4 = (c.trace(k) for k in (1, 2, 3, 4))
    common = m * m + m + 2
    scale = m**5 * common / ((m + 1) * (m + 2) * (m + 4) * (m + 6) * (m - 1) * (m - 2) * (m - 3))
    rest = (
        t4
        - 4 / m * t3 * t1
        - (2 * m * m + 3 * m - 6) / (m * common) * t2**2
        + 2 * (5 * m + 6) / (m * common) * t2 * t1**2
        - (5 * m + 6) / (m * m * common) * t1**4
    )
    return scale * rest / c.p
