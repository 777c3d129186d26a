"""``layer_interactions``: how much of the output's interactions each layer holds, over training and depth."""

from __future__ import annotations

from typing import Any

import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curves, lines, time_axis
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
    "A linear probe on a layer's features says which class they speak for; of masked inputs, its log-odds are a sum of "
    "AND and OR interactions like the output's (arXiv 2409.08712). Completeness is the share of the output's "
    "interactions that the layer holds already, redundancy the share of the layer's that the output does not have.",
    "The table is of the last checkpoint, with 95 % intervals over images.",
)
CAVEAT = (
    "A layer whose linear probe has a large loss says little. What masked entries become, and the penalty of linear "
    "probes, are our own choice."
)
SHARES = {"completeness": "Completeness", "redundancy": "Redundancy"}
PARTS = {"overlap": "shared", "forget": "forgotten later", "new": "new later"}


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.drop_vars(["v", "v_output", "region"], errors="ignore").load()
    choices = choices_of(result, "set", "cut")
    time, order = time_axis(result), Axis("order: players of an interaction", whole=True)

    def share(name: str, set: str) -> Lines:
        return chart(curves(result.isel(set=int(set)), name, "t", "cut"), Axis(SHARES[name], share=True), time)

    def parts(set: str, cut: str) -> Lines:
        cell = result.isel(set=int(set), cut=int(cut), t=-1)
        values = [cell[name].values for name in PARTS]
        return chart(lines(PARTS.values(), values, x=result["order"].values.tolist()), "Strength", order)

    panels = [
        panel(words, {"set": choices["set"]}, lambda set, name=name: share(name, set), name)
        for name, words in SHARES.items()
    ]
    panels.append(panel("Strength by order at the last checkpoint", choices, parts, "orders"))
    header = ("Layer", "Probes", *SHARES.values(), "Loss of the linear probe")
    rows = []
    for cell in cells(result.isel(t=-1), "cut", "set"):
        shares = (bounded_word(cell, name, "{:.2f}".format) for name in SHARES)
        rows.append((name_of(cell, "cut"), name_of(cell, "set"), *shares, word(cell["loss"].item())))
    last = judged(result.isel(t=-1))
    said = [f"{words.lower()} is {s}" for n, words in SHARES.items() if (s := across(last, n, "cut", "{:.2f}".format))]
    finding = Finding(f"At the last checkpoint, {probes(last)}, {'; '.join(said)}." if said else NOTHING)
    more: dict[str, Any] = {"finding": finding, "caveat": CAVEAT}
    return Section("Interactions of layers", TEXT, panels, choices, preset_set(result), Grid(header, rows), **more)
