"""A study's verdicts as a table of a document, made from the JSON file and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featdyn.analysis.page import table as markdown_table
from featdyn.errors import FeatdynError
from featdyn.output import output_file
from featdyn.reproduce.page import row_of
from featdyn.reproduce.rules import INFORMS

COLUMNS = {
    "claim": "statement",
    "data": "data",
    "verdict": "verdict",
    "cells": "cells",
    "measured": "measured",
    "rule": "rule",
    "seen": "seen",
    "study": "published",
}
"""Header to field of :func:`featdyn.reproduce.page.row_of`."""
INFORMING = {"what informs, without a verdict": "statement", "data": "data", "measured": "measured"}


def table(said: Mapping[str, Any]) -> str:
    """Return a document of :func:`featdyn.reproduce.document.document` as a table of verdicts and one of what informs.

    A study none of whose numbers was found has no column for them.
    """
    rows = [row_of(verdict, said["quantities"]) for verdict in said["verdicts"]]
    judged, informing = ([row for row in rows if (row["verdict"] == INFORMS) == informs] for informs in (False, True))
    columns = {name: of for name, of in COLUMNS.items() if any(row[of] for row in judged)}
    tables = [_of(judged, columns)] + ([_of(informing, INFORMING)] if informing else [])
    return "\n\n".join(tables)


def _of(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    cells = [[str(row[name]) or "not found" for name in columns.values()] for row in rows]
    return markdown_table(tuple(columns), cells)


def marks(said: Mapping[str, Any]) -> tuple[str, str]:
    """Return the lines between which a document holds the table of a study at a scale."""
    name = f"{said['study']}-{said['scale']}"
    return f"<!-- {name}: made by python -m featdyn.reproduce -->", f"<!-- end of {name} -->"


def replaced(text: str, said: Mapping[str, Any]) -> str:
    """Return a document with the table of a study, in place of the one between its marks.

    Raises
    ------
    FeatdynError
        The document has no such marks.
    """
    start, end = marks(said)
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise FeatdynError(f"no place for the table: write the lines {start} and {end} where it belongs")
    return f"{before}{start}\n{table(said)}\n{end}{after}"


def bring_up_to_date(document: Path, results: Path) -> None:
    """Write the table of a file of results into a document."""
    text = replaced(document.read_text(encoding="utf-8"), json.loads(results.read_text(encoding="utf-8")))
    with output_file(document) as stream:
        stream.write(text.encode())
