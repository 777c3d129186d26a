"""Drift: how far features and weights moved, and what a linear probe reads from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from featdyn.report.figure import Axis, Lines, Map
from featdyn.report.figures import chart, curves, time_axis, time_map
from featdyn.report.findings import NOTHING, across, halfway, probes
from featdyn.report.rounding import percent
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
    "Did anything move, or had training converged? Motion: the distance between a probe’s features at t1 and at t2 "
    "over their norm at t1, a mean over probes. CKA: linear centred kernel alignment (Kornblith et al. 2019) by the "
    "unbiased estimator of Song et al. (2012); 1 means the same features up to rotation, shift and scale, 0 unrelated "
    "ones.",
    "Linear probe: ridge regression of the true labels on the features of the training probes; its accuracy on "
    "training probes, or copies of them, leaves each image out in turn. Straightness: the distance between a probe’s "
    "features at the first and the last checkpoint over the length of their path.",
)
CAVEAT = (
    "That these measures tell whether consistency is an artefact of convergence, the kind of linear probe and the "
    "jackknife behind the bounds of CKA are our own choice. Intervals are 95 % ones over probes; they do not cover "
    "what another seed of the training would change."
)


def section(result: xr.Dataset) -> Section:
    """Return the section; figures and columns of what the result does not hold are left out."""
    bulk = [name for name in ("step_length", "path_length", "displacement", "cka") if name in result]
    result = result.drop_vars(bulk).load()
    choices = choices_of(result, "set", "cut")
    over_time = time_axis(result)

    def motion(set: str, cut: str) -> Map:
        return time_map(result.isel(set=int(set), cut=int(cut)), "motion")

    def alike(cut: str) -> Map:
        return time_map(result.isel(cut=int(cut), cut2=int(cut)), "cka_debiased")

    def read(set: str) -> Lines:
        each = curves(result.isel(set=int(set)), "linear_accuracy", "t", "cut")
        return chart(each, Axis("Accuracy", share=True), over_time)

    def weights() -> Lines:
        last, each = result.isel(t2=-1), []
        for half, name, dash in (("prefix", "shallow", "solid"), ("suffix", "deep", "dot")):
            words = f"{{}}, {name} half".format
            each += curves(last, f"{half}_distance", "t1", "cut", dash=dash, words=words)
        return chart(each, "", time_axis(result, "1"))

    of_weights = "Distance of weights at t1 from the last checkpoint, over their norm at t1"
    panels = [
        panel(caption, {name: choices[name] for name in chosen}, draw, short)
        for variable, short, caption, chosen, draw in (
            ("motion", "motion", "Motion of features from t1 (rows) to t2 (columns)", ("set", "cut"), motion),
            ("cka_debiased", "cka", "Debiased CKA between t1 and t2", ("cut",), alike),
            ("prefix_distance", "weights", of_weights, (), weights),
            ("linear_accuracy", "linear_probe", "Accuracy of a linear probe", ("set",), read),
        )
        if variable in result
    ]
    grid = Grid(HEADER, list(_rows(result)))
    more: dict[str, Any] = {"finding": _finding(judged(result)), "caveat": CAVEAT}
    return Section("Drift of features and weights", TEXT, panels, choices, preset_set(result), grid, **more)


def _finding(result: xr.Dataset) -> Finding:
    half = result.isel(t1=halfway(result["step1"]), t2=-1)
    said = across(half, "motion", "cut", "{:.2f}".format) if "motion" in half else ""
    if not said:
        return Finding(NOTHING)
    step = f"{int(half['step1']):,}"
    return Finding(
        f"From step {step} to the last checkpoint features {probes(half)} move by {said}, in their own norms."
    )


HEADER = (
    "Cut after", "Probes", "Motion from half of training to its end", "Cosine between them",
    "Straightness of the whole path", "Linear probe at the end",
)  # fmt: skip


def _rows(result: xr.Dataset) -> Iterator[tuple[str, ...]]:
    half = halfway(result["step1"])
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
