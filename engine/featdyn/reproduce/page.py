"""A study's page: each claim with what was measured, by which rule, and what would have been seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from featdyn.output import output_file
from featdyn.reproduce.forest import cell_name, decisive, forest, look, said_value, style
from featdyn.reproduce.rules import FAILS, HOLDS, INFORMS, NO_POWER, UNDECIDED


def render(said: Mapping[str, Any]) -> str:
    """Return the page of :func:`featdyn.reproduce.document.document` as HTML: one file, no script, nothing loaded."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    rows = [row_of(verdict, said["quantities"]) for verdict in said["verdicts"]]
    found = Counter(row["verdict"] for row in rows)
    page: str = environment.from_string(_read("featdyn.reproduce", "page.html.j2")).render(
        it=said,
        rows=rows,
        judged=[row for row in rows if row["verdict"] != INFORMS],
        informing=[row for row in rows if row["verdict"] == INFORMS],
        counts=[(verdict, found[verdict]) for verdict in (HOLDS, FAILS, UNDECIDED, NO_POWER) if found[verdict]],
        changed=", ".join(f"{number} under {name}" for name, number in other_rules(said).items()),
        numbers=numbers,
        style=Markup(_read("featdyn.report", "page.css") + style()),
    )
    return page


def other_rules(said: Mapping[str, Any]) -> dict[str, int]:
    """Return how many runs were made under rules that are not those of now, by their checksum and date."""
    rules = said["rules"]
    now = f"{rules['checksum']} of {rules['written']}"
    return {name: number for name, number in rules["made_under"].items() if name != now}


def row_of(verdict: Mapping[str, Any], quantities: Mapping[str, str]) -> dict[str, Any]:
    """Return what is shown of one claim on one data set, in words."""
    main = decisive(verdict["rows"], verdict)
    groups, counts = verdict["groups"], {k: v for k, v in verdict["counts"].items() if k != INFORMS}
    least = None if main is None else main["least_seen"]
    return {
        **{name: verdict[name] for name in ("statement", "source", "data", "verdict", "published", "own_choice")},
        "reason": verdict["reason"],
        "cells": ", ".join(f"{number} {name}" for name, number in counts.items()),
        "measured": _range(verdict["rows"]) if verdict["verdict"] == INFORMS else _measured(main),
        "rule": rule(verdict),
        "effect": "" if verdict["effect"] is None else f"{verdict['effect']:g}",
        "seen": "–" if least is None else f"{least:.2g}",
        "quantity": quantities[verdict["quantity"]],
        "contrast": groups[0] if len(groups) == 1 else f"{groups[0]} minus {groups[1]}",
        "figure": Markup(forest(verdict)),
        "cells_table": [_cell(row) for row in verdict["rows"]],
    }


def _measured(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    return said_value(row) + (f" ({cell_name(row['cell'])})" if row["cell"] else "")


def _range(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what was measured where no margin tells which cell speaks most against a claim."""
    known = [row for row in rows if row["value"] is not None]
    if len(known) < 2:
        return _measured(known[0] if known else None)
    least, most = (of(known, key=lambda row: float(row["value"])) for of in (min, max))
    return f"{_measured(least)} to {_measured(most)}, of {len(known)} cells"


def rule(verdict: Mapping[str, Any]) -> str:
    """Return the margins of a claim in words."""
    low, high = verdict["at_least"], verdict["at_most"]
    if low is None and high is None:
        return "none: it informs"
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"at least {low:g}" if high is None else f"at most {high:g}"


def numbers(values: Sequence[float | None]) -> str:
    """Return numbers of several seeds in one line."""
    return ", ".join("–" if value is None else f"{value:.3g}" for value in values)


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": cell_name(row["cell"]),
        "value": said_value(row),
        "seeds": row["seeds"],
        "pvalue": "–" if row["pvalue"] is None else f"{row['pvalue']:.2g}",
        "seen": "–" if row["least_seen"] is None else f"{row['least_seen']:.2g}",
        "verdict": row["verdict"],
        "look": look(row["verdict"]),
        "reason": row["reason"],
        "of_seeds": "; ".join(f"{group}: {numbers(values)}" for group, values in row["values"].items()),
    }


def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def write(said: Mapping[str, Any], path: Path) -> None:
    """Write the page."""
    with output_file(path, parents=True) as stream:
        stream.write(render(said).encode("utf-8", errors="replace"))
