"""All analyses at a glance: as a table for people, in README and at a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from featdyn.analysis.declaration import Analysis


class AnalysisTable(dict[str, Analysis]):
    """Analyses by name; prints as a table of their questions."""

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:<{width}}  {analysis.question}" for name, analysis in self.items())

    def _repr_html_(self) -> str:
        rows = (f"<tr><td><code>{escape(a.name)}</code></td><td>{escape(a.question)}</td></tr>" for a in self.values())
        return f"<table><tr><th>analysis</th><th>question</th></tr>{''.join(rows)}</table>"


BEGIN, END = "<!-- analyses: made by python -m featdyn.analysis README.md -->", "<!-- end of analyses -->"


def markdown(analyses: Iterable[Analysis]) -> str:
    """Return the table as Markdown."""
    rows = (f"| `{analysis.name}` | {analysis.question} |" for analysis in analyses)
    return "\n".join(["| analysis | question |", "|---|---|", *rows])


def replaced(text: str, table: str) -> str:
    """Return a document with the table between its two marks; ValueError where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the table: write {BEGIN} and {END}")
    return f"{before}{begin}\n{table}\n{end}{after}"
