"""The measures of :mod:`featdyn.analysis.composites.consistency.memory` for every cut and set, with intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.composites.consistency import ConsistencyOptions
from featdyn.analysis.composites.consistency import memory as pairs
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.statistics.resampling import bootstrap_counts, wilson

DIMS = {
    "class_accuracy": ("class", "t1", "t2"),
    "horizon": ("t2",),
    "horizon_steps": ("t2",),
    **{f"gap_accuracy{end}": ("lag",) for end in ("", "_low", "_high")},
}
"""Of the measures that are not one number for each pair (t1, t2)."""


def measures(
    right: NDArray[np.bool_],
    labels: NDArray[np.int64],
    steps: NDArray[np.int64],
    sets: ProbeSets,
    options: ConsistencyOptions,
    constant: int,
) -> xr.Dataset:
    """Return every measure of which composites are right.

    Parameters
    ----------
    right
        ``(cut, t1, t2, probe)``.
    labels
        ``(probe,)``.
    steps
        ``(t,)`` training steps of the checkpoints.
    constant
        Checkpoints before the learning rate first falls.

    Returns
    -------
    xarray.Dataset
        ``(cut, set, t1, t2)``: ``accuracy`` (on train the empirical memory), ``retention``, ``forgetting``,
        ``particle_forgetting``, ``transferability`` (against train, where there is such a set). ``(cut, set, t2)``:
        ``horizon`` and ``horizon_steps``, means over the probes that t2's own network has right. ``(cut, t2, probe)``:
        ``probe_horizon``, in checkpoints. ``(cut, set, class, t1, t2)``: ``class_accuracy``. ``(cut, set, lag)``:
        ``gap_accuracy``, the mean accuracy of (t2 - lag, t2) over the t2 of the window. ``accuracy_low`` and ``_high``
        are 95 % Wilson intervals; those of ``retention`` and ``gap_accuracy`` are percentiles over resampled probes.
    """
    checkpoints = right.shape[1]
    shown = constant if options.phase == "constant" else checkpoints
    window = range(min(shown - 1, round(shown * (1 - options.window))), shown)
    lags = range(window[0] + 1 - shown, shown)
    classes = np.unique(labels)
    horizons = np.stack([pairs.horizon(of_cut) for of_cut in right])
    train = sets.members[sets.names.index("train")] if "train" in sets.names else None
    drawn = [bootstrap_counts(size, options.draws, options.seed) for size in sets.sizes]

    def of_set(mine: pairs.Right, s: int) -> dict[str, NDArray[np.float64]]:
        accuracy, retained = pairs.accuracy(mine), pairs.bootstrap_retention(mine, drawn[s])
        low, high = wilson(accuracy, sets.sizes[s])
        gaps = pairs.by_gap(mine[:shown, :shown], window, lags)
        gap_low, gap_high = np.quantile(drawn[s] @ gaps.T / drawn[s].sum(1)[:, None], (0.025, 0.975), axis=0)
        own = labels[sets.members[s]]
        return {
            "accuracy": accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "retention": pairs.retention(mine),
            "retention_low": retained[0],
            "retention_high": retained[1],
            "forgetting": pairs.forgetting(mine),
            "particle_forgetting": pairs.particle_forgetting(mine),
            "class_accuracy": np.stack([pairs.accuracy(mine[..., own == k]) for k in classes]),
            "gap_accuracy": gaps.mean(-1),
            "gap_accuracy_low": gap_low,
            "gap_accuracy_high": gap_high,
        }

    def of_cut(c: int, s: int) -> dict[str, NDArray[np.float64]]:
        member, found = sets.members[s], of_set(right[c][..., sets.members[s]], s)
        if train is not None:
            found["transferability"] = pairs.transferability(right[c][..., member], right[c][..., train])
        reach = horizons[c][:, member]
        found["horizon"] = _mean(np.where(reach < 0, np.nan, reach))
        found["horizon_steps"] = _mean(pairs.horizon_steps(reach, steps))
        return found

    cells = [[of_cut(c, s) for s in range(len(sets.names))] for c in range(len(right))]
    values = {
        name: (("cut", "set", *DIMS.get(name, ("t1", "t2"))), np.stack([[cell[name] for cell in row] for row in cells]))
        for name in cells[0][0]
    }
    probe_horizon = ("cut", "t2", "probe"), horizons.astype(np.int16)
    return xr.Dataset({**values, "probe_horizon": probe_horizon}, {"lag": list(lags), "class": classes})


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over probes (the last axis) that are not NaN; NaN where all are."""
    known = np.isfinite(values)
    total: NDArray[np.float64] = np.where(known, values, 0).sum(-1)
    return total / np.where(known.any(-1), known.sum(-1), np.nan)
