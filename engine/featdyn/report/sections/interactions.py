"""``interactions``: of how many players, such as regions, outputs rest on, over training and depth."""

from __future__ import annotations

import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, depth_colours, figure, lines
from featdyn.report.section import Grid, Section, bounded_word, cells, choices_of, name_of, panel, preset_set, word

TEXT = (
    "Players (patches of the map at a cut or of the input, words, channels, ...) are masked in all combinations; the "
    "log-odds of the true class are then a sum of AND interactions (all of some players are there) and OR interactions "
    "(any of them is), the sparsest such sum (arXiv 2407.19198). Its order is the number of players. A network that "
    "learns simple things first falls in mean order before it rises.",
    "The table is of the last checkpoint, with 95 % intervals over images. Which players are masked, and what masked "
    "ones become, is our own choice at most cuts.",
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.drop_vars(["v", "region"], errors="ignore").load()
    choices = choices_of(result, "set", "cut")
    time = checkpoint_axis(result["t"].values, result["step"].values)
    colours = {dim: depth_colours(result.sizes[dim]) for dim in ("cut", "t")}
    order = {"title": {"text": "order: players of an interaction"}, "tickformat": "d"}

    def over_time(set: str) -> Figure:
        values = result["mean_order"].isel(set=int(set)).transpose("cut", "t").values
        return figure(lines(result["cut"].values, values, colours["cut"]), "Mean order", xaxis=time, log=False)

    def by_order(set: str, cut: str) -> Figure:
        values = result["strength"].isel(set=int(set), cut=int(cut)).transpose("t", "order").values
        names = [f"step {int(step)}" for step in result["step"].values]
        return figure(lines(names, values, colours["t"], x=result["order"].values.tolist()), "Strength", xaxis=order)

    panels = [
        panel("Mean order of salient interactions", {"set": choices["set"]}, over_time),
        panel("Strength of each order, at each checkpoint", choices, by_order),
    ]
    header = ("Cut after", "Probes", "Mean order", "Strength", "Strength of order 1")
    rows = []
    for cell in cells(result.isel(t=-1), "cut", "set"):
        strength = cell["strength"].transpose("order").values
        names = name_of(cell, "cut"), name_of(cell, "set")
        rows.append(
            (*names, bounded_word(cell, "mean_order", "{:.2f}".format), word(strength.sum()), word(strength[0]))
        )
    return Section("Interactions", TEXT, panels, choices, preset_set(result), Grid(header, rows))
