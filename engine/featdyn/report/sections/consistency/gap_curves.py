"""Gap curves: what is left of a composite as its two halves come from checkpoints further apart.

The average of A(t2 - s, t2) over t2 as a function of s is our own choice of summary, and so is grouping by distance in
steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curves, line, lines
from featdyn.report.rounding import rounded
from featdyn.report.section import Section, choices_of, panel, preset_set
from featdyn.report.sections.consistency.pair_maps import measured


@dataclass(frozen=True)
class Distances:
    """The pairs with t1 <= t2 and t2 in the result's window, grouped by how far apart they are."""

    group: NDArray[np.intp]  # (pairs,)
    position: NDArray[np.float64]  # (groups,) mean distance within each group
    older: NDArray[np.intp]  # (pairs,) index of t1
    newer: NDArray[np.intp]  # (pairs,) index of t2

    @classmethod
    def by_checkpoint(cls, result: xr.Dataset) -> Distances:
        """Group by the number of checkpoints in between."""
        older, newer, gap = _pairs(result, "t")
        return cls._grouped(gap, gap, older, newer)

    @classmethod
    def by_step(cls, result: xr.Dataset) -> Distances:
        """Group by training steps, each group twice as far as the one before: checkpoints are not evenly spaced."""
        older, newer, gap = _pairs(result, "step")
        apart = gap > 0
        return cls._grouped(np.floor(np.log2(gap[apart])), gap[apart], older[apart], newer[apart])

    @classmethod
    def _grouped(
        cls, key: NDArray[Any], gap: NDArray[Any], older: NDArray[np.intp], newer: NDArray[np.intp]
    ) -> Distances:
        _, group, number = np.unique(key, return_inverse=True, return_counts=True)
        return cls(group, np.bincount(group, weights=gap) / number, older, newer)

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean over the pairs of each group; NaN where a pair has no value."""
        return np.asarray(np.bincount(self.group, weights=values) / self.number)

    @property
    def number(self) -> NDArray[np.intp]:
        """Pairs in each group."""
        return np.bincount(self.group)


TEXT = (
    "What happens as the halves drift apart: the mean over the pairs whose shallow half is so much older than the "
    "deep half, over those t2 that the option window names, by default the last half of the checkpoints. Accuracy by "
    "distance in checkpoints is the result’s variable gap_accuracy, with its 95 % limits. The dotted line is the mean "
    "of the trained networks t2 over the same pairs; how far a curve lies below it is what the older shallow half "
    "costs. Since checkpoints are not evenly spaced, the second figure counts distance in training steps and groups "
    "pairs by doubling distance.",
)


def gap_curves(result: xr.Dataset) -> Iterator[Section]:
    """Yield the section."""
    measures = measured(result)
    if not measures or result.sizes["t2"] < 2:
        return
    choices = choices_of(result, "set") | {"measure": measures}
    linear = Axis("t2 − t1, in checkpoints", whole=True, from_zero=True)
    log = Axis("training steps from t1 to t2", "log")

    def draw(distances: Distances, xaxis: Axis, set: str, measure: str) -> Lines:
        return _figure(result.isel(set=int(set)), measure, measures[measure], distances, xaxis)

    panels = [
        panel("By distance in checkpoints", choices, partial(draw, Distances.by_checkpoint(result), linear), "gap"),
        panel("By distance in training steps", choices, partial(draw, Distances.by_step(result), log), "gap_by_step"),
    ]
    yield Section("Gap curves", TEXT, panels, choices, preset_set(result))


def _figure(result: xr.Dataset, name: str, title: str, distances: Distances, xaxis: Axis) -> Lines:
    y, by_step = Axis(title, share=True), xaxis.scale == "log"
    common: dict[str, Any] = {"x": rounded(distances.position), "beside": distances.number}
    each = []
    if name == "accuracy" and "plain_accuracy" in result:
        plain = result["plain_accuracy"].rename(t1="t2").reindex(t2=result["t2"]).values
        each.append(line("trained network t2", distances.mean(plain[distances.newer]), dash="dot", **common))
    if name == "accuracy" and "gap_accuracy" in result and not by_step:
        stored = result.isel(lag=(result["lag"] >= 0).values).sortby("lag")
        return chart([*each, *curves(stored, "gap_accuracy", "lag", "cut", **common)], y, xaxis, beside="pairs")
    grids = result[name].transpose("cut", "t1", "t2").values
    means = (distances.mean(values[distances.older, distances.newer]) for values in grids)
    each += lines(result["cut"].values, means, deep=True, **common)
    return chart(each, y, xaxis, beside="pairs")


def _pairs(result: xr.Dataset, of: str) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the index pairs of the window with t1 <= t2, and how far apart they are."""
    first, second = result[f"{of}1"].values, result[f"{of}2"].values
    gap = second[None, :].astype(np.float64) - first[:, None]
    older, newer = np.nonzero((gap >= 0) & np.isin(np.arange(len(second)), window(result)))
    return older, newer, gap[older, newer]


def window(result: xr.Dataset) -> range:
    """Return the places of t2 over which ``gap_accuracy`` is a mean, all where the result does not hold it."""
    if "gap_accuracy" not in result:
        return range(result.sizes["t2"])
    least, most = int(result["lag"].min()), int(result["lag"].max())  # from the newest t1 to the oldest
    return range(most + least, most + 1)
