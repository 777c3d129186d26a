"""Line figures as plotly reads them: plain JSON, which the page's script draws in light or dark colours."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.report.rounding import rounded, short

Figure: TypeAlias = dict[str, Any]
Figures: TypeAlias = dict[str, Figure]  # by the choices that show it, joined by "|"; "" where there is no choice

# Okabe and Ito's colours, told apart with any colour vision; their yellow and black vanish on light or dark paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
NEUTRAL = "#8a8f98"
_DEPTH = ((0x1F, 0x78, 0xC1), (0xB8, 0x6B, 0xA9), (0xE6, 0x9F, 0x00))  # shallow to deep: blue, mauve, orange

TICKS = 9
MARKED = 60  # points up to which each is marked
INLINE = 14  # lines up to which the legend stands above the figure


def line(name: str, y: ArrayLike, colour: str, dash: str = "", **more: Any) -> dict[str, Any]:
    """Return one line; without ``x`` it runs over the run's checkpoints, and the page's script adds their steps."""
    values = rounded(y)
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(values) <= MARKED else "lines",
        "name": text(name),
        "y": values,
        "line": {"color": colour, "width": 2} | ({"dash": dash} if dash else {}),
        "marker": {"size": 5},
        **more,
    }


def lines(
    names: Iterable[Any], values: Iterable[ArrayLike], colours: Iterable[str], **more: Any
) -> list[dict[str, Any]]:
    """Return a line for each name and row of values, in the first so many colours."""
    return [line(str(name), y, colour, **more) for name, y, colour in zip(names, values, colours, strict=False)]


def figure(
    lines: Sequence[dict[str, Any]], y: str = "", *, xaxis: dict[str, Any], share: bool = False, log: bool | None = None
) -> Figure:
    """Return a figure of lines, with an x axis as plotly has it.

    ``y`` is the title of the y axis, where nothing beside the figure says it. A ``share`` is shown as a percentage.
    ``log`` says whether the y axis is logarithmic; None: where the values span much.
    """
    values = [v for trace in lines for v in trace["y"] if v is not None]
    ratio = max(values) / min(values) if values and min(values) > 0 else 0.0
    log = ratio > 20 if log is None else log
    axis: dict[str, Any] = {"title": {"text": ", ".join(filter(None, [text(y), "log scale" if log else ""]))}}
    axis |= {"tickformat": ".0%", "hoverformat": ".1%"} if share else {"hoverformat": ".4~g"}
    if log:
        dtick = "D2" if ratio < 1000 else math.ceil(math.log10(ratio) / TICKS)
        axis |= {"type": "log", "dtick": dtick, "tickformat": "~g"}
    above = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    legend = above if len(lines) <= INLINE else {"y": 0.94}
    layout = {"xaxis": xaxis, "yaxis": axis, "showlegend": len(lines) > 1, "legend": legend}
    return {"data": list(lines), "layout": layout}


def heatmap(z: ArrayLike, rows: dict[str, Any], columns: dict[str, Any]) -> Figure:
    """Return a heatmap of ``z (t1, t2)``; ``rows`` and ``columns`` are from :func:`checkpoint_axis`."""
    values = rounded(z)
    trace = {
        "type": "heatmap",
        "x": list(range(len(values[0]))),
        "y": list(range(len(values))),
        "z": values,
        "colorscale": "Cividis",
        "colorbar": {"thickness": 9, "outlinewidth": 0, "nticks": 6, "xpad": 6},
        "hovertemplate": "t1: checkpoint %{y}<br>t2: checkpoint %{x}<br><b>%{z}</b><extra></extra>",
    }
    axes = {"showgrid": False, "constrain": "domain"}
    rows = {**rows, "ticktext": [label.replace("<br>", " / ") for label in rows["ticktext"]]}  # two lines would collide
    layout = {
        "xaxis": {**columns, **axes, "title": {"text": "t2: checkpoint / step"}},
        "yaxis": {**rows, **axes, "title": {"text": "t1: checkpoint / step"}, "scaleanchor": "x"},
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout}


def layer_map(z: ArrayLike, layers: ArrayLike, columns: dict[str, Any] | None = None) -> Figure:
    """Return a heatmap of ``z``: layers by checkpoints, with an axis from :func:`checkpoint_axis`, or by layers."""
    names = [text(str(layer)) for layer in np.asarray(layers).tolist()]
    values = rounded(z)
    trace = {
        "type": "heatmap",
        "x": names if columns is None else list(range(len(values[0]))),
        "y": names,
        "z": values,
        "colorscale": "Cividis",
        "colorbar": {"thickness": 9, "outlinewidth": 0, "nticks": 6, "xpad": 6},
        "hovertemplate": "<b>%{y}</b><br>%{x}<br><b>%{z}</b><extra></extra>",
    }
    layout = {
        "xaxis": {**(columns or {"type": "category"}), "showgrid": False},
        "yaxis": {"type": "category", "showgrid": False},
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout}


def checkpoint_axis(checkpoints: NDArray[Any], steps: NDArray[Any]) -> dict[str, Any]:
    """Return an axis over checkpoints by position, a few of them labelled with number and step."""
    shown = range(0, len(checkpoints), stride(len(checkpoints)))
    return {
        "title": {"text": "checkpoint / step"},
        "tickvals": list(shown),
        "ticktext": [f"{checkpoints[i]}<br>{short(float(steps[i]))}" for i in shown],
        "range": [-0.5, len(checkpoints) - 0.5],
    }


def stride(count: int) -> int:
    """Return the round distance (1, 2, 5, 10, ...) at which at most ``TICKS`` of ``count`` positions are labelled."""
    strides = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    return int(next(found for found in strides if (count - 1) // found < TICKS))


def depth_colours(count: int) -> list[str]:
    """Return one colour for each layer, from shallow to deep."""
    found = []
    for i in range(count):
        at = (len(_DEPTH) - 1) * i / max(1, count - 1)
        below = min(int(at), len(_DEPTH) - 2)
        mixed = (a + (b - a) * (at - below) for a, b in zip(_DEPTH[below], _DEPTH[below + 1], strict=True))
        found.append("#" + "".join(f"{round(channel):02x}" for channel in mixed))
    return found


def text(value: str) -> str:
    """Return text that plotly shows as it is: plotly reads tags and entities in names and titles."""
    return html.escape(value, quote=False)
