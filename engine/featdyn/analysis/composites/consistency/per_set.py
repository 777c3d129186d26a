"""The measures of :mod:`featdyn.analysis.composites.consistency.memory` for every cut and set, with intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.composites.consistency import PAIRS, ConsistencyOptions, memory
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.status import NEVER_RIGHT, NO_TRAINING_PROBES, Status
from featdyn.statistics.ratios import ratio_interval
from featdyn.statistics.resampling import Interval, share_interval

DIMS = {
    "class_accuracy": ("class", "t1", "t2"),
    "horizon": ("t2",),
    "horizon_steps": ("t2",),
    **{f"gap_accuracy{end}": ("lag",) for end in ("", "_low", "_high")},
}
"""Of the measures that are not one number for each pair (t1, t2)."""
NO_SUCH_CLASS = "no_probe_of_this_class"
NEVER_RIGHT_ON_TRAIN = "composite_is_never_right_on_training_probes"


def measures(
    right: NDArray[np.bool_],
    labels: NDArray[np.int64],
    steps: NDArray[np.int64],
    sets: ProbeSets,
    options: ConsistencyOptions,
    constant: int,
    train: NDArray[np.bool_] | None = None,
) -> xr.Dataset:
    """Return every measure of which composites are right, as declared, and why some are missing.

    ``right`` is ``(cut, t1, t2, probe)``, ``labels`` and ``train``, which of the probes are training ones if any are,
    ``(probe,)``, ``steps`` ``(t,)``; ``constant`` is how many checkpoints come before the learning rate first falls.
    """
    shown = constant if options.phase == "constant" else right.shape[1]
    window = range(min(shown - 1, round(shown * (1 - options.window))), shown)
    lags = range(window[0] + 1 - shown, shown)
    classes = np.unique(labels[np.any(sets.members, axis=0)])
    horizons = np.stack([memory.horizon(of_cut) for of_cut in right])

    def of_cell(c: int, s: int) -> dict[str, NDArray[np.float64]]:
        member = sets.members[s]
        mine, own, origins = right[c][..., member], labels[member], sets.origins[member]
        accuracy, kept = _intervals(mine, origins)
        gap = share_interval(memory.by_gap(mine[:shown, :shown], window, lags), groups=origins)
        reach = horizons[c][:, member]
        unseen = np.full(mine.shape[:2], np.nan)
        return {
            **accuracy.named("accuracy"),
            **kept.named("retention"),
            **gap.named("gap_accuracy"),
            "forgetting": memory.forgetting(mine),
            "particle_forgetting": memory.particle_forgetting(mine),
            "class_accuracy": np.stack([memory.accuracy(mine[..., own == k]) for k in classes]),
            "transferability": unseen if train is None else memory.transferability(mine, right[c][..., train]),
            "horizon": _mean(np.where(reach < 0, np.nan, reach)),
            "horizon_steps": _mean(memory.horizon_steps(reach, steps)),
        }

    cells = [[of_cell(c, s) for s in range(len(sets.names))] for c in range(len(right))]
    values = {
        name: (("cut", "set", *DIMS.get(name, ("t1", "t2"))), np.stack([[cell[name] for cell in row] for row in cells]))
        for name in cells[0][0]
    }
    found = xr.Dataset(
        {**values, "probe_horizon": (("cut", "t2", "probe"), horizons.astype(np.int16))},
        {"lag": list(lags), "class": classes},
    )
    return found.assign(_statuses(found, train is None))


def _statuses(found: xr.Dataset, no_train: bool) -> dict[str, xr.Variable]:
    """Return why measures are missing where they are."""
    unseen = NO_TRAINING_PROBES if no_train else NEVER_RIGHT_ON_TRAIN
    reasons = {
        "retention": (PAIRS.split(), NEVER_RIGHT),
        "transferability": (PAIRS.split(), unseen),
        "horizon": (["cut", "set", "t2"], NEVER_RIGHT),
        "class_accuracy": (["cut", "set", "class", "t1", "t2"], NO_SUCH_CLASS),
    }
    statuses = {}
    for name, (dims, reason) in reasons.items():
        status = Status(dims, found[name].shape).mark(reason, np.isnan(found[name].values))
        statuses[f"{name.removesuffix('_accuracy')}_status"] = status.variable()
    return statuses


def _intervals(right: memory.Right, origins: NDArray[np.int64]) -> tuple[Interval, Interval]:
    """Return accuracy and retention ``(t1, t2)``: one row at a time, so that no copy of all is held."""
    rows = [
        (share_interval(of_t1, groups=origins), ratio_interval(of_t1, of_t1[t1], groups=origins))
        for t1, of_t1 in enumerate(right)
    ]
    accuracy, kept = (
        Interval(*(np.stack([getattr(row, end) for row in each]) for end in ("estimate", "low", "high")))
        for each in zip(*rows, strict=True)
    )
    return accuracy, kept


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over probes (the last axis) that are not NaN; NaN where all are."""
    known = np.isfinite(values)
    total: NDArray[np.float64] = np.where(known, values, 0).sum(-1)
    return total / np.where(known.any(-1), known.sum(-1), np.nan)
