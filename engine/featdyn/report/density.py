"""Density: how far distributions of features moved between checkpoints."""

from __future__ import annotations

import numpy as np
import xarray as xr

from featdyn.report.figures import Figure, depth_colours, figure, line
from featdyn.report.numbers import rounded
from featdyn.report.section import Grid, Panel, Section, choices_of, for_each, newest, preset_set
from featdyn.store import Run

TEXT = (
    "The distance between the features of the same probes at two checkpoints, minus its mean where the two features of "
    "each probe are swapped at random: estimates of distances are above zero also where nothing moved. Total variation "
    "is between kernel density estimates, each judged on probes that it was not made from, in a principal basis that "
    "all checkpoints share; it is at most the total variation of the whole features. The other distances are taken in "
    "up to 50 principal components.",
    "arXiv 2509.20334 does not say which reduction, bandwidth and null it used; all of them are our own choice.",
)


def density(run: Run) -> Section | None:
    """Return the section; None where there is no result."""
    found = newest(run, "density")
    if found is None:
        return None
    result, path = found
    result = result.load()
    choices = choices_of(result, "set", "measure")
    choices["measure"] = {i: name.replace("_", " ") for i, name in choices["measure"].items()}
    colours = depth_colours(result.sizes["cut"])
    to_last = bool((result["t2"] == result["t2"].max()).all())
    shown = result if to_last else result.isel(pair=(result["t2"] - result["t1"] == 1).values)
    title = "step of the earlier checkpoint" + ("" if to_last else ", the later one is the next")
    xaxis = {"title": {"text": title}, "type": "log" if (shown["step1"] > 0).all() else "linear"}

    def draw(set: str, measure: str) -> Figure:
        values = shown["excess"].isel(set=int(set), measure=int(measure)).transpose("cut", "pair").values
        x = rounded(shown["step1"].values)
        each = zip(result["cut"].values, values, colours, strict=True)
        return figure([line(str(c), y, colour, x=x) for c, y, colour in each], "Excess", xaxis=xaxis, log=False)

    rows = []
    for c, cut in enumerate(result["cut"].values):
        for s, name in enumerate(result["set"].values):
            p = result["benjamini_hochberg"].isel(cut=c, set=s).transpose("measure", "pair").values
            share = float(result["explained"].isel(cut=c, set=s, component=slice(_components(result))).sum())
            told = [f"{int((of_measure <= 0.05).sum())} of {len(of_measure)}" for of_measure in p]
            rows.append((str(cut), str(name), f"{100 * share:.0f} %", *told))
    names = [f"Told apart by {m.replace('_', ' ')}" for m in np.atleast_1d(result["measure"].values).tolist()]
    header = ("Cut after", "Probes", "Variance in the basis of total variation", *names)
    caption = "Excess over the null" + (", against the last checkpoint" if to_last else "")
    return Section(
        "density",
        "Distance between feature distributions",
        TEXT,
        [Panel(caption, for_each(choices, draw), tuple(choices))],
        choices,
        preset_set(result),
        Grid(header, rows),
        path,
        {key: result.attrs[key] for key in ("options", "input_commit") if key in result.attrs},
    )


def _components(result: xr.Dataset) -> int:
    return int(result.attrs["options"]["components"])
