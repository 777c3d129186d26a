"""Likelihood-ratio and John's test: Gaussian draws, few coordinates or any."""

from __future__ import annotations

import numpy as np
import scipy

from featdyn.statistics.centred import Centred
from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.randomness import Rng
from featdyn.statistics.result import Center, TestResult

GAUSSIAN = "Gaussian draws"


def mauchly(x: Draws, *, center: Center = "estimated", rng: Rng = None) -> TestResult:
    """Test sphericity by the likelihood ratio with Bartlett's correction (Mauchly 1940).

    ``W = det S / (tr S / p)^p``; ``-m [1 - (2p^2 + p + 2)/(6pm)] ln W -> chi2`` with ``p(p+1)/2 - 1`` degrees of
    freedom. For Gaussian draws, p fixed and small beside n: at p/m = 1/2 the nominal 5 % test rejects 31 % of the time.

    Raises
    ------
    ValueError
        If p >= m.
    """
    c = centred(x, center)
    m, p = _fewer_coordinates(c, "mauchly")
    freedom = p * (p + 1) / 2 - 1
    statistic = -m * (1 - (2 * p * p + p + 2) / (6 * p * m)) * log_ratio(c)
    pvalue = float(scipy.stats.chi2.sf(statistic, freedom))
    return TestResult("mauchly", statistic, pvalue, c.n, p, c.center, "p fixed, n large (p much below n)", GAUSSIAN)


def john(x: Draws, *, center: Center = "estimated", rng: Rng = None) -> TestResult:
    """Test sphericity by John's locally best invariant statistic (John 1971).

    ``U = p tr S^2 / (tr S)^2 - 1``; ``(m p / 2) U -> chi2`` with ``p(p+1)/2 - 1`` degrees of freedom. For Gaussian
    draws, any n and p. ``extras["U"]`` is the statistic itself.
    """
    c = centred(x, center)
    p, u = c.p, c.departure
    statistic = c.m * p / 2 * u
    pvalue = float(scipy.stats.chi2.sf(statistic, p * (p + 1) / 2 - 1))
    return TestResult("john", statistic, pvalue, c.n, p, c.center, "any n and p", GAUSSIAN, {"U": u})


def corrected_lrt(
    x: Draws, *, center: Center = "estimated", rng: Rng = None, excess_kurtosis: float | None = 0.0
) -> TestResult:
    """Test sphericity by the likelihood ratio, corrected for p in proportion to n (Wang and Yao 2013).

    ``L = -ln W``, c = p/m: ``L + (p - m) ln(1 - c) - p -> N(-ln(1 - c)/2 + b c/2, -2 ln(1 - c) - 2c)``.

    Parameters
    ----------
    excess_kurtosis
        b, of the independent coordinates: 0 for Gaussian ones, None to estimate it.

    Raises
    ------
    ValueError
        If p >= m.
    """
    c = centred(x, center)
    m, p = _fewer_coordinates(c, "corrected_lrt")
    b = c.excess_kurtosis if excess_kurtosis is None else excess_kurtosis
    ratio = p / m
    log = np.log1p(-ratio)
    statistic = (-log_ratio(c) + (p - m) * log - p + log / 2 - b * ratio / 2) / np.sqrt(-2 * log - 2 * ratio)
    assumed = GAUSSIAN if excess_kurtosis == 0 else "independent coordinates of one law"
    return standardised("corrected_lrt", c, float(statistic), "p in proportion to n, p < m", assumed, excess_kurtosis=b)


def standardised(name: str, c: Centred, statistic: float, regime: str, assumptions: str, **extras: float) -> TestResult:
    """Return the result of a statistic that is standard normal under the null."""
    pvalue = float(scipy.stats.norm.sf(statistic))
    return TestResult(name, statistic, pvalue, c.n, c.p, c.center, regime, assumptions, extras)


def log_ratio(c: Centred) -> float:
    """Return ``ln W = ln det S - p ln(tr S / p)``; minus infinity for a singular S."""
    with np.errstate(divide="ignore"):
        return float(np.log(c.eigenvalues).sum() - c.p * np.log(c.trace(1) / c.p))


def _fewer_coordinates(c: Centred, name: str) -> tuple[int, int]:
    if c.p >= c.m:
        raise ValueError(f"{name} needs p < m, got x of shape {(c.n, c.p)}, m = {c.m}")
    return c.m, c.p
