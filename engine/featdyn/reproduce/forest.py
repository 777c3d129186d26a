"""A claim's cells as a figure: a point and an interval each, beside the margins of the rule. SVG, without a script."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from featdyn.report.colours import KINDS, NEUTRAL
from featdyn.report.rounding import short
from featdyn.reproduce.rules import FAILS, HOLDS, INFORMS, NO_POWER, UNDECIDED

WIDTH, LABELS, ROW, PAD = 760, 300, 22, 26
COLOUR = {HOLDS: KINDS[2], FAILS: KINDS[1], UNDECIDED: KINDS[4], INFORMS: KINDS[0], NO_POWER: NEUTRAL}
"""Of verdicts, on light and on dark paper; the table beside the figure says the same in words."""


def style() -> str:
    """Return the colours of verdicts as CSS."""
    light, dark = (
        "".join(f".{look(verdict)} {{ color: {pair[i]}; }} " for verdict, pair in COLOUR.items()) for i in (0, 1)
    )
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark}}}"


def forest(verdict: Mapping[str, Any]) -> str:
    """Return the figure of a claim on a data set, as :func:`featdyn.reproduce.rules.table` has it; "" without rows."""
    rows = [row for row in verdict["rows"] if row["value"] is not None]
    if not rows:
        return ""
    margins = [m for m in (verdict["at_least"], verdict["at_most"]) if m is not None]
    values = [x for row in rows for x in (row["value"], row["low"], row["high"]) if x is not None] + margins
    least, most = min(values), max(values)
    room = (most - least) * 0.05 or 0.5
    least, most = least - room, most + room

    def at(x: float) -> float:
        return round(float(LABELS + (x - least) / (most - least) * (WIDTH - LABELS - PAD)), 1)

    height = PAD + ROW * len(rows) + PAD
    drawn = [
        f'<path d="M{at(m)} {PAD - 8}V{height - PAD}" stroke="currentColor" stroke-dasharray="4 3"/>'
        f'<text x="{at(m)}" y="{PAD - 12}" text-anchor="middle">margin {short(m)}</text>'
        for m in margins
    ]
    for number, row in enumerate(rows):
        drawn.append(_row(row, PAD + ROW * number + ROW / 2, at))
    ends = least + room, most - room
    drawn += [f'<text x="{at(x)}" y="{height - 6}" text-anchor="middle">{short(x)}</text>' for x in ends]
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(verdict["statement"], quote=True)}" '
        f'font-size="12" fill="currentColor" style="width:100%;max-width:{WIDTH}px">{"".join(drawn)}</svg>'
    )


def cell_name(cell: Mapping[str, str]) -> str:
    """Return the labels of a cell in one line."""
    return " · ".join(cell.values()) or "all"


def _row(row: Mapping[str, Any], y: float, at: Any) -> str:
    name, drawn = cell_name(row["cell"]), []
    if row["low"] is not None:
        drawn.append(f'<path d="M{at(row["low"])} {y}H{at(row["high"])}" stroke="currentColor" stroke-width="2"/>')
    said = html.escape(f"{name}: {said_value(row)}, {row['verdict']}")
    drawn.append(f'<circle cx="{at(row["value"])}" cy="{y}" r="4.5"><title>{said}</title></circle>')
    label = f'<text x="0" y="{y + 4}">{html.escape(name if len(name) < 46 else name[:45] + "…")}</text>'
    return f'{label}<g class="{look(row["verdict"])}" fill="currentColor">{"".join(drawn)}</g>'


def look(verdict: str) -> str:
    """Return the class of a verdict in a page's style."""
    return f"is-{verdict.replace(' ', '-')}"


def said_value(row: Mapping[str, Any]) -> str:
    """Return a row's value with its interval, in words."""
    if row["value"] is None:
        return "–"
    if row["low"] is None:
        return f"{row['value']:.3g}"
    return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


def decisive(rows: Sequence[Mapping[str, Any]], verdict: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the row that speaks most against the claim: of those with a verdict, furthest out or nearest a margin."""
    known = [row for row in rows if row["value"] is not None and row["verdict"] in (HOLDS, FAILS, UNDECIDED)]
    known = known or [row for row in rows if row["value"] is not None]
    low, high = verdict["at_least"], verdict["at_most"]

    def room(row: Mapping[str, Any]) -> float:
        x = row["value"]
        return min(math.inf if low is None else x - low, math.inf if high is None else high - x)

    return min(known, key=room, default=None)
