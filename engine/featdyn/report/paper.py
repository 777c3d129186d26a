"""Figures on paper: PDF, SVG and PNG of a column's or a page's width, by Matplotlib.

Light paper, 8 point letters, the page's colours, stored intervals as bars. A name is wrapped where it is long and never
cut: the figure grows in height until its axes have the height that they should.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Paper
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from featdyn import __version__
from featdyn.errors import FeatdynError
from featdyn.nearest import nearest
from featdyn.output import output_file, shown
from featdyn.report.colours import colours, patterns
from featdyn.report.figure import Axis, Figure, Lines, Map, Series, is_log, known, numbers
from featdyn.report.plotly import stride
from featdyn.report.rounding import short

WIDTHS = {"column": 3.3, "page": 6.9}
"""Inches: of a column of two, and of a page's text, in most journals and conferences."""
ENDINGS = ("pdf", "svg", "png")
LETTER = 0.075  # inches: a letter of 8 point, more than most are wide
ROW = 0.135  # inches: a line of names
BESIDE = 1.0  # inches beside maps: ticks of their rows, and the bar of colours
CELLS = 128 * 128  # up to which each cell of a map is a shape of its own; larger maps are pictures
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "x": "x"}
_STYLE = {
    "font.size": 8,
    "font.family": ["DejaVu Sans"],
    "text.parse_math": False,  # a name with dollars is no formula
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "grid.color": "#dfe1e3",
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "pdf.fonttype": 42,  # whole fonts, which journals ask for
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "featdyn",  # the same names of parts each time
    "savefig.dpi": 300,
}


def save(panels: Sequence[tuple[str, Figure]], path: str | Path, *, width: str, source: str) -> Path:
    """Write figures into one file, the same bits each time, and return its path.

    Parameters
    ----------
    panels : of each its place in words and the figure, all lines or all maps
    path : ends with .pdf, .svg or .png
    width : one of :data:`WIDTHS`
    source : of which store and commit this is; goes into the file with the figure's title

    Raises
    ------
    FeatdynError
        The ending is another, or the file cannot be written.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in ENDINGS:
        raise FeatdynError(f"{path}: the name has to end with {', '.join(f'.{e}' for e in ENDINGS)}")
    if not any(np.isfinite(_values(figure)).any() for _, figure in panels):
        titles = shown("; ".join(figure.title for _, figure in panels))
        raise FeatdynError(f"{titles}: every value is missing; featdyn info STORE --results says why")
    titles, who = shown("; ".join(figure.title for _, figure in panels)), f"featdyn {__version__}"
    about: dict[str, dict[str, Any]] = {
        "pdf": {"Title": titles, "Subject": shown(source), "Creator": who, "CreationDate": None},
        "svg": {"Title": titles, "Source": shown(source), "Creator": who, "Date": None},
        "png": {"Title": titles, "Source": shown(source), "Software": who},
    }
    content = BytesIO()
    with style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a name in other letters has boxes
        _drawn(panels, width).savefig(content, format=ending, metadata=about[ending])
    with output_file(path) as stream:
        stream.write(content.getvalue())
    return Path(path)


def drawn(panels: Sequence[tuple[str, Figure]], width: str = "column") -> Paper:
    """Return figures as one of Matplotlib's, of a width of :data:`WIDTHS`."""
    with style.context(_STYLE, after_reset=True):
        return _drawn(panels, width)


def _drawn(panels: Sequence[tuple[str, Figure]], width: str) -> Paper:
    if width not in WIDTHS:
        raise FeatdynError(f"no width {width!r}: {nearest(width, WIDTHS)}")
    columns = min(len(panels), {"column": 2, "page": 4}[width])
    maps = [figure for _, figure in panels if isinstance(figure, Map)]
    rows, across = -(-len(panels) // columns), (WIDTHS[width] - (BESIDE if maps else 0.0)) / columns
    paper = Paper(figsize=(WIDTHS[width], 2.2 * rows), layout="constrained")
    FigureCanvasAgg(paper)
    every = paper.subplots(rows, columns, squeeze=False).ravel()
    for axes in every[len(panels) :]:
        axes.remove()
    used, heights = every[: len(panels)], [0.0]
    span = _span(maps)
    for i, (axes, (place, figure)) in enumerate(zip(used, panels, strict=True)):
        axes.set_title(_wrapped(place, across))
        if isinstance(figure, Map):
            heights.append(_map(axes, figure, across, span))
            axes.tick_params(labelbottom=i + columns >= len(panels), labelleft=i % columns == 0)
        else:
            heights.append(_lines(axes, figure, across))
    if maps:
        drawn = used[0].collections[0] if used[0].collections else used[0].images[0]
        bar = paper.colorbar(drawn, ax=list(used), fraction=0.05, aspect=30, pad=0.02)
        bar.outline.set_visible(False)
        # Above, where there is room for any title: beside the bar there is as much as the maps are high.
        paper.suptitle(_wrapped(maps[0].title.removeprefix(f"{panels[0][0]}: "), WIDTHS[width]), fontsize=8)
        if maps[0].share:
            bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
        if len(maps) > 1:  # one title of an axis for all
            for axes in used:
                axes.set(xlabel="", ylabel="")
            paper.supxlabel(_wrapped(maps[0].x.title, WIDTHS[width]), fontsize=8)
            paper.supylabel(shown(maps[0].y.title), fontsize=8)
    handles, names = used[0].get_legend_handles_labels()
    if len(names) > 1:
        names = [_wrapped(name, WIDTHS[width] - 0.6) for name in names]
        widest = max(len(line) for name in names for line in name.splitlines()) * LETTER + 0.5
        paper.legend(handles, names, loc="outside lower center", ncols=max(1, int(WIDTHS[width] / widest)))
    return _grown(paper, list(used), max(heights))


def _grown(paper: Paper, axes: list[Any], height: float) -> Paper:
    """Make the figure as high as its axes need, 0 for squares: around them stand legends and names of any size."""
    rows = max(int(a.get_subplotspec().rowspan.stop) for a in axes)
    for _ in range(8):
        total = float(paper.get_figheight())
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "constrained_layout not applied", UserWarning)
            try:
                paper.draw_without_rendering()
            except UserWarning:  # no room is left for the axes
                paper.set_figheight(total + 1.5 * rows)
                continue
        places = [a.get_position(original=True) for a in axes]
        least = min(float(place.height) for place in places) * total
        height = height or min(float(place.width) for place in places) * float(paper.get_figwidth())
        if abs(least - height) < 0.02:
            break
        paper.set_figheight(min(40.0, max(1.0, total + rows * (height - least))))
    return paper


def _lines(axes: Axes, figure: Lines, across: float) -> float:
    """Draw lines, and return the height that they should have."""
    named = figure.x.scale == "category"
    names = list(dict.fromkeys(str(x) for one in figure.series for x in one.x or ())) if named else []
    count = len(figure.series)
    for i, (one, (marker, dash)) in enumerate(zip(figure.series, patterns(figure.series), strict=True)):
        x = _places(one, names)
        if not one.joined:
            x = x + (i - (count - 1) / 2) * 0.6 / count  # points of one place stand side by side
        look: dict[str, Any] = {"color": colours(one)[0], "label": shown(one.name), "gid": f"series-{i}"}
        if one.joined:
            look |= {"linestyle": _DASHES[dash], "linewidth": 1.2}
        else:
            look |= {"linestyle": "none"}
        y, few = numbers(one.y), len(one.y) <= 30
        axes.plot(x, y, marker=_MARKERS[marker] if few or not one.joined else "", markersize=3, **look)
        if one.low is not None and one.high is not None:
            low, high = numbers(one.low), numbers(one.high)
            there = np.isfinite(y) & np.isfinite(low) & np.isfinite(high)
            bars = axes.vlines(x[there], low[there], high[there], color=colours(one)[0], linewidth=0.7, alpha=0.7)
            bars.set_gid(f"intervals-{i}")
    for mark in figure.marks:
        axes.axvline(mark.x, color="#1d2126", linewidth=0.7, linestyle="--")
        if np.isfinite([mark.low, mark.high]).all():
            axes.axvspan(mark.low, mark.high, color="#0b62a4", alpha=0.15, linewidth=0)
        place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": 7}
        axes.annotate(_wrapped(mark.name, across / 2), (mark.x, 1.02), **place)
    height = 0.62 * across
    upright = figure.y if figure.y.title else replace(figure.y, title=figure.title.partition(":")[0])
    places = [_places(one, names) for one in figure.series]
    _axis(axes, figure.x, "x", across, names, np.concatenate(places) if places else None)
    _axis(axes, upright, "y", height, [], known(figure.series))
    return height


def _map(axes: Axes, figure: Map, across: float, span: tuple[float, float]) -> float:
    """Draw a map, and return the height that it should have, 0 where it is to be a square."""
    values = np.ma.masked_invalid(np.atleast_2d(numbers(figure.z)))
    axes.set_facecolor("#dfe1e3")  # what is missing
    axes.grid(visible=False)
    look: dict[str, Any] = {"cmap": "cividis", "vmin": span[0], "vmax": span[1]}
    if values.size <= CELLS:
        axes.pcolormesh(values, **look).set_gid("cells")
        shift = 0.5
    else:
        axes.imshow(values, origin="lower", aspect="auto", interpolation="none", **look)
        shift = 0.0
    rows, columns = ([shown(str(name)) for name in names] for names in figure.names)
    beside = 0.38 * (across + BESIDE)  # inches that names of rows may take
    room = across + BESIDE - beside if rows else across
    _axis(axes, figure.x, "x", room, columns, shift=shift)
    _axis(axes, figure.y, "y", beside if rows else across, rows, shift=shift)
    return max(0.8, ROW * sum(_wrapped(name, beside).count("\n") + 1 for name in rows)) if rows else 0.0


def _values(figure: Figure) -> np.ndarray[Any, Any]:
    """Return all values of a figure."""
    return np.ravel(numbers(figure.z)) if isinstance(figure, Map) else known(figure.series)


def _span(maps: list[Map]) -> tuple[float, float]:
    """Return the ends of the one scale of colours that maps share."""
    ends = [m.range for m in maps if m.range is not None]
    values = np.concatenate([np.ravel(numbers(m.z)) for m in maps] or [np.zeros(0)])
    values = np.array(ends).ravel() if ends and len(ends) == len(maps) else values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def _places(one: Series, names: list[str]) -> np.ndarray[Any, Any]:
    if one.x is None:
        return np.arange(len(one.y), dtype=float)
    return np.array([names.index(str(x)) for x in one.x], float) if names else numbers(one.x)


def _axis(
    axes: Axes,
    axis: Axis,
    of: str,
    room: float,
    names: Sequence[str],
    values: np.ndarray[Any, Any] | None = None,
    *,
    shift: float = 0.0,
) -> None:
    """Set scale, ticks and title of one axis; ``room`` is the inches that names have."""
    own = axes.xaxis if of == "x" else axes.yaxis
    title = axis.title
    if axis.scale == "checkpoint":
        most = max(2, int(room / (0.42 if of == "x" else 0.25)))
        at = list(range(0, len(axis.checkpoints), stride(len(axis.checkpoints), min(9, most))))
        between = "\n" if of == "x" else " / "
        own.set_ticks(
            [i + shift for i in at], [f"{axis.checkpoints[i]}{between}{short(float(axis.steps[i]))}" for i in at]
        )
        (axes.set_xlim if of == "x" else axes.set_ylim)(shift - 0.5, len(axis.checkpoints) - 0.5 + shift)
    elif axis.scale == "category" or names:
        crowded = of == "x" and len(names) * (max(map(len, names), default=0) + 1) * LETTER > room
        wrapped = [_wrapped(name, 3.0 if crowded else room) for name in names]
        own.set_ticks([i + shift for i in range(len(names))], wrapped, rotation=90 if crowded else 0)
    else:
        held = np.array([]) if values is None else values
        if is_log(axis, held):
            (axes.set_xscale if of == "x" else axes.set_yscale)("log")
            title = ", ".join(filter(None, [title, "log scale"]))
            lowest, highest = own.get_view_interval()  # intervals may reach further than values
            own.set_major_locator(LogLocator(10, subs=(1, 2, 5) if highest < 1000 * lowest else (1,), numticks=7))
            own.set_minor_locator(NullLocator())
            own.set_major_formatter(FuncFormatter(lambda v, _: f"{short(100 * v)}%" if axis.share else short(v)))
        elif axis.share:
            own.set_major_formatter(PercentFormatter(1))
        elif axis.whole:
            own.set_major_locator(MaxNLocator("auto", integer=True))
        if axis.from_zero:
            axes.set_xlim(left=0) if of == "x" else axes.set_ylim(bottom=0)
    own.set_label_text(_wrapped(title, room))


def _wrapped(text: str, room: float) -> str:
    """Return a text in lines of so many inches."""
    letters = max(8, int(room / LETTER))
    return textwrap.fill(shown(text), letters, break_on_hyphens=False)
