"""``richness``: how rich the features of each layer are, and what their eigenfunctions are good and used for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curve
from featdyn.report.findings import NOTHING, across, probes
from featdyn.report.layer_curves import layer_curves
from featdyn.report.rounding import rounded
from featdyn.report.section import (
    Finding,
    Grid,
    Section,
    bounded_word,
    cells,
    choices_of,
    judged,
    name_of,
    panel,
    preset_set,
    times_of,
    word,
)

QUANTITIES = ("low_rank", "low_rank_isotropic", "effective_dimension", "kernel_deviation")
PANELS = {
    "cumulative_quality": "How much of the targets the first k eigenfunctions express",
    "cumulative_utilisation": "How much of the learned function the first k eigenfunctions carry",
    "intensity": "Eigenvalue over the largest",
}
STEPS = 25
"""Checkpoints that the slider has, at most: of more, evenly spaced ones."""
TEXT = (
    "The low-rank measure is 0 where a layer’s features carry the learned function alone, all of it equally strongly, "
    "and 1 where they are unrelated to it. Isotropic features of the same numbers have the value beside it, and "
    "features whose strongest directions are unrelated to the outputs lie above that.",
    "Kernel deviation is 1 less the similarity (linear CKA) to the same layer at the first checkpoint. The table is "
    "of the last checkpoint, with 95 % intervals.",
)
CAVEAT = (
    "What a value means depends on the width, the number of probes and the rank of the outputs. It says nothing of "
    "whether the function is right."
)
EIGEN = (
    "The eigenfunctions of a layer’s feature kernel, strongest first. Rich features step up in all three at as many "
    "eigenfunctions as there are outputs. Where the first figure rises and the second does not, features are good and "
    "unused; the other way round they are used and poor.",
)


def section(result: xr.Dataset) -> list[Section]:
    """Return the sections."""
    result = result.load()
    header = (
        "Layer",
        "Probes",
        "Width",
        "Output rank",
        "Low-rank measure",
        "Isotropic",
        "Effective dimension",
        "Kernel deviation",
    )
    rows = [
        (
            name_of(cell, "layer"),
            name_of(cell, "set"),
            f"{int(cell['width'])}",
            word(cell["output_rank"], "{:.0f}".format),
            bounded_word(cell, "low_rank", "{:.3f}".format),
            word(cell["low_rank_isotropic"], "{:.3f}".format),
            bounded_word(cell, "effective_dimension", "{:.3g}".format),
            bounded_word(cell, "kernel_deviation", "{:.3f}".format),
        )
        for cell in cells(result.isel(t=-1), "layer", "set")
    ]
    last = judged(result.isel(t=-1))
    said = across(last, "low_rank", "layer", "{:.3f}".format)
    finding = Finding(f"The low-rank measure at the last checkpoint, {probes(last)}, is {said}." if said else NOTHING)
    grid = Grid(header, rows)
    more: dict[str, Any] = {"finding": finding, "caveat": CAVEAT}
    caption = "Measures of richness"
    first = layer_curves("Richness of features", TEXT, result, caption, QUANTITIES, grid, as_map=True, **more)
    return [first, _eigenfunctions(result)]


def _eigenfunctions(result: xr.Dataset) -> Section:
    choices = {**choices_of(result, "set", "layer"), "t": times_of(result, STEPS)}
    axis = Axis("eigenfunction k", "log")

    def drawn(order: int, name: str) -> Callable[..., Lines]:
        def draw(set: str, layer: str, t: str) -> Lines:
            of = result.isel(set=int(set), layer=int(layer)).sel(t=int(t))
            kept = curve(of, name, "k", PANELS[name], order, x=rounded(result["k"].values))
            return chart([kept], Axis(scale="auto") if name == "intensity" else Axis(share=True), axis)

        return draw

    panels = [panel(caption, choices, drawn(i, name), name) for i, (name, caption) in enumerate(PANELS.items())]
    preset = preset_set(result) | {"layer": str(result.sizes["layer"] - 1), "t": list(choices["t"])[-1]}
    return Section("Eigenfunctions of the feature kernel", EIGEN, panels, choices, preset, wide=False)
