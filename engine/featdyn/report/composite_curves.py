"""Accuracy of composites over the checkpoint t1, a line for each kind: controls, policies, rewound layers."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, figure, line
from featdyn.report.section import Grid, Panel, Section, choices_of, for_each, preset_set


def composite_curves(
    title: str, text: Sequence[str], last: xr.Dataset, kind: str, colours: Sequence[str], grid: Grid | None = None
) -> Section:
    """Return the section.

    Parameters
    ----------
    last
        A result at one t2, with ``accuracy`` over t1 and ``kind``.
    kind
        The dimension of the lines; what else ``set`` and ``cut`` say is chosen by the reader.
    colours
        Of the lines.
    """
    choices = choices_of(last, *(dim for dim in ("set", "cut") if dim in last.dims))
    axis = checkpoint_axis(last["t1"].values, last["step1"].values)

    def draw(**chosen: str) -> Figure:
        cell = last.isel({dim: int(value) for dim, value in chosen.items()})
        kinds = zip(last[kind].values, cell["accuracy"].transpose(kind, "t1").values, colours, strict=False)
        return figure(
            [line(str(k).replace("_", " "), y, c) for k, y, c in kinds], "Accuracy", xaxis=axis, share=True, log=False
        )

    of_t1 = "Shallow half of t1, deep half" if "cut" in choices else "One layer of t1, the rest"
    panel = Panel(f"{of_t1} of step {int(last['step2']):,}", for_each(choices, draw), tuple(choices))
    return Section(title, text, [panel], choices, preset_set(last), grid)
