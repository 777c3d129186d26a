"""``averaging``: averaged weights and averaged predictions beside the last network."""

from __future__ import annotations

import numpy as np
import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curves, line
from featdyn.report.findings import NOTHING, probes, sign_of
from featdyn.report.rounding import percent, points
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
)

TEXT = (
    "Accuracy of averages over the last checkpoints: of their weights, with BatchNorm statistics estimated anew, or of "
    "their predicted probabilities. A window of 1 is the last network itself, for weights with statistics estimated "
    "anew: what a larger window gains beyond that comes from averaging. The dotted line is the last network as it was "
    "recorded.",
    "The table is of the largest window; changes are against the last network.",
)
CAVEAT = (
    "Intervals are 95 % ones over images; they do not cover what another seed of the training would change. Windows "
    "were not chosen on other data than what is shown."
)
HEADER = ("Average", "Probes", "Accuracy", "Change of accuracy")


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.drop_vars("prediction", errors="ignore").load()
    choices, windows = choices_of(result, "set"), result["window"].values
    largest = result.isel(window=int(np.argmax(windows)))

    def draw(set: str) -> Lines:
        of_set = result.isel(set=int(set))
        each = curves(of_set, "accuracy", "window", "average", deep=False, x=windows.tolist())
        if "change" in of_set:
            last = (of_set["accuracy"] - of_set["change"]).max("average").transpose("window").values
            each.append(line("last network", last, dash="dot", x=windows.tolist()))
        return chart(each, Axis("Accuracy", share=True), Axis("checkpoints in the average", whole=True))

    rows = [
        (
            name_of(cell, "average"),
            name_of(cell, "set"),
            bounded_word(cell, "accuracy", percent),
            bounded_word(cell, "change", points),
        )
        for cell in cells(largest, "average", "set")
    ]
    caption = "Accuracy by the number of checkpoints averaged"
    panels = [panel(caption, choices, draw, "accuracy")] if len(windows) > 1 else []
    return Section(
        "Averages over checkpoints",
        TEXT,
        panels,
        choices if panels else {},
        preset_set(result) if panels else {},
        Grid(HEADER, rows),
        finding=_finding(judged(largest)),
        caveat=CAVEAT,
    )


def _finding(largest: xr.Dataset) -> Finding:
    each = [cell for cell in cells(largest, "average") if np.isfinite(float(cell["change"]))]
    if not each:
        return Finding(NOTHING)
    said = "; ".join(f"{name_of(cell, 'average')} {bounded_word(cell, 'change', points)}" for cell in each)
    verdicts = {1: "better", 0: "no difference shown", -1: "worse"}
    verdict = ", ".join(f"{name_of(cell, 'average')}: {verdicts[sign_of(cell, 'change')]}" for cell in each)
    if (window := int(largest["window"])) == 1:
        return Finding("Nothing is averaged in a window of one checkpoint.")
    return Finding(f"Averaging {window} checkpoints changes accuracy {probes(largest)} by: {said}.", verdict)
