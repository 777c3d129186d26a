"""Accuracy of composites over the checkpoint t1, a line for each kind: controls, policies, rewound layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr

from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, curves, time_axis
from featdyn.report.section import Grid, Section, choices_of, panel, preset_set


def composite_curves(
    title: str, text: Sequence[str], last: xr.Dataset, kind: str, grid: Grid | None = None, *, deep: bool, **more: Any
) -> Section:
    """Return the section of a result at one t2, ``last``, with ``accuracy`` over t1 and ``kind``, a line each.

    What else ``set`` and ``cut`` say is chosen by the reader. ``deep`` says whether kinds grow in depth; ``more`` is as
    of :class:`Section`.
    """
    choices = choices_of(last, *(dim for dim in ("set", "cut") if dim in last.dims))
    axis = time_axis(last, "1")

    def draw(**chosen: str) -> Lines:
        cell = last.isel({dim: int(value) for dim, value in chosen.items()})
        each = curves(cell, "accuracy", "t1", kind, deep=deep, words=lambda name: name.replace("_", " "))
        return chart(each, Axis("Accuracy", share=True), axis)

    of_t1 = "Shallow half of t1, deep half" if "cut" in choices else "One layer of t1, the rest"
    panels = [panel(f"{of_t1} of step {int(last['step2']):,}", choices, draw, "accuracy")]
    return Section(title, text, panels, choices, preset_set(last), grid, **more)
