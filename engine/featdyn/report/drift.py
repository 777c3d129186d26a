"""Drift: how far features and weights moved, and what a linear probe reads from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, depth_colours, figure, heatmap, line
from featdyn.report.numbers import percent
from featdyn.report.section import Grid, Panel, Section, choices_of, for_each, newest, preset_set
from featdyn.store import Run

TEXT = (
    "Did anything move, or had training converged? Motion: the distance between a probe’s features at t1 and at t2 "
    "over their norm at t1, a mean over probes. CKA: linear centred kernel alignment (Kornblith et al. 2019) by the "
    "unbiased estimator of Song et al. (2012); 1 means the same features up to rotation, shift and scale, 0 unrelated "
    "ones.",
    "Linear probe: ridge regression of the true labels on the features of the training probes; its accuracy on "
    "training probes leaves each out in turn. Straightness: the distance between a probe’s features at the first and "
    "the last checkpoint over the length of their path.",
    "That these measures tell whether consistency is an artefact of convergence, the kind of linear probe and the "
    "jackknife behind the bounds of CKA are our own choice. Intervals are 95 % ones over probes; they do not cover "
    "what another seed of the training would change.",
)


def drift(run: Run) -> Section | None:
    """Return the section on drift; None where there is no result."""
    found = newest(run, "drift")
    if found is None:
        return None
    result, path = found
    bulk = [name for name in ("step_length", "path_length", "displacement", "cka") if name in result]
    result = result.drop_vars(bulk).load()
    choices = choices_of(result, "set", "cut")
    axes = {end: checkpoint_axis(result[f"t{end}"].values, result[f"step{end}"].values) for end in "12"}
    over_time = checkpoint_axis(result["t"].values, result["step"].values)
    cuts, colours = [str(cut) for cut in result["cut"].values], depth_colours(result.sizes["cut"])

    def motion(set: str, cut: str) -> Figure:
        return heatmap(result["motion"].isel(set=int(set), cut=int(cut)).values, axes["1"], axes["2"])

    def alike(cut: str) -> Figure:
        return heatmap(result["cka_debiased"].isel(cut=int(cut), cut2=int(cut)).values, axes["1"], axes["2"])

    def read(set: str) -> Figure:
        values = result["linear_accuracy"].isel(set=int(set)).transpose("cut", "t").values
        lines = [line(cut, y, colour) for cut, y, colour in zip(cuts, values, colours, strict=True)]
        return figure(lines, "Accuracy", xaxis=over_time, share=True, log=False)

    def weights() -> Figure:
        lines = []
        for half, name, dash in (("prefix", "shallow", "solid"), ("suffix", "deep", "dot")):
            values = result[f"{half}_distance"].isel(t2=-1).transpose("cut", "t1").values
            for cut, y, colour in zip(cuts, values, colours, strict=True):
                style = {"color": colour, "width": 2, "dash": dash}
                lines.append(line(f"{cut}, {name} half", y, colour, line=style))
        return figure(lines, xaxis=axes["1"], log=False)

    panels = [
        Panel("Motion of features from t1 (rows) to t2 (columns)", for_each(choices, motion), ("set", "cut")),
        Panel("Debiased CKA between t1 and t2", for_each({"cut": choices["cut"]}, alike), ("cut",)),
        Panel("Distance of weights at t1 from the last checkpoint, over their norm at t1", {"": weights()}),
    ]
    if "linear_accuracy" in result:
        panels.append(Panel("Accuracy of a linear probe", for_each({"set": choices["set"]}, read), ("set",)))
    return Section(
        "drift",
        "Drift of features and weights",
        TEXT,
        panels,
        choices,
        preset_set(result),
        Grid(HEADER, list(_rows(result))),
        path,
        {key: result.attrs[key] for key in ("options", "input_commit") if key in result.attrs},
    )


HEADER = (
    "Cut after",
    "Probes",
    "Motion from half of training to its end",
    "Cosine between them",
    "Straightness of the whole path",
    "Linear probe at the end",
)


def _rows(result: xr.Dataset) -> Iterator[tuple[str, ...]]:
    steps = result["step1"].values
    half = int(np.abs(steps - steps[-1] / 2).argmin())
    pair = result.isel(t1=half, t2=-1, t=-1)
    splits = result["split"].values if "split" in result.coords else None
    for c, cut in enumerate(result["cut"].values):
        for s, name in enumerate(result["set"].values):
            mine = np.ones(result.sizes["probe"], bool) if splits is None else splits == name
            straight = result["straightness"].isel(cut=c).values[mine]
            known = straight[np.isfinite(straight)]
            cell = pair.isel(cut=c, set=s)
            read = "linear_accuracy"
            yield (
                str(cut),
                str(name),
                _bounded(cell, "motion", "{:.3f}".format),
                _bounded(cell, "cosine", "{:.3f}".format),
                f"{known.mean():.3f}" if len(known) else "–",
                _bounded(cell, read, percent) if read in cell else "–",
            )


def _bounded(cell: xr.Dataset, name: str, show: Callable[[float], str]) -> str:
    value, low, high = (float(cell[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{show(value)} ({show(low)} to {show(high)})" if np.isfinite(value) else "–"
