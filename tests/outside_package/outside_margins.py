"""An analysis of another package: how far ahead of the second class is the first, in what was recorded?"""

from __future__ import annotations

import numpy as np
import xarray as xr
from pydantic import Field

from featdyn.analysis import Analysis, Variable
from featdyn.analysis.context import Context
from featdyn.analysis.options import Sets
from featdyn.analysis.status import FEW, Status
from featdyn.compute import Plan


class MarginOptions(Sets):
    """Options of margins."""

    least: int = Field(20, ge=2, description="smaller sets have no mean")


def margins(context: Context[MarginOptions]) -> xr.Dataset:
    run, sets = context.run, context.sets
    shape = len(sets.names), run.checkpoints
    found, status = np.full(shape, np.nan), Status(("set", "t"), shape)
    context.admit(
        Plan("margins of outputs", tasks=run.checkpoints, reads=run.checkpoints * run.schema["outputs/logits"].nbytes)
    )
    for t in context.each(range(run.checkpoints)):
        logits = np.sort(run.values("outputs/logits", slice(t, t + 1))[0].astype(np.float64), axis=-1)
        for s, member in enumerate(sets.members):
            if member.sum() < context.options.least:
                status.mark(FEW, (s, t))
            else:
                found[s, t] = (logits[member, -1] - logits[member, -2]).mean()
    return xr.Dataset(
        {"margin": (("set", "t"), found), "status": status.variable()},
        {"set": np.array(sets.names, dtype=object), "t": np.arange(run.checkpoints), "step": ("t", run.values("step"))},
    )


ANALYSIS = Analysis(
    name="margins",
    question="how far ahead of the second class is the first?",
    source="Our own choice, as an example.",
    options=MarginOptions,
    variables={"margin": Variable("set t", "mean of the largest logit minus the second", status="status")},
    compute=margins,
    section="outside_margins_section:section",
)
