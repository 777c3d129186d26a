"""Density: how far distributions of features moved between checkpoints."""

from __future__ import annotations

import numpy as np
import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curves
from featdyn.report.findings import NOTHING, probes
from featdyn.report.rounding import rounded
from featdyn.report.section import Finding, Grid, Section, cells, choices_of, judged, name_of, panel, preset_set, word

TEXT = (
    "The distance between the features of the same probes at two checkpoints, minus its mean where the two features of "
    "each image are swapped at random: estimates of distances are above zero also where nothing moved. Total variation "
    "is between kernel density estimates, each judged on probes that it was not made from, in a principal basis that "
    "all checkpoints share; it is at most the total variation of the whole features. The other distances are taken in "
    "up to 50 principal components.",
)
CAVEAT = (
    "arXiv 2509.20334 does not say which reduction, bandwidth and null it used; all of them are our own choice. What "
    "moves outside of the shown basis is not seen."
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.load()
    choices = choices_of(result, "set", "measure")
    choices["measure"] = {i: name.replace("_", " ") for i, name in choices["measure"].items()}
    to_last = bool((result["t2"] == result["t2"].max()).all()) if result.sizes["pair"] else True
    shown = result if to_last else result.isel(pair=(result["t2"] - result["t1"] == 1).values)
    title = "step of the earlier checkpoint" + ("" if to_last else ", the later one is the next")
    xaxis = Axis(title, "log" if (shown["step1"] > 0).all() else "linear")

    def draw(set: str, measure: str) -> Lines:
        of = shown.isel(set=int(set), measure=int(measure))
        return chart(curves(of, "excess", "pair", "cut", x=rounded(shown["step1"].values)), "Excess", xaxis)

    caption = "Excess over the null" + (", against the last checkpoint" if to_last else "")
    panels, grid = [panel(caption, choices, draw, "excess")], _grid(result, list(choices["measure"].values()))
    return Section(
        "Distance between feature distributions",
        TEXT,
        panels,
        choices,
        preset_set(result),
        grid,
        finding=_finding(judged(result)),
        caveat=CAVEAT,
    )


def _finding(result: xr.Dataset) -> Finding:
    counts = {
        name_of(of, "measure").replace("_", " "): (int((of["adjusted"] <= 0.05).sum()), int(of["adjusted"].count()))
        for of in cells(result, "measure")
    }
    if not any(known for _, known in counts.values()):
        return Finding(NOTHING)
    said = "; ".join(f"{told} of {known} by {measure}" for measure, (told, known) in counts.items())
    verdict = "moved" if any(told for told, _ in counts.values()) else "no motion shown"
    words = f"Pairs of checkpoints whose features {probes(result)} are told apart, all cuts together"
    return Finding(f"{words} (adjusted p up to 0.05): {said}.", verdict)


def _grid(result: xr.Dataset, measures: list[str]) -> Grid:
    header = ["Cut after", "Probes", *(f"Pairs told apart by {m} (adjusted p up to 0.05)" for m in measures)]
    if "explained" in result:
        header.insert(2, "Variance in the basis of total variation")
    rows = []
    for cell in cells(result, "cut", "set"):
        row = [name_of(cell, "cut"), name_of(cell, "set")]
        if "explained" in cell:
            explained = cell["explained"].isel(component=slice(result.attrs["options"]["components"]))
            row.append(word(explained.sum(skipna=False), "{:.0%}".format))
        each = cell["adjusted"].transpose("measure", "pair").values
        rows.append([*row, *(f"{int((p <= 0.05).sum())} of {int(np.isfinite(p).sum())}" for p in each)])
    return Grid(header, rows)
