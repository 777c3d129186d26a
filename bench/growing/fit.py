"""How something grows: the exponent that fits, that of the last step, and where it would end.

A command has a cost that does not grow, so that the slope over all points is below the exponent that a large run sees;
that of the last step is nearer, and is what is held against the exponent of the work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

SLACK = 0.35
"""Of an exponent: what processor time on a shared machine varies by (10 %), and caches, over a factor of two."""


def growth(sizes: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    """Return the slope of log(value) over log(size) with its 95 % interval, and that of the last step.

    A value of zero counts as the least that is not; all zero is no growth.
    """
    x, y = np.asarray(sizes, float), np.asarray(values, float)
    positive = y[y > 0]
    if not len(positive) or np.ptp(np.maximum(y, positive.min())) == 0:  # of which no interval would be known
        return {"slope": 0.0, "low": 0.0, "high": 0.0, "last": 0.0}
    u, v = np.log(x), np.log(np.maximum(y, positive.min()))
    fit = stats.linregress(u, v)
    half = float(stats.t.ppf(0.975, len(x) - 2)) * fit.stderr
    last = (v[-1] - v[-2]) / (u[-1] - u[-2])
    return {"slope": fit.slope, "low": fit.slope - half, "high": fit.slope + half, "last": float(last)}


def ends(sizes: Sequence[float], values: Sequence[float], limit: float) -> float:
    """Return the size at which what grows as in the last step comes to the limit; infinite where it does not grow."""
    last = growth(sizes, values)["last"]
    if values[-1] >= limit:
        return float(sizes[-1])
    if last <= 0.05 or values[-1] <= 0:
        return math.inf
    power = math.log(limit / values[-1]) / last
    return math.inf if power > 200 else float(sizes[-1]) * math.exp(power)
