"""The Tracy-Widom law of order one, which SciPy does not have."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.polynomial import Chebyshev
from scipy.special import airy, airye

from featdyn.statistics.blas import one_thread

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_LOW, _HIGH = -9.0, 12.0  # survival is 1 - 1e-16 and 4e-15 there
_DEGREE = 80
_NEVER = 120.0  # survival is about exp(-2/3 s^(3/2)): from 109 on float64 has no number for it


def survival(s: float) -> float:
    """Return ``P(TW1 > s)`` to a relative error below 1e-9, also far in the tail.

    The Fredholm determinant ``F1(s) = det(1 - Ai(x + y + s))`` on ``L2(0, inf)`` (Ferrari and Spohn 2005) by
    Gauss-Legendre quadrature, which converges exponentially (Bornemann 2010); between -9 and 12 interpolated.
    """
    return survival_without_trace(s, 0.0)


def survival_without_trace(s: float, variance: float) -> float:
    """Return ``P(R > s)`` where ``R + N(0, variance)`` follows TW1, R and the Gaussian independent.

    To first order in the variance ``F_R = F - variance F'' / 2`` (Nadler 2011); applied to the logarithm, so that it
    stays positive in the tail.
    """
    if s <= _LOW:
        return 1.0
    if s >= _NEVER:
        return 0.0
    if s < _HIGH:
        log, slope, curvature = (float(f(s)) for f in _log_series())
    else:
        step = 0.02
        below, log, above = (_log_tail(s + d) for d in (-step, 0.0, step))
        slope, curvature = (above - below) / (2 * step), (above - 2 * log + below) / step**2
    return min(1.0, float(np.exp(log - variance / 2 * (slope**2 + curvature))))


@cache
def _log_series() -> tuple[Chebyshev, Chebyshev, Chebyshev]:
    """Return the logarithm of the survival function and its first two derivatives, as series."""
    with one_thread(len(_NODES)):
        series = Chebyshev.interpolate(np.vectorize(_log_determinant), _DEGREE, domain=[_LOW, _HIGH])
    return series, series.deriv(), series.deriv(2)


def _log_determinant(s: float) -> float:
    half = _half(s)
    x, w = half * (_NODES + 1), np.sqrt(half * _WEIGHTS)
    kernel = w[:, None] * w * airy(x[:, None] + x + s)[0]
    with np.errstate(divide="ignore"):
        # 1 - det(1 - K) from the eigenvalues keeps every digit where they are tiny.
        return float(np.log(-np.expm1(np.log1p(-np.linalg.eigvalsh(kernel)).sum())))


def _log_tail(s: float) -> float:
    """Return the same beyond :data:`_HIGH`, where ``1 - det(1 - K)`` is the trace of K but for 4e-15 of it."""
    half = _half(s)
    z = 2 * half * (_NODES + 1) + s
    scaled = airye(z)[0] * np.exp(2 / 3 * (s**1.5 - z**1.5))  # Ai(z) itself leaves the range of float64 at 104
    return float(np.log(half * _WEIGHTS @ scaled) - 2 / 3 * s**1.5)


def _half(s: float) -> float:
    return max(13.0 - s, 8.0) / 2  # beyond, the kernel is below 1e-16 of its largest entry
