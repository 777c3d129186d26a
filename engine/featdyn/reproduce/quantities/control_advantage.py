"""How much better the drift keeps accuracy than controls of its length."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from featdyn.analysis.composites.controls import STRICT
from featdyn.reproduce.measured import Measured, variance_of
from featdyn.reproduce.quantities.kind import NEVER, Kind, Seen
from featdyn.reproduce.study import LAST


class ControlAdvantage(Kind):
    """``control_advantage``: accuracy of the drift minus that of controls of its length; axis cut.

    The mean over controls, sets and all t1 before t2 at which the worst control loses at least ``least_loss``.
    """

    cuts: tuple[str, ...] = Field(min_length=1)
    sets: tuple[str, ...] = Field(min_length=1)
    t2: str = LAST
    least_loss: float = Field(0.05, ge=0, description="of accuracy, from t2's own network to the worst control")
    kinds: tuple[str, ...] = Field(STRICT, description="controls")

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        return {"cut": self.cuts}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        return ("controls",)

    def measured(self, seen: Seen) -> Measured:  # noqa: D102
        result, t2 = seen.run.result("controls"), seen.times.at(self.t2)
        axes = self.axes
        if t2 is None or t2 not in result["t2"].values:
            return Measured.of(axes, np.nan, np.nan, f"{NEVER} {self.t2}, or controls were not asked there")
        mine = result.sel(set=list(self.sets), t2=t2, kind=list(self.kinds))
        own = result["accuracy"].sel(kind="drift", set=list(self.sets), t1=t2, t2=t2)
        value, variance = np.full(len(self.cuts), np.nan), np.full(len(self.cuts), np.nan)
        for c, cut in enumerate(self.cuts):
            of = mine.sel(cut=cut)
            worst = of["accuracy"].min("kind")
            telling = ((own.sel(cut=cut) - worst) >= self.least_loss) & (of["t1"] < t2)  # (set, t1)
            if telling.any():
                value[c] = float(of["advantage"].where(telling).mean())
                # Cells share their probes and their drift, so their mean is no surer than one of them.
                variance[c] = float(
                    np.nanmean(np.where(telling, variance_of(of["advantage_low"], of["advantage_high"]), np.nan))
                )
        few = np.isnan(value).any()
        return Measured.of(axes, value, variance, f"no control loses {self.least_loss:g}" if few else "")
