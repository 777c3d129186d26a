"""One page of Markdown about an analysis, made from its declaration and from what its section of the report says."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from featdyn.analysis.declaration import Analysis, Variable
from featdyn.names import NAMES


def page(analysis: Analysis) -> str:
    """Return the page: question, how to read it, options, variables, source."""
    name, question = analysis.name, analysis.question
    parts = [
        f"# `{name}`",
        question[:1].upper() + question[1:],
        f"```\nfeatdyn analyze run.zarr {name}\n```",
        f"```python\nresult = featdyn.analyze(run, {name!r})  # an xarray.Dataset\n```",
        _asks(analysis),
        *_section("How to read it", "\n\n".join(reading(analysis))),
        *_section("Where definitions come from, and what is our own choice", analysis.source),
        *_section("Pitfalls", "\n".join(f"- {pitfall}" for pitfall in _pitfalls(analysis))),
        *_section("Options", table(("flag", "default", "meaning"), _options(analysis))),
        "## Variables",
        "Arrays of the result. What is missing is NaN (-1 in integers that say so), and the status variable that is "
        "named says why, cell by cell.",
        table(("variable", "axes", "units", "range", "what it is", "missing"), _variables(analysis)),
        *_section("Axes", table(("axis", "units", "what it is"), _axes(analysis))),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def reading(analysis: Analysis) -> list[str]:
    """Return the paragraphs that stand above its figures in the report: ``TEXT`` of the section's module."""
    name = analysis.section.partition(":")[0]
    return list(getattr(importlib.import_module(name), "TEXT", ())) if name else []


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown; "" where there are no rows."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    head = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*head, *lines]) if lines else ""


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", text] if text else []


def _asks(analysis: Analysis) -> str:
    """Return what it needs of a run, in a sentence."""
    asks = []
    if analysis.needs:
        asks.append(f"It needs, of the run or given with it: {', '.join(sorted(analysis.needs))}.")
    if analysis.results:
        links = ", ".join(f"[`{name}`]({name}.md)" for name in analysis.results)
        asks.append(f"It reads the newest result of {links}.")
    return " ".join(asks)


def _pitfalls(analysis: Analysis) -> Iterator[str]:
    """Yield what to mind, as far as it follows from the declaration."""
    options, variables = analysis.options.model_fields, analysis.variables
    if any(name.endswith("_low") for name in variables):
        yield "Intervals are of one training: they do not cover what another seed would change."
    if "features" in options:
        yield "Features that were stored in float16 are rounded: `--features recomputed` computes them anew."
    if "samples" in options:
        yield f"At most {options['samples'].get_default():,} probes of each set are looked at, a choice by `--seed`."
    if "network" in analysis.needs:
        yield "Of a run that featdyn did not train the network is given again: `model=`, `--model nets:make_network`."
    if any(variable.status for variable in variables.values()):
        yield "A cell that is missing is no failure: its status says why (`featdyn info run.zarr --results`)."


def _options(analysis: Analysis) -> Iterator[tuple[str, str, str]]:
    for name, field in analysis.options.model_fields.items():
        yield f"`--{name.replace('_', '-')}`", _default(field), field.description or ""


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default()
    if value is None or value == ():
        return ""
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _variables(analysis: Analysis) -> Iterator[tuple[str, ...]]:
    for name, variable in analysis.variables.items():
        yield f"`{name}`", variable.dims, variable.units, _range(variable), variable.long_name, _missing(variable)


def _range(variable: Variable) -> str:
    return "" if variable.valid_range is None else "{:g} to {:g}".format(*variable.valid_range)


def _missing(variable: Variable) -> str:
    return "; ".join(filter(None, (variable.missing, f"`{variable.status}`" if variable.status else "")))


def _axes(analysis: Analysis) -> Iterator[tuple[str, str, str]]:
    names = dict.fromkeys(dim for variable in analysis.variables.values() for dim in variable.dims.split())
    for name in names:
        if name in NAMES:
            words, units = NAMES[name]
            yield f"`{name}`", units, words
