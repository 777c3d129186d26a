"""``layer_interactions``: how much of the output's interactions each layer holds, over training and depth."""

from __future__ import annotations

import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, depth_colours, figure, lines
from featdyn.report.section import Grid, Section, bounded_word, cells, choices_of, name_of, panel, preset_set, word

TEXT = (
    "A linear probe on a layer's features says which class they speak for; of masked inputs, its log-odds are a sum of "
    "AND and OR interactions like the output's (arXiv 2409.08712). Completeness is the share of the output's "
    "interactions that the layer holds already, redundancy the share of the layer's that the output does not have.",
    "The table is of the last checkpoint, with 95 % intervals over images. A layer whose linear probe has a large loss "
    "says little. What masked entries become, and the penalty of linear probes, are our own choice.",
)
SHARES = {"completeness": "Completeness", "redundancy": "Redundancy"}
PARTS = {"overlap": "shared", "forget": "forgotten later", "new": "new later"}


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.drop_vars(["v", "v_output", "region"], errors="ignore").load()
    choices = choices_of(result, "set", "cut")
    time = checkpoint_axis(result["t"].values, result["step"].values)
    colours = depth_colours(result.sizes["cut"])
    order = {"title": {"text": "order: players of an interaction"}, "tickformat": "d"}

    def share(name: str, set: str) -> Figure:
        values = result[name].isel(set=int(set)).transpose("cut", "t").values
        return figure(lines(result["cut"].values, values, colours), SHARES[name], xaxis=time, log=False)

    def parts(set: str, cut: str) -> Figure:
        cell = result.isel(set=int(set), cut=int(cut), t=-1)
        values = [cell[name].values for name in PARTS]
        drawn = lines(list(PARTS.values()), values, depth_colours(len(PARTS)), x=result["order"].values.tolist())
        return figure(drawn, "Strength", xaxis=order, log=False)

    panels = [
        panel(words, {"set": choices["set"]}, lambda set, name=name: share(name, set)) for name, words in SHARES.items()
    ]
    panels.append(panel("Strength by order at the last checkpoint", choices, parts))
    header = ("Layer", "Probes", *SHARES.values(), "Loss of the linear probe")
    rows = []
    for cell in cells(result.isel(t=-1), "cut", "set"):
        shares = (bounded_word(cell, name, "{:.2f}".format) for name in SHARES)
        rows.append((name_of(cell, "cut"), name_of(cell, "set"), *shares, word(cell["loss"].item())))
    return Section("Interactions of layers", TEXT, panels, choices, preset_set(result), Grid(header, rows))
