"""Accuracy of composites over the checkpoint t1, a line for each kind: controls, policies, rewound layers."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, figure, lines
from featdyn.report.section import Grid, Section, choices_of, panel, preset_set


def composite_curves(
    title: str, text: Sequence[str], last: xr.Dataset, kind: str, colours: Sequence[str], grid: Grid | None = None
) -> Section:
    """Return the section of a result at one t2, ``last``, with ``accuracy`` over t1 and ``kind``, a line each.

    What else ``set`` and ``cut`` say is chosen by the reader.
    """
    choices = choices_of(last, *(dim for dim in ("set", "cut") if dim in last.dims))
    axis = checkpoint_axis(last["t1"].values, last["step1"].values)

    def draw(**chosen: str) -> Figure:
        cell = last.isel({dim: int(value) for dim, value in chosen.items()})
        names = (str(k).replace("_", " ") for k in last[kind].values)
        each = lines(names, cell["accuracy"].transpose(kind, "t1").values, colours)
        return figure(each, "Accuracy", xaxis=axis, share=True, log=False)

    of_t1 = "Shallow half of t1, deep half" if "cut" in choices else "One layer of t1, the rest"
    panels = [panel(f"{of_t1} of step {int(last['step2']):,}", choices, draw)]
    return Section(title, text, panels, choices, preset_set(last), grid)
