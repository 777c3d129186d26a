"""``spectra``: how many directions recorded features use."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from featdyn.report.figure import Axis, Lines, Map
from featdyn.report.figures import chart, curves, layer_map, time_axis
from featdyn.report.findings import NOTHING, across, probes
from featdyn.report.layer_curves import layer_curves, with_of
from featdyn.report.section import (
    Finding,
    Grid,
    Section,
    cells,
    choices_of,
    judged,
    name_of,
    panel,
    preset_set,
    times_of,
    word,
)

QUANTITIES = ("effective_rank", "participation_ratio", "stable_rank", "variance", "mean_norm")
TEXT = (
    "The spectrum of the covariance of each layer, of the features of a set. Of d directions with equal variance each "
    "of the three counts below is d; the more unequal, the smaller. The table is of the last checkpoint.",
)
EIGEN = (
    "What the slider’s checkpoint shows of each layer: the share of the variance along each principal direction; and "
    "over all checkpoints how isotropic the layer is, its participation ratio over its width: 100 % where all "
    "directions have equal variance.",
)
OF = dict.fromkeys(("effective_rank", "participation_ratio", "stable_rank"), "variances")
POSITIONS = "Positions and tokens count as observations."
STEPS, RANKS = 13, 20
"""Checkpoints that the slider has and directions that a spectrum shows, at most."""
CAVEAT = (
    "Counts grow with the number of probes until there are many more of them than directions; they have no intervals "
    "here."
)


def section(result: xr.Dataset) -> list[Section]:
    """Return the sections."""
    result = result.load()
    shown = [name for name in QUANTITIES if name in result]
    header = ("Layer", "Probes", "Observations", "Width", *(with_of(name, OF).capitalize() for name in shown))
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
    words = f"At the last checkpoint, {probes(last)}, the participation ratio of variances, a count of directions with "
    words += f"positions as observations, is {said}."
    of_all: dict[str, Any] = {"of": OF, "detail": POSITIONS, "caveat": CAVEAT}
    more = {"finding": Finding(words if said else NOTHING), **of_all}
    first = layer_curves(title, TEXT, result, "Directions in use", shown, Grid(header, rows), **more)
    return [first, _eigenvalues(result)] if "eigenvalue" in result else [first]


def _eigenvalues(result: xr.Dataset) -> Section:
    axis, layers = time_axis(result), result["layer"].values
    choices = {**choices_of(result, "set"), "t": times_of(result, STEPS)}
    ranks = np.unique(np.geomspace(1, result.sizes["rank"], RANKS).round().astype(int))
    total = result["eigenvalue"].sum("rank", min_count=1)
    share = (result["eigenvalue"] / total.where(total > 0)).isel(rank=ranks - 1).to_dataset(name="share")

    def spectrum(set: str, t: str) -> Lines:
        each = curves(share.isel(set=int(set)).sel(t=int(t)), "share", "rank", "layer", x=ranks.tolist())
        return chart(each, Axis("Share of variance", "auto", share=True), Axis("principal direction", "log"))

    def isotropy(set: str) -> Map:
        of = (result["participation_ratio"] / result["width"]).isel(set=int(set)).transpose("layer", "t")
        return layer_map(of.values, layers, axis, share=True)

    of_set = {"set": choices["set"]}
    panels = [
        panel("Spectrum at the slider’s checkpoint", choices, spectrum, "spectrum"),
        panel("Isotropy: participation ratio of variances over width", of_set, isotropy, "isotropy", detail=POSITIONS),
    ]
    preset = preset_set(result) | {"t": list(choices["t"])[-1]}
    return Section("Spectrum and isotropy", EIGEN, panels, choices, preset, wide=False)
