"""``averaging``: averaged weights and averaged predictions beside the last network."""

from __future__ import annotations

import numpy as np
import xarray as xr

from featdyn.report.figures import COLOURS, NEUTRAL, Figure, figure, line, lines
from featdyn.report.rounding import percent, points
from featdyn.report.section import Grid, Section, bounded_word, cells, choices_of, name_of, panel, preset_set

TEXT = (
    "Accuracy of averages over the last checkpoints: of their weights, with BatchNorm statistics estimated anew, or of "
    "their predicted probabilities. A window of 1 is the last network itself, for weights with statistics estimated "
    "anew: what a larger window gains beyond that comes from averaging. The dotted line is the last network as it was "
    "recorded.",
    "The table is of the largest window; changes are against the last network, with 95 % intervals over images.",
)
HEADER = ("Average", "Probes", "Accuracy", "Change of accuracy")


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.drop_vars("prediction", errors="ignore").load()
    choices, windows = choices_of(result, "set"), result["window"].values
    xaxis = {"title": {"text": "checkpoints in the average"}, "tickformat": "d"}

    def draw(set: str) -> Figure:
        of_set = result.isel(set=int(set))
        accuracy = of_set["accuracy"].transpose("average", "window").values
        each = lines(result["average"].values, accuracy, COLOURS, x=windows.tolist())
        if "change" in of_set:
            last = (of_set["accuracy"] - of_set["change"]).max("average").transpose("window").values
            each.append(line("last network", last, NEUTRAL, "dot", x=windows.tolist()))
        return figure(each, "Accuracy", xaxis=xaxis, share=True, log=False)

    rows = [
        (
            name_of(cell, "average"),
            name_of(cell, "set"),
            bounded_word(cell, "accuracy", percent),
            bounded_word(cell, "change", points),
        )
        for cell in cells(result.isel(window=int(np.argmax(windows))), "average", "set")
    ]
    panels = [panel("Accuracy by the number of checkpoints averaged", choices, draw)]
    return Section("Averages over checkpoints", TEXT, panels, choices, preset_set(result), Grid(HEADER, rows))
