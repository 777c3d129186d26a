"""What composites of pairs of checkpoints do, from the predictions of ``consistency``."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from featdyn.analysis.inputs.class_labels import predictions_labelled
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.reproduce.measured import Measured, variance_of
from featdyn.reproduce.quantities.kind import NEVER, Kind, Seen
from featdyn.reproduce.study import LAST
from featdyn.statistics.ratios import ratio_interval
from featdyn.statistics.resampling import Interval, difference_interval, share_interval


class Composite(Kind):
    """``composite``: the prefix of t1 with the suffix of t2, clustered by image; axes cut, set, t1 and batchnorm."""

    measure: Literal["accuracy", "gain", "kept", "agreement"] = Field(
        description="accuracy A(t1, t2); gain A(t1, t2) - A(t1, t1); kept A(t1, t2) / A(t2, t2); agreement with t2's "
        "network"
    )
    cuts: tuple[str, ...] = Field(min_length=1)
    sets: tuple[str, ...] = Field(min_length=1)
    t1: tuple[str, ...] = Field(min_length=1, description="times")
    t2: str = Field(LAST, description="a time")
    batchnorm: tuple[Literal["travel", "reestimated"], ...] = Field(
        ("travel",), description="statistics; other than 'travel' are of the analysis batchnorm, and only accuracy, "
        "gain and kept, whose plain networks keep their own statistics",
    )  # fmt: skip

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"cut": self.cuts, "set": self.sets, "t1": self.t1, "batchnorm": self.batchnorm}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("consistency", "batchnorm") if set(self.batchnorm) != {"travel"} else ("consistency",)

    def measured(self, seen: Seen) -> Measured:  # noqa: D102
        axes = self.axes
        shape = tuple(map(len, axes.values()))
        value, variance = np.full(shape, np.nan), np.full(shape, np.nan)
        t2 = seen.times.at(self.t2)
        result = seen.run.result("consistency")
        sets, labels = predictions_labelled(seen.run, ProbeSets.of(seen.run))
        anew = seen.run.result("batchnorm") if set(self.batchnorm) != {"travel"} else None
        for place in np.ndindex(shape):
            cut, name, early, policy = (labels_[i] for labels_, i in zip(axes.values(), place, strict=True))
            t1 = seen.times.at(early)
            if t1 is None or t2 is None:
                continue
            pairs = (t1, t2), (t1, t1), (t2, t2)
            member = sets.member(name)
            mixed, old, new = (
                result["prediction"].sel(cut=cut, t1=a, t2=b).values[member] for a, b in pairs
            )  # fmt: skip
            found = _measure(self.measure, mixed, old, new, labels[member], sets.origins[member])
            if policy != "travel":
                assert anew is not None
                found = _reestimated(self.measure, anew, (cut, name, t1, t2, policy), old, new, labels[member],
                                     sets.origins[member])  # fmt: skip
            value[place], variance[place] = found.estimate, variance_of(found.low, found.high)
        lacking = [time for time in (*self.t1, self.t2) if seen.times.at(time) is None]
        return Measured.of(axes, value, variance, f"{NEVER} {', '.join(lacking)}" if lacking else "")


def _measure(
    name: str, mixed: NDArray[Any], old: NDArray[Any], new: NDArray[Any], labels: NDArray[Any], origins: NDArray[Any]
) -> Interval:
    """Return a measure of predictions of a composite, and of t1's and t2's own networks, on the same probes."""
    right, before, after = mixed == labels, old == labels, new == labels
    if name == "accuracy":
        return share_interval(right, groups=origins)
    if name == "gain":
        return difference_interval(right.astype(np.int8) - before.astype(np.int8), groups=origins)
    if name == "agreement":
        return share_interval(mixed == new, groups=origins)
    return ratio_interval(right, after, groups=origins)


def _reestimated(
    measure: str, result: xr.Dataset, cell: tuple[str, str, int, int, str], old: NDArray[Any], new: NDArray[Any],
    labels: NDArray[Any], origins: NDArray[Any],
) -> Interval:  # fmt: skip
    """Return the same where the composite's statistics were estimated anew, as ``batchnorm`` keeps it.

    Of that composite no predictions are kept: its interval and the plain network's are joined as if independent, which
    is wider than of predictions on the same probes.
    """
    cut, name, t1, t2, policy = cell
    if t2 not in result["t2"].values or measure == "agreement":
        return Interval(np.nan, np.nan, np.nan)
    found = result.sel(cut=cut, set=name, t1=t1, t2=t2, policy=policy)
    a, half = float(found["accuracy"]), float(found["accuracy_high"] - found["accuracy_low"]) / 2
    if measure == "accuracy":
        return Interval(a, a - half, a + half)
    plain = share_interval((old if measure == "gain" else new) == labels, groups=origins)
    other = (plain.high - plain.low) / 2
    if measure == "gain":
        width = float(np.hypot(half, other))
        return Interval(a - plain.estimate, a - plain.estimate - width, a - plain.estimate + width)
    ratio = a / plain.estimate if plain.estimate else np.nan
    width = float(np.hypot(half, ratio * other) / plain.estimate) if plain.estimate else np.nan
    return Interval(ratio, ratio - width, ratio + width)
