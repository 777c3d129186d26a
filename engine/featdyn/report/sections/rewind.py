"""``rewind``: the last checkpoint with one layer put back."""

from __future__ import annotations

import xarray as xr

from featdyn.report.composite_curves import composite_curves
from featdyn.report.figures import depth_colours
from featdyn.report.section import Section

TEXT = (
    "Everything from the last checkpoint, one layer put back to checkpoint t1 (after Zhang, Bengio and Singer, JMLR "
    "2022). A layer whose line stays high has hardly changed in a way that matters; “head” is what follows the last "
    "cut.",
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    last = result.load().isel(t2=-1)
    return composite_curves("One layer rewound", TEXT, last, "segment", depth_colours(last.sizes["segment"]))
