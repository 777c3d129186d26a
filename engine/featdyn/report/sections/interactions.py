"""``interactions``: of how many players, such as regions, outputs rest on, over training and depth."""

from __future__ import annotations

from typing import Any

import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curves, time_axis
from featdyn.report.findings import NOTHING, across, probes
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
    word,
)

TEXT = (
    "Players (patches of the map at a cut or of the input, words, channels, ...) are masked in all combinations; the "
    "log-odds of the true class are then a sum of AND interactions (all of some players are there) and OR interactions "
    "(any of them is), the sparsest such sum (arXiv 2407.19198). Its order is the number of players. A network that "
    "learns simple things first falls in mean order before it rises.",
    "The table is of the last checkpoint, with 95 % intervals over images.",
)
CAVEAT = "Which players are masked, and what masked ones become, is our own choice at most cuts."


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.drop_vars(["v", "region"], errors="ignore").load()
    choices = choices_of(result, "set", "cut")
    time, order = time_axis(result), Axis("order: players of an interaction", whole=True)

    def over_time(set: str) -> Lines:
        return chart(curves(result.isel(set=int(set)), "mean_order", "t", "cut"), "Mean order", time)

    def by_order(set: str, cut: str) -> Lines:
        of = result.isel(set=int(set), cut=int(cut))
        of = of.assign_coords(t=[f"step {int(step)}" for step in result["step"].values])
        each = curves(of, "strength", "order", "t", x=result["order"].values.tolist())
        return chart(each, Axis("Strength", "auto"), order)

    panels = [
        panel("Mean order of salient interactions", {"set": choices["set"]}, over_time, "order"),
        panel("Strength of each order, at each checkpoint", choices, by_order, "strength"),
    ]
    header = ("Cut after", "Probes", "Mean order", "Strength", "Strength of order 1")
    rows = []
    for cell in cells(result.isel(t=-1), "cut", "set"):
        strength = cell["strength"].transpose("order").values
        names = name_of(cell, "cut"), name_of(cell, "set")
        rows.append(
            (*names, bounded_word(cell, "mean_order", "{:.2f}".format), word(strength.sum()), word(strength[0]))
        )
    more: dict[str, Any] = {"finding": _finding(judged(result)), "caveat": CAVEAT}
    return Section("Interactions", TEXT, panels, choices, preset_set(result), Grid(header, rows), **more)


def _finding(result: xr.Dataset) -> Finding:
    said = across(result.isel(t=-1), "mean_order", "cut", "{:.2f}".format)
    first = across(result.isel(t=0), "mean_order", "cut", "{:.2f}".format)
    began = f"; at the first it is {first}" if first and result.sizes["t"] > 1 else ""
    words = f"The mean order of salient interactions {probes(result)} at the last checkpoint is {said}{began}."
    return Finding(words if said else NOTHING)
