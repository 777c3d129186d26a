"""``spectra``: how many directions recorded features use."""

from __future__ import annotations

import xarray as xr

from featdyn.report.findings import NOTHING, across, probes
from featdyn.report.layer_curves import layer_curves
from featdyn.report.section import Finding, Grid, Section, cells, judged, name_of, word

QUANTITIES = ("effective_rank", "participation_ratio", "stable_rank", "variance", "mean_norm")
TEXT = (
    "The spectrum of the covariance of each layer, of the features of a set. Of d directions with equal variance each "
    "of the three counts below is d; the more unequal, the smaller. The table is of the last checkpoint.",
)
CAVEAT = (
    "Counts grow with the number of probes until there are many more of them than directions; they have no intervals "
    "here."
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.load()
    shown = [name for name in QUANTITIES if name in result]
    header = ("Layer", "Probes", "Observations", "Width", *(name.replace("_", " ").capitalize() for name in shown))
    rows = [
        (
            name_of(cell, "layer"),
            name_of(cell, "set"),
            f"{int(cell['observations']):,}",
            f"{int(cell['width'])}",
            *(word(cell[name]) for name in shown),
        )
        for cell in cells(result.isel(t=-1), "layer", "set")
    ]
    title = f"Spectra of each layer’s {result.attrs['options']['of']}s"
    last, said = judged(result.isel(t=-1)), ""
    if "participation_ratio" in last:
        said = across(last, "participation_ratio", "layer", word)
    words = f"At the last checkpoint, {probes(last)}, the participation ratio, a count of directions, is {said}."
    more = {"finding": Finding(words if said else NOTHING), "caveat": CAVEAT}
    return layer_curves(title, TEXT, result, "Directions in use", shown, Grid(header, rows), **more)
