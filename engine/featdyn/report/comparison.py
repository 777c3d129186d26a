"""Runs side by side as a page: a section for each quantity, a colour for each group."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from featdyn.across_runs.compare import NUMBERS, SHARES
from featdyn.report.document import Document, check_ending
from featdyn.report.document import write as write_page
from featdyn.report.figure import Axis, Lines, Series, numbers
from featdyn.report.figures import chart
from featdyn.report.section import Finding, Grid, Panel, Section, between

TEXT = (
    "Each point is a group of runs at one place; runs whose recipes differ in nothing but seeds are one group. Bars "
    "are 95 % intervals: over the runs of a group, or of a single run over its probes.",
)
CAVEAT = (
    "Intervals that overlap do not show that groups are equal, nor is each place a test of its own: there are as many "
    "chances to differ as places. A single run says nothing of other seeds."
)


def sections(table: pd.DataFrame) -> list[Section]:
    """Return a section for each quantity of a table of :func:`~featdyn.across_runs.compare.compare`."""
    return [_section(str(quantity), part) for quantity, part in table.groupby("quantity", sort=False)]


def write(table: pd.DataFrame, path: str | Path, *, where: str = "") -> Path:
    """Write the comparison as one HTML file that works offline, and return its path.

    Parameters
    ----------
    where
        In words, at which checkpoints runs are compared.

    Raises
    ------
    FeatdynError
        The file cannot be written, or has the ending of no page.
    """
    check_ending(path)
    found = sections(table)
    document = Document("compare", {f"compared-{i}-0": section for i, section in enumerate(found)})
    groups = table.groupby("group", sort=False)["runs"].max()
    counts = {str(name): int(count) for name, count in groups.items()}
    return write_page(document.render("comparison.html.j2", where=where, groups=counts), path)


def _section(quantity: str, part: pd.DataFrame) -> Section:
    labels = [c for c in part.columns if c not in ("quantity", "group", *NUMBERS)]
    labels = [c for c in labels if (part[c] != "").any()]
    places = part[labels].apply(lambda row: " · ".join(str(v) for v in row if v != ""), axis=1)
    part = part.assign(place=places if labels else "")
    figure = _figure(quantity, part, " · ".join(map(str, labels)))
    header = (*map(str, labels), "Group", "Value", "95 % interval", "Over", "Runs")
    rows = [
        (
            *(str(row[c]) for c in labels),
            str(row["group"]),
            _show(quantity, row["value"]),
            *_interval(quantity, row),
            str(row["runs"]),
        )
        for _, row in part.iterrows()
    ]
    panel = Panel(f"{_words(quantity)} of each group", {"": figure})
    return Section(
        _words(quantity), TEXT, (panel,), grid=Grid(header, rows), finding=_finding(quantity, part), caveat=CAVEAT
    )


def _figure(quantity: str, part: pd.DataFrame, labels: str) -> Lines:
    each = []
    for order, (name, mine) in enumerate(part.groupby("group", sort=False)):
        low, high = zip(*(_ends(row) for _, row in mine.iterrows()), strict=True)
        values = numbers(mine["value"])
        x = mine["place"].tolist()
        each.append(Series(str(name), values, x, numbers(low), numbers(high), order=order, joined=False))
    title = f"{_words(quantity)} of each group"
    y = Axis(_words(quantity), share=_is_share(quantity))
    return chart(each, y, Axis(labels, "category"), title=title)


def _finding(quantity: str, part: pd.DataFrame) -> Finding:
    """Say where groups are furthest apart, and in how many places intervals of the two extreme ones do not overlap."""
    apart = known = 0
    most, said = -1.0, ""
    for place, cell in part.dropna(subset=["value"]).groupby("place", sort=False):
        if len(cell) < 2:
            continue
        low, high = (cell.iloc[int(pick(cell["value"].to_numpy()))] for pick in (np.argmin, np.argmax))
        ends = _ends(low)[1], _ends(high)[0]
        known += bool(np.isfinite(ends).all())
        apart += bool(ends[0] < ends[1])
        if (difference := float(high["value"] - low["value"])) > most:
            most = difference
            both = " and ".join(f"{_bounded(quantity, row)} for {row['group']}" for row in (low, high))
            said = f"Groups differ most{f' at {place!s}' if place else ''}: {both}."
    if not said:
        rows = part.dropna(subset=["value"]).iterrows()
        each = [_bounded(quantity, row) + (f" at {row['place']}" if row["place"] else "") for _, row in rows]
        return Finding(f"{'; '.join(each[:4])}{'; …' if len(each) > 4 else ''}." if each else "Nothing is known here.")
    verdict = f"intervals apart in {apart} of {known} places" if known else ""
    return Finding(said if most > 0 else "Groups do not differ anywhere.", verdict)


def _ends(row: pd.Series) -> tuple[float, float]:
    """Return the interval over runs; of a single run that over its probes."""
    single = "probes_" if row["runs"] < 2 else ""
    return float(row[f"{single}low"]), float(row[f"{single}high"])


def _interval(quantity: str, row: pd.Series) -> tuple[str, str]:
    low, high = _ends(row)
    if not np.isfinite([low, high]).all():
        return "–", "–"
    return between(low, high, partial(_show, quantity)), "probes" if row["runs"] < 2 else "runs"


def _bounded(quantity: str, row: pd.Series) -> str:
    interval = _interval(quantity, row)[0]
    return _show(quantity, row["value"]) + (f" ({interval})" if interval != "–" else "")


def _is_share(quantity: str) -> bool:
    return quantity.rpartition(".")[2] in SHARES


def _show(quantity: str, value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.1%}".replace("%", " %") if _is_share(quantity) else f"{value:.4g}"


def _words(quantity: str) -> str:
    """Return "Plain accuracy (consistency)" of "consistency.plain_accuracy"."""
    group, _, name = quantity.rpartition(".")
    return name.replace("_", " ").capitalize() + (f" ({group})" if group else "")
