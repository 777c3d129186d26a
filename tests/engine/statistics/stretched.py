"""Percentiles of bootstrap draws, as far from the estimate as few groups make them: one number after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


def stretched(draws: Any, estimate: float, units: float, bounds: Any = (-np.inf, np.inf), tail: float = 0.025) -> Any:
    if units == 1:
        return [np.nan, np.nan]
    factor = np.sqrt(units / (units - 1)) * stats.t.isf(tail, units - 1) / stats.norm.isf(tail)
    low, high = np.quantile(draws, [tail, 1 - tail])
    low = estimate - factor * (estimate - low) if low < estimate else low
    high = estimate + factor * (high - estimate) if high > estimate else high
    return [min(max(limit, bounds[0]), bounds[1]) for limit in (low, high)]


def units_of(groups: Any) -> float:
    """Return of how many groups of equal sizes these are worth, 1 where that is below 1.5."""
    sizes = [list(groups).count(g) for g in set(groups)]
    found = sum(sizes) ** 2 / sum(m**2 for m in sizes)
    return 1.0 if found < 1.5 else found
