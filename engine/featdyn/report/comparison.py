"""The figure of runs side by side, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from featdyn.across_runs.compare import NUMBERS
from featdyn.output import output_file
from featdyn.report.figures import COLOURS, text

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw(table: pd.DataFrame) -> go.Figure:
    """Return the figure of a table of :func:`~featdyn.across_runs.compare.compare`.

    A panel for each quantity, a colour for each group. Bars are 95 % intervals: over runs, or of a single run over
    probes.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    quantities, names = list(dict.fromkeys(table["quantity"])), list(dict.fromkeys(table["group"]))
    figure = make_subplots(rows=len(quantities), cols=1, subplot_titles=[text(q) for q in quantities])
    labels = [c for c in table.columns if c not in ("quantity", "group", *NUMBERS)]
    for row, quantity in enumerate(quantities, 1):
        for g, name in enumerate(names):
            mine = table[(table["quantity"] == quantity) & (table["group"] == name)]
            single = mine["runs"] < 2
            low, high = (mine[e].where(~single, mine[f"probes_{e}"]) for e in ("low", "high"))
            trace = go.Scatter(
                x=[text(" · ".join(str(v) for v in cell if v != "")) for cell in mine[labels].itertuples(index=False)],
                y=mine["value"],
                name=text(name),
                legendgroup=text(name),
                showlegend=row == 1,
                mode="markers",
                marker={"size": 9, "color": COLOURS[g % len(COLOURS)]},
                error_y={"array": high - mine["value"], "arrayminus": mine["value"] - low, "thickness": 1.5},
                customdata=["probes" if one else "runs" for one in single],
                hovertemplate="%{x}<br>%{y:.4g}, 95 % interval over %{customdata}<extra>%{fullData.name}</extra>",
            )
            figure.add_trace(trace, row=row, col=1)
    figure.update_layout(
        height=120 + 300 * len(quantities), template="plotly_white", scattermode="group", legend={"orientation": "h"}
    )
    return figure


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Write the figure as one HTML file that works offline.

    Raises
    ------
    FeatdynError
        The file cannot be written.
    """
    page: str = draw(table).to_html(include_plotlyjs=True, full_html=True)
    with output_file(path, parents=True) as stream:
        stream.write(page.encode("utf-8", errors="replace"))
