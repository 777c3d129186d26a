"""Where interactions turn: how far a share rises to its largest and falls after it, and what the loss gap does then.

The checkpoint of the turn is chosen on one set of probes and the curve is read on another. The largest of many values
is large by chance; on other images it is not. That, and the measures, are our own choice.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from pydantic import Field

from featdyn.analysis.features.generalization import DECAY
from featdyn.reproduce.measured import Measured, variance_of
from featdyn.reproduce.quantities.kind import Kind, Seen

UNDEFINED = "the share is undefined at a checkpoint: nothing is salient there"


class Turn(Kind):
    """``turn``: of ``generalization``, around the checkpoint at which a share is largest; axis labels.

    The share is H, what generalizes of salient interactions by a baseline, or of ``decay`` the decaying part's.
    """

    measure: Literal["rise", "fall", "gap", "step"] = Field(
        description="rise: the share at its largest minus at the first checkpoint; fall: minus at the last; gap: how "
        "far the loss of test over train probes grows from there to the last; step: the number of that checkpoint"
    )
    labels: tuple[str, ...] = Field(min_length=1, description="names of baselines, and decay")
    found_on: str = Field("train", description="the set of probes on which it is largest")
    read_on: str = Field("test", description="another set, on which rise and fall are read")

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"labels": self.labels}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("generalization",)

    def measured(self, seen: Seen) -> Measured:  # noqa: D102
        result = seen.run.result("generalization").isel(cut=0)
        found = [_of(result, label, self) for label in self.labels]
        value, variance = np.array(found).T  # variances of two checkpoints add as if they were independent
        return Measured.of(self.axes, value, variance, UNDEFINED if np.isnan(value).any() else "")


def _of(result: xr.Dataset, label: str, options: Turn) -> tuple[float, float]:
    """Return (value, variance) of one label."""
    name, place = ("decay_share", {}) if label == DECAY else ("power", {"reference": label})
    share = result[name].sel({"set": options.found_on, **place}).values
    if not np.isfinite(share).all():
        return np.nan, np.nan
    at, last = int(share.argmax()), len(share) - 1
    if options.measure == "step":
        return float(result["step"][at]), np.nan
    if options.measure == "gap":
        return _difference(result, "gap", {}, last, at)
    return _difference(result, name, {"set": options.read_on, **place}, at, 0 if options.measure == "rise" else last)


def _difference(result: xr.Dataset, name: str, place: dict[str, str], one: int, other: int) -> tuple[float, float]:
    value, low, high = (result[f"{name}{end}"].sel(place).values[[one, other]] for end in ("", "_low", "_high"))
    return float(value[0] - value[1]), float(variance_of(low, high).sum())
