"""``collapse``: how far each layer is from neural collapse."""

from __future__ import annotations

from typing import Any

import xarray as xr

from featdyn.report.findings import NOTHING, across, probes
from featdyn.report.layer_curves import layer_curves
from featdyn.report.section import Finding, Grid, Section, bounded_word, cells, judged, name_of, word

MEASURES = ("nc1", "nc2", "nc2_norms", "nc2_angles", "nc3", "nc4")
TABLE = ("nc1", "nc2", "nc3", "nc4")
TEXT = (
    "All are 0 at collapse. NC1: how much the features of a class vary beside how far apart classes are. NC2: how far "
    "the class means are from a simplex, in one number and by their lengths and angles; two classes always form one. "
    "NC3: the same of the outputs at the class means. NC4: how often the nearest class mean and the network’s "
    "prediction disagree.",
    "The table is of the last checkpoint, with 95 % intervals; what the same features show with labels dealt at "
    "random stands beside each value.",
)
CAVEAT = (
    "No threshold says that a layer has collapsed: read a value beside that of shuffled labels, and its course. "
    "Intervals are over images, not over seeds of the training."
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.load()
    header = ["Layer", "Probes"]
    for name in TABLE:
        header += [name.upper(), f"{name.upper()}, labels shuffled"]
    rows = []
    for cell in cells(result.isel(t=-1), "layer", "set"):
        row = [name_of(cell, "layer"), name_of(cell, "set")]
        for name in TABLE:
            row += [bounded_word(cell, name, "{:.3g}".format), word(cell[f"{name}_shuffled"])]
        rows.append(row)
    last = judged(result.isel(t=-1))
    said = [f"{name.upper()} goes from {s}" for name in ("nc1", "nc4") if (s := across(last, name, "layer", word))]
    finding = Finding(f"At the last checkpoint, {probes(last)}, {'; '.join(said)}." if said else NOTHING)
    grid = Grid(header, rows)
    more: dict[str, Any] = {"finding": finding, "caveat": CAVEAT}
    return layer_curves("Neural collapse", TEXT, result, "Distance from collapse", MEASURES, grid, as_map=True, **more)
