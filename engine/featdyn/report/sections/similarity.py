"""``similarity``: how alike layers and checkpoints are, by measures other than CKA."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from featdyn.report.figure import Map
from featdyn.report.figures import layer_map, time_map
from featdyn.report.findings import NOTHING, across
from featdyn.report.section import Finding, Grid, Section, cells, choices_of, name_of, panel, word

MEASURES = ("svcca", "svcca_shuffled", "pwcca", "cca", "angular", "procrustes", "rsa", "jaccard", "imbalance")
TABLE = ("svcca", "svcca_shuffled", "angular", "rsa", "jaccard", "imbalance")
TEXT = (
    "Of the same probes at two layers or two checkpoints. Canonical correlations are 1 for the same features up to "
    "a linear map (SVCCA, which leaves weak directions out, up to a rotation). Angle and "
    "Procrustes distance are 0 for the same features up to a rotation. RSA "
    "compares which probes are far apart, Jaccard which are neighbours; information imbalance is 0 where the first "
    "(row) tells which probes are near in the second (column), 1 where it tells nothing.",
    "The table compares each layer at the first checkpoint with itself at the last.",
)
CAVEAT = (
    "Canonical correlations are high for any features with many variables: read them beside those of images in another "
    "order (shuffled). These measures have no intervals here."
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    names = {name: name.replace("_", " ") for name in MEASURES if name in result}
    choices = {"measure": names, **choices_of(result, "layer")}

    def over_time(measure: str, layer: str) -> Map:
        return time_map(result.isel(layer=int(layer), layer2=int(layer)), measure)

    def between_layers(measure: str) -> Map:
        values = result[measure].isel(t1=-1, t2=-1).transpose("layer", "layer2")
        return layer_map(values.values, result["layer"].values)

    panels = [
        panel("One layer at t1 and at t2", choices, over_time, "layers"),
        panel("Layers at the last checkpoint", {"measure": names}, between_layers, "between_layers"),
    ]
    rows = []
    for i, cell in enumerate(cells(result[list(TABLE)].isel(t1=0, t2=-1), "layer")):
        own = cell.isel(layer2=i)
        rows.append((name_of(own, "layer"), *(word(own[name]) for name in TABLE)))
    header = ("Layer", *(name.replace("_", " ").capitalize() for name in TABLE))
    chance = result.attrs.get("jaccard_chance")
    note = f"Unrelated representations have a Jaccard index of about {word(chance)}." if chance else ""
    more: dict[str, Any] = {"finding": _finding(result.isel(t1=0, t2=-1)), "caveat": CAVEAT}
    return Section("Similarity of representations", TEXT, panels, choices, grid=Grid(header, rows), note=note, **more)


def _finding(ends: xr.Dataset) -> Finding:
    diagonal = np.diagonal(ends["rsa"].transpose("layer", "layer2").values)
    own = xr.Dataset({"rsa": ("layer", diagonal)}, {"layer": ends["layer"].values})
    said = across(own, "rsa", "layer", "{:.2f}".format)
    words = f"Between the first and the last checkpoint the RSA of a layer with itself is {said}."
    return Finding(words if said else NOTHING)
