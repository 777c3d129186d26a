"""``rewind``: the last checkpoint with one layer put back."""

from __future__ import annotations

from typing import Any

import xarray as xr

from featdyn.report.composite_curves import composite_curves
from featdyn.report.findings import NOTHING, across, probes
from featdyn.report.rounding import points
from featdyn.report.section import Finding, Section, judged

TEXT = (
    "Everything from the last checkpoint, one layer put back to checkpoint t1 (after Zhang, Bengio and Singer, JMLR "
    "2022). A layer whose line stays high has hardly changed in a way that matters; “head” is what follows the last "
    "cut.",
)
CAVEAT = (
    "One layer at a time: layers that can each be put back need not be so together. Intervals are over images, not "
    "over seeds of the training."
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    last = result.load().isel(t2=-1)
    first = judged(last.isel(t1=0))
    said = across(first, "drop", "segment", points) if "drop" in first else ""
    words = f"Put back to step {int(first['step1']):,}, a layer costs {said} of accuracy {probes(first)}."
    more: dict[str, Any] = {"finding": Finding(words if said else NOTHING), "caveat": CAVEAT}
    return composite_curves("One layer rewound", TEXT, last, "segment", deep=True, **more)
