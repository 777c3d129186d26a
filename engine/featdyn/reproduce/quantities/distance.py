"""How far distributions of features are apart, beside their nulls."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from featdyn.reproduce.measured import Measured
from featdyn.reproduce.quantities.kind import NEVER, Kind, Seen


class Distance(Kind):
    """``distance``: how far the distribution of features at t1 is from that at the last checkpoint; axes measure, cut.

    In standard deviations of the null of ``density``, above its mean.
    """

    measures: tuple[str, ...] = Field(min_length=1)
    cuts: tuple[str, ...] = Field(min_length=1)
    set: str
    t1: str

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"measure": self.measures, "cut": self.cuts}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("density",)

    def measured(self, seen: Seen) -> Measured:  # noqa: D102
        axes = self.axes
        result, t1 = seen.run.result("density"), seen.times.at(self.t1)
        if t1 is None:
            return Measured.of(axes, np.nan, np.nan, f"{NEVER} {self.t1}")
        pairs = np.flatnonzero((result["t1"].values == t1) & (result["t2"].values == seen.run.checkpoints - 1))
        if not len(pairs):
            return Measured.of(axes, np.nan, np.nan, f"{self.t1} is the last checkpoint")
        mine = result.isel(pair=int(pairs[0])).sel(measure=list(self.measures), cut=list(self.cuts), set=self.set)
        return Measured.of(axes, (mine["excess"] / mine["null_deviation"]).transpose("measure", "cut").values, np.nan)
