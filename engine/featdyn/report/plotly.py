"""Figures in plotly's words: plain JSON, for the page and for notebooks.

Colours are those of light paper; ``meta`` holds those of dark paper, the checkpoints of an axis, and what the page's
script says of a value that is pointed at.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.report.colours import MARKERS, colours, patterns
from featdyn.report.figure import Axis, Figure, Lines, Map, Mark, Series, is_log, known, numbers, ratio
from featdyn.report.rounding import rounded, short

TICKS = 9
MARKED = 60  # points up to which each is marked
NARROW = 0.05
"""Span of shares below which the ends of a colour scale would read alike without a decimal."""
BOUNDED = 64 * 64
"""Cells up to which a map holds its intervals: beyond, they would be most of the page."""


def to_plotly(figure: Figure) -> dict[str, Any]:
    """Return ``{"data": ..., "layout": ...}``, without a title."""
    return _of_map(figure) if isinstance(figure, Map) else _of_lines(figure)


def _of_lines(figure: Lines) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "xaxis": _axis(figure.x),
        "yaxis": _axis(figure.y, known(figure.series), _reach(figure.series)),
        "showlegend": len(figure.series) > 1,
        "meta": _meta(figure.x, figure.y, **({"beside": figure.beside} if figure.beside else {})),
    }
    if not known(figure.series).size:
        said = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False, "text": "No value is known."}
        for axis in ("xaxis", "yaxis"):
            layout[axis] = {"title": layout[axis]["title"], "showticklabels": False, "showgrid": False}
        layout["annotations"] = [said]
    if not all(series.joined for series in figure.series):
        layout["scattermode"] = "group"  # points of one place stand side by side
    if figure.marks:
        layout["shapes"] = [shape for mark in figure.marks for shape in _shapes(mark)]
        layout["annotations"] = [
            {"x": mark.x, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False, "text": text(mark.name)}
            for mark in figure.marks
        ]
    return {
        "data": [_trace(s, *looks) for s, looks in zip(figure.series, patterns(figure.series), strict=True)],
        "layout": layout,
    }


def _trace(series: Series, symbol: str, dash: str) -> dict[str, Any]:
    light, dark = colours(series)
    values = rounded(series.y)
    line: dict[str, Any] = {"color": light, "width": 2}
    marker: dict[str, Any] = {"color": light, "size": 5 if series.joined else 9}
    if symbol != MARKERS[0]:
        marker["symbol"] = symbol
    if dash != "solid":
        line["dash"] = dash
    marked = len(values) <= MARKED
    trace = {
        "type": "scatter",
        "mode": ("lines+markers" if marked else "lines") if series.joined else "markers",
        "name": text(series.name),
        "y": values,
        "line": line,
        "marker": marker,
        "meta": {"dark": dark},
    }
    if series.x is not None:
        trace["x"] = [text(v) if isinstance(v, str) else v for v in series.x]
    if series.low is not None and series.high is not None:
        y, low, high = numbers(series.y), numbers(series.low), numbers(series.high)
        ends = {"array": rounded(high - y), "arrayminus": rounded(y - low)}
        trace["error_y"] = {"type": "data", "symmetric": False, **ends, "thickness": 1, "width": 0}
    if series.beside is not None:
        trace["text"] = [short(v) if math.isfinite(v) else "" for v in numbers(series.beside).tolist()]
    return trace


def _of_map(figure: Map) -> dict[str, Any]:
    values = rounded(figure.z)
    rows, columns = ([text(str(name)) for name in names] for names in figure.names)
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": columns or list(range(len(values[0]) if values else 0)),
        "y": rows or list(range(len(values))),
        "z": values,
        "colorscale": "Cividis",
        "colorbar": {"thickness": 9, "outlinewidth": 0, "nticks": 6, "xpad": 6, "len": 1},
    }
    if figure.share:
        shown = numbers(figure.z if figure.range is None else figure.range)
        shown = shown[np.isfinite(shown)]
        span = np.ptp(shown) if shown.size else 1.0
        trace["colorbar"]["tickformat"] = ".1%" if span < NARROW else ".0%"
    if figure.range is not None:
        trace |= {"zmin": figure.range[0], "zmax": figure.range[1]}
    if figure.low is not None and figure.high is not None and np.size(figure.z) <= BOUNDED:
        trace["meta"] = {"low": rounded(figure.low), "high": rounded(figure.high)}
    layout = {
        "xaxis": {**_axis(figure.x), "showgrid": False},
        "yaxis": {**_axis(figure.y, upright=True), "showgrid": False},
        "showlegend": False,
        "meta": _meta(figure.x, figure.y),
    }
    return {"data": [trace], "layout": layout}


def _reach(series: Sequence[Series]) -> NDArray[Any]:
    """Return what a logarithmic axis has to hold: positive values, and the ends of intervals, which reach further."""
    ends = [end for s in series for end in (s.low, s.high) if end is not None]
    found = np.concatenate([known(series), *(np.ravel(numbers(end)) for end in ends)])
    positive: NDArray[Any] = found[np.isfinite(found) & (found > 0)]
    return positive


def _axis(axis: Axis, values: Any = None, reach: Any = None, *, upright: bool = False) -> dict[str, Any]:
    if axis.scale == "checkpoint":
        return checkpoint_ticks(axis, " / " if upright else "<br>")
    found: dict[str, Any] = {}
    title = text(axis.title)
    if axis.scale == "category":
        found["type"] = "category"
    if axis.share:
        found["tickformat"] = ".0%"
    if axis.whole:
        found["tickformat"] = "d"
    if axis.from_zero:
        found["rangemode"] = "tozero"
    held = np.array([]) if values is None else values
    if is_log(axis, held):
        span = ratio(held if reach is None else reach)
        found["type"] = "log"
        title = ", ".join(filter(None, [title, "log scale"]))
        dtick = "D2" if span < 1000 else math.ceil(math.log10(span) / TICKS)
        found |= {"dtick": dtick, "tickformat": "~s" if values is None else "~g"}
    return {"title": {"text": title}, **found}


def checkpoint_ticks(axis: Axis, between: str = "<br>") -> dict[str, Any]:
    """Return an axis by position, a few of its checkpoints labelled with number and step."""
    shown = range(0, len(axis.checkpoints), stride(len(axis.checkpoints)))
    return {
        "title": {"text": text(axis.title)},
        "tickvals": list(shown),
        "ticktext": [f"{axis.checkpoints[i]}{between}{short(float(axis.steps[i]))}" for i in shown],
        "range": [-0.5, len(axis.checkpoints) - 0.5],
    }


def stride(count: int, most: int = TICKS) -> int:
    """Return the round distance (1, 2, 5, 10, ...) at which at most ``most`` of ``count`` places are labelled."""
    strides = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    return int(next(found for found in strides if (count - 1) // found < most))


def _meta(x: Axis, y: Axis, **more: Any) -> dict[str, Any]:
    found = {end: list(axis.checkpoints) for end, axis in (("x", x), ("y", y)) if axis.checkpoints}
    return found | ({"share": True} if y.share else {}) | more


def _shapes(mark: Mark) -> list[dict[str, Any]]:
    over = {"yref": "paper", "y0": 0, "y1": 1}
    at = {"x0": mark.x, "x1": mark.x}
    found: list[dict[str, Any]] = [{"type": "line", **over, **at, "line": {"dash": "dash", "width": 1}}]
    if np.isfinite([mark.low, mark.high]).all():
        found.append({"type": "rect", **over, "x0": mark.low, "x1": mark.high, "line": {"width": 0}, "opacity": 0.15})
    return found


def text(value: str) -> str:
    """Return text that plotly shows as it is: plotly reads tags and entities in names and titles."""
    return html.escape(value, quote=False)
