"""Drift: how far features and weights moved, and what a linear probe reads from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, depth_colours, figure, heatmap, lines
from featdyn.report.rounding import percent
from featdyn.report.section import Grid, Section, bounded_word, cells, choices_of, name_of, panel, preset_set, word

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


def section(result: xr.Dataset) -> Section:
    """Return the section; figures and columns of what the result does not hold are left out."""
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
        return figure(lines(cuts, values, colours), "Accuracy", xaxis=over_time, share=True, log=False)

    def weights() -> Figure:
        each = []
        for half, name, dash in (("prefix", "shallow", "solid"), ("suffix", "deep", "dot")):
            values = result[f"{half}_distance"].isel(t2=-1).transpose("cut", "t1").values
            each += lines((f"{cut}, {name} half" for cut in cuts), values, colours, dash=dash)
        return figure(each, xaxis=axes["1"], log=False)

    of_weights = "Distance of weights at t1 from the last checkpoint, over their norm at t1"
    panels = [
        panel(caption, {name: choices[name] for name in chosen}, draw)
        for variable, caption, chosen, draw in (
            ("motion", "Motion of features from t1 (rows) to t2 (columns)", ("set", "cut"), motion),
            ("cka_debiased", "Debiased CKA between t1 and t2", ("cut",), alike),
            ("prefix_distance", of_weights, (), weights),
            ("linear_accuracy", "Accuracy of a linear probe", ("set",), read),
        )
        if variable in result
    ]
    grid = Grid(HEADER, list(_rows(result)))
    return Section("Drift of features and weights", TEXT, panels, choices, preset_set(result), grid)


HEADER = (
    "Cut after", "Probes", "Motion from half of training to its end", "Cosine between them",
    "Straightness of the whole path", "Linear probe at the end",
)  # fmt: skip


def _rows(result: xr.Dataset) -> Iterator[tuple[str, ...]]:
    steps = result["step1"].values
    half = int(np.abs(steps - steps[-1] / 2).argmin())
    for cell in cells(result.isel({"t1": half, "t2": -1, "t": -1}, missing_dims="ignore"), "cut", "set"):
        mine = cell["split"].values == name_of(cell, "set") if "split" in cell.coords else ...
        straight = cell["straightness"].values[mine] if "straightness" in cell else np.array([])
        known = straight[np.isfinite(straight)]
        yield (
            name_of(cell, "cut"),
            name_of(cell, "set"),
            bounded_word(cell, "motion", "{:.3f}".format),
            bounded_word(cell, "cosine", "{:.3f}".format),
            word(known.mean(), "{:.3f}".format) if len(known) else "–",
            bounded_word(cell, "linear_accuracy", percent),
        )
