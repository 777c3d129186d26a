"""``spectra``: how many directions recorded features use."""

from __future__ import annotations

import xarray as xr

from featdyn.report.layer_curves import layer_curves
from featdyn.report.section import Grid, Section, cells, name_of, word

QUANTITIES = ("effective_rank", "participation_ratio", "stable_rank", "variance", "mean_norm")
TEXT = (
    "The spectrum of the covariance of each layer, of the features of a set. Of d directions with equal variance each "
    "of the three counts below is d; the more unequal, the smaller. The table is of the last checkpoint.",
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
    return layer_curves(title, TEXT, result, "Directions in use", shown, Grid(header, rows))
