"""Mean field capacity of the classes of a set's probes, with an interval over images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.features.folded_moments import bounds
from featdyn.analysis.status import FEW, NO_LABELS, ONE_CLASS
from featdyn.statistics.jackknife import folds
from featdyn.statistics.representation import mean_field

FOLDS = 5
"""Parts of the probes that are left out in turn, each of which costs as much again: our own choice."""
AT_CENTRE = "a_class_mean_is_the_centre"
CAPACITY = ("mean_field_capacity", "mean_field_capacity_low", "mean_field_capacity_high", "mean_field_error")
STATUSES = ("mean_field_status", "mean_field_interval_status")

Values = NDArray[np.float64]


def capacity(
    x: Values, labels: NDArray[np.int64], origins: NDArray[np.int64], draws: int, seed: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the capacity of features ``(n, p)``, and why it or its interval is missing; label -1 is none."""
    known = labels >= 0
    x, labels, origins = x[known], labels[known], origins[known]
    names, counts = np.unique(labels, return_counts=True)
    reason = NO_LABELS if not len(names) else ONE_CLASS if len(names) < 2 else ""
    reason = reason or (FEW if (counts < 2).any() else "")
    found = None if reason else mean_field(x, labels, draws=draws, seed=seed)
    if found is None or not np.isfinite(found.whole):
        return {}, dict.fromkeys(STATUSES, reason or AT_CENTRE)
    inverse = float(np.sqrt(np.square(found.error).sum())) / len(names)
    values = {"mean_field_capacity": found.whole, "mean_field_error": found.whole**2 * inverse}
    fold, others = folds(len(x), FOLDS, seed, origins, labels), []
    for g in np.unique(fold):
        kept = fold != g
        left = np.unique(labels[kept], return_counts=True)[1]
        whole = len(left) == len(names) and left.min() > 1
        others.append(mean_field(x[kept], labels[kept], draws=draws, seed=seed).whole if whole else np.nan)
    low, high, without = bounds(found.whole, others, None, np.bincount(fold).tolist())  # 2 at most, but for the draws
    return values | {"mean_field_capacity_low": low, "mean_field_capacity_high": high}, {STATUSES[1]: without}
