"""Are lengths of draws as spread as those of Gaussian draws? What decides which tests can be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from featdyn.statistics.gram import Draws, centred
from featdyn.statistics.result import Center

Tail: TypeAlias = Literal["gaussian", "independent", "elliptical"]
_LIMIT = 3.0
"""Standard errors: a false alarm only withholds a test, a miss lets a wrong one count. Our own choice."""


@dataclass(frozen=True)
class TailShape:
    """Spread of squared lengths beside its Gaussian value.

    Attributes
    ----------
    kind : as Gaussian draws; as independent coordinates of the measured kurtosis; neither (lengths vary as a whole)
    dispersion, gaussian_dispersion : float
        Variance over squared mean of the squared lengths, and ``2 tr Sigma^2 / (tr Sigma)^2``, its value under a
        Gaussian law.
    excess_kurtosis : of all entries, pooled
    john_shift : by how much the excess dispersion moves John's ``m U - p``, whose null standard deviation is 2
    """

    kind: Tail
    dispersion: float
    gaussian_dispersion: float
    excess_kurtosis: float
    john_shift: float


def tail_shape(x: Draws, *, center: Center = "estimated") -> TailShape:
    """Return how the lengths of draws spread, and which kind of law they fit.

    The classes and their limit of three standard errors are featdyn's own choice. The standard error is that of a
    Gaussian quadratic form: ``(2 + 12 tr S^4 / (tr S^2)^2) / n`` relative variance.
    """
    c = centred(x, center)
    w = c.square_norms
    dispersion = float(w.var(ddof=1) / w.mean() ** 2)
    t1, t2 = c.unbiased_traces
    gaussian = 2 * max(t2 / t1**2, 1 / c.p)
    kurtosis = c.excess_kurtosis
    error = math.sqrt((2 + 12 * c.trace(4) / c.trace(2) ** 2) / c.n)
    independent = max(gaussian + kurtosis / c.p, gaussian * 1e-3)
    kind: Tail = "elliptical"
    if abs(dispersion / gaussian - 1) < _LIMIT * error:
        kind = "gaussian"
    elif abs(dispersion / independent - 1) < _LIMIT * error:
        kind = "independent"
    return TailShape(kind, dispersion, gaussian, kurtosis, c.p * (dispersion - gaussian))
