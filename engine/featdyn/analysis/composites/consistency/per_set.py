"""The measures of :mod:`featdyn.analysis.composites.consistency.memory` for every cut and set, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.composites.consistency import ConsistencyOptions, memory
from featdyn.analysis.composites.halves import NOT_HALVES
from featdyn.analysis.composites.predictions import NO_COMMON_PREDICTION, NO_PREDICTION, interval_of
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
    known: NDArray[np.bool_],
    labels: NDArray[np.int64],
    steps: NDArray[np.int64],
    sets: ProbeSets,
    options: ConsistencyOptions,
    constant: int,
    train: NDArray[np.bool_] | None = None,
    unknown: NDArray[np.bool_] | None = None,
) -> xr.Dataset:
    """Return every measure of which composites are right, as declared, and why some are missing.

    ``right`` and ``known``, whether there is a prediction, are ``(cut, t1, t2, probe)``, ``labels`` and ``train``,
    which of the probes are training ones if any are, ``(probe,)``, ``steps`` ``(t,)``; ``constant`` is how many
    checkpoints come before the learning rate first falls; ``unknown`` are the pairs that are no composites ``(cut, t1,
    t2)``: what goes over several pairs is missing at such a cut.
    """
    shown = constant if options.phase == "constant" else right.shape[1]
    window = range(min(shown - 1, round(shown * (1 - options.window))), shown)
    lags = range(window[0] + 1 - shown, shown)
    classes = np.unique(labels[np.any(sets.members, axis=0)])
    unknown = np.zeros(right.shape[:3], bool) if unknown is None else unknown
    whole = np.asarray(unknown.any((1, 2)))  # cuts at which one pair at least is unknown
    horizons = np.stack([memory.horizon(of_cut) for of_cut in right])
    horizons[whole] = -1

    def of_cell(c: int, s: int) -> dict[str, NDArray[np.float64]]:
        member = sets.members[s]
        mine, there = right[c][..., member], known[c][..., member]
        own, origins = labels[member], sets.origins[member]
        accuracy, kept = _intervals(mine, there, origins)
        of_gap = memory.by_gap(mine[:shown, :shown], there[:shown, :shown] & ~whole[c], window, lags)
        gap = interval_of(share_interval, np.isfinite(of_gap), origins, of_gap)
        reach = horizons[c][:, member]
        of_train = np.full(mine.shape[:2], np.nan)
        if train is not None:
            of_train = memory.accuracy(right[c][..., train], known[c][..., train])
        return {
            **accuracy.named("accuracy"),
            **kept.named("retention"),
            **gap.named("gap_accuracy"),
            "forgetting": memory.forgetting(mine, there),
            "particle_forgetting": memory.particle_forgetting(mine, there),
            "class_accuracy": np.stack([memory.accuracy(mine[..., own == k], there[..., own == k]) for k in classes]),
            "transferability": memory.transferability(accuracy.estimate, of_train),
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
    absent = np.array([[not (labels[member] == k).any() for k in classes] for member in sets.members])
    return found.assign(_statuses(found, train is None, absent, unknown))


def _statuses(
    found: xr.Dataset, no_train: bool, absent: NDArray[np.bool_], unknown: NDArray[np.bool_]
) -> dict[str, xr.Variable]:
    """Return why measures are missing where they are; ``absent`` are classes that a set lacks, ``(set, class)``, and
    ``unknown`` pairs that are no composites ``(cut, t1, t2)``.
    """
    pairs, whole = unknown[:, None], np.asarray(unknown.any((1, 2)))[:, None, None]
    unseen = NO_TRAINING_PROBES if no_train else NEVER_RIGHT_ON_TRAIN
    nothing, nothing_common = (np.isnan(found[name].values) for name in ("accuracy", "forgetting"))
    reasons: dict[str, tuple[tuple[str, Any], ...]] = {
        "retention": ((NOT_HALVES, pairs), (NO_COMMON_PREDICTION, nothing_common), (NEVER_RIGHT, ...)),
        "transferability": ((NOT_HALVES, pairs), (NO_PREDICTION, nothing), (unseen, ...)),
        "horizon": ((NOT_HALVES, whole), (NEVER_RIGHT, ...)),
        "class_accuracy": (
            (NO_SUCH_CLASS, absent[..., None, None]),
            (NOT_HALVES, pairs[:, :, None]),
            (NO_PREDICTION, ...),
        ),
        "gap_accuracy": ((NOT_HALVES, whole), (NO_PREDICTION, ...)),
    }
    statuses = {}
    for name, known in reasons.items():
        missing = np.isnan(found[name].values)
        status = Status([str(dim) for dim in found[name].dims], missing.shape)
        for reason, where in known:
            status.mark(reason, missing if where is ... else missing & where)
        statuses[f"{name.removesuffix('_accuracy')}_status"] = status.variable()
    return statuses


def _intervals(right: memory.Right, known: memory.Right, origins: NDArray[np.int64]) -> tuple[Interval, Interval]:
    """Return accuracy and retention ``(t1, t2)``: one row at a time, so that no copy of all is held."""
    rows = [
        (
            interval_of(share_interval, there, origins, of_t1),
            interval_of(ratio_interval, there & there[t1], origins, of_t1, of_t1[t1]),
        )
        for t1, (of_t1, there) in enumerate(zip(right, known, strict=True))
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
