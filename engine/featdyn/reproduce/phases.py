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
from featdyn.reproduce.kind import Kind, Seen
from featdyn.reproduce.measured import Measured, variance_of

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


def turn(seen: Seen, options: Turn) -> Measured:
    """Return what happens around the largest share; variances of two checkpoints add as if they were independent."""
    result = seen.run.result("generalization").isel(cut=0)
    shape = (len(options.labels),)
    value, variance, undefined = np.full(shape, np.nan), np.full(shape, np.nan), False
    for i, label in enumerate(options.labels):
        share = _curve(result, label).sel(set=options.found_on).values
        if not np.isfinite(share).all():
            undefined = True
            continue
        at = int(share.argmax())
        if options.measure == "step":
            value[i] = float(result["step"][at])
            continue
        read = result if options.measure == "gap" else result.sel(set=options.read_on)
        curve, spread = _curve(read, label, options.measure), _spread(read, label, options.measure)
        other = 0 if options.measure == "rise" else len(share) - 1
        sign = -1.0 if options.measure == "gap" else 1.0
        value[i] = sign * float(curve[at] - curve[other])
        variance[i] = float(spread[at] + spread[other])
    return Measured.of(options.axes, value, variance, UNDEFINED if undefined else "")


def _curve(result: xr.Dataset, label: str, measure: str = "", end: str = "") -> xr.DataArray:
    """Return a share, or the loss gap, over checkpoints."""
    if measure == "gap":
        return result[f"gap{end}"]
    return result[f"decay_share{end}"] if label == DECAY else result[f"power{end}"].sel(reference=label)


def _spread(result: xr.Dataset, label: str, measure: str) -> xr.DataArray:
    low, high = (_curve(result, label, measure, end) for end in ("_low", "_high"))
    return low.copy(data=variance_of(low, high))
