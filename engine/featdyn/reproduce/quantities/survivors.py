"""Whether probes that survive stitching drift more along the noise than the others do."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from featdyn.reproduce.measured import Measured
from featdyn.reproduce.quantities.kind import NEVER, Kind, Seen
from featdyn.reproduce.study import LAST


class Survivors(Kind):
    """``survivors``: do samples whose predictions survive stitching move along the noise's directions? Axis cut.

    The mean over probes of the share of their features' drift along the noise's first ``k`` directions, less that with
    permuted labels: of probes on which the composite of t1 with t2 agrees with t2, minus that of the others.
    """

    cuts: tuple[str, ...] = Field(min_length=1)
    t1: str
    t2: str = LAST
    k: int = 10
    least: int = Field(4, ge=2, description="probes of each kind, for there to be a number")

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"cut": self.cuts}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("isotropy", "noise", "consistency")

    def measured(self, seen: Seen) -> Measured:  # noqa: D102
        axes = self.axes
        t1, t2 = seen.times.at(self.t1), seen.times.at(self.t2)
        noise, pairs = seen.run.result("isotropy"), seen.run.result("consistency")
        sampled = noise["t"].values.tolist()
        value, variance = np.full(len(self.cuts), np.nan), np.full(len(self.cuts), np.nan)
        if t1 is None or t2 is None:
            return Measured.of(axes, value, variance, f"{NEVER} {self.t1 if t1 is None else self.t2}")
        t = max((s for s in sampled if s <= t1), default=sampled[0])
        names = pairs["probe"].values.tolist()
        at = [names.index(probe) for probe in noise["probe"].values.tolist()]
        for c, cut in enumerate(self.cuts):
            cell = noise.sel(cut=cut, t=t, k=self.k)
            along = (cell["feature_drift_share"] - cell["feature_drift_share_permuted"]).values
            predicted = pairs["prediction"].sel(cut=cut)
            same = (predicted.sel(t1=t1, t2=t2).values == predicted.sel(t1=t2, t2=t2).values)[at]
            kept, lost = (along[mask & np.isfinite(along)] for mask in (same, ~same))
            if min(len(kept), len(lost)) >= self.least:
                value[c] = kept.mean() - lost.mean()
                variance[c] = kept.var(ddof=1) / len(kept) + lost.var(ddof=1) / len(lost)
        few = np.isnan(value).any()
        return Measured.of(axes, value, variance, f"fewer than {self.least} probes survive, or do not" if few else "")
