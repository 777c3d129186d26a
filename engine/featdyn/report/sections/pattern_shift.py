"""``pattern_shift``: how far decision patterns are from those of training, and whether loss goes with it."""

from __future__ import annotations

from typing import Any

import xarray as xr

from featdyn.report.findings import NOTHING, across, probes, sign_of
from featdyn.report.layer_curves import layer_curves
from featdyn.report.section import Finding, Grid, Section, bounded_word, cells, judged, name_of, word

QUANTITIES = ("shift", "shift_shuffled", "loss_correlation", "loss_spearman", "class_correlation", "undefined")
TEXT = (
    "A probe’s decision pattern is what each channel contributes to its loss, gradient times activation. Its shift is "
    "1 less the cosine with the mean pattern of the training probes of its class, of other images than its own. With "
    "labels of training images dealt at random it is what patterns show that have nothing to do with classes.",
    "The table: at the last checkpoint, whether probes with a larger shift have a larger loss; and over all "
    "checkpoints, whether the mean shift goes with the loss beyond that of training probes.",
)
CAVEAT = "Limits are 95 % ones over images; checkpoints of one training are not independent of each other."


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.load()
    header = (
        "Layer",
        "Probes",
        "Shift",
        "Labels dealt at random",
        "Correlation with loss",
        "Spearman",
        "Over checkpoints with the gap",
    )
    rows = [
        (
            name_of(cell, "layer"),
            name_of(cell, "set"),
            bounded_word(cell, "shift", "{:.3f}".format),
            word(cell["shift_shuffled"], "{:.3f}".format),
            bounded_word(cell, "loss_correlation", "{:.2f}".format),
            word(cell["loss_spearman"], "{:.2f}".format),
            bounded_word(cell, "gap_correlation", "{:.2f}".format),
        )
        for cell in cells(result.isel(t=-1), "layer", "set")
    ]
    grid = Grid(header, rows)
    more: dict[str, Any] = {"finding": _finding(judged(result.isel(t=-1))), "caveat": CAVEAT}
    title = "Shift of decision patterns"
    return layer_curves(title, TEXT, result, "Shift and loss", QUANTITIES, grid, as_map=True, **more)


def _finding(last: xr.Dataset) -> Finding:
    said = across(last, "loss_correlation", "layer", "{:.2f}".format)
    if not said:
        return Finding(NOTHING)
    above = sum(sign_of(cell, "loss_correlation") > 0 for cell in cells(last, "layer"))
    words = f"At the last checkpoint, {probes(last)}, shift and loss have a correlation of {said}."
    return Finding(words, f"interval above 0 in {above} of {last.sizes['layer']} layers")
