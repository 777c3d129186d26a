"""A part of the page that shows one result: words, choices, figures, and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from featdyn.report.figures import Figure, Figures
from featdyn.store import Run


@dataclass(frozen=True)
class Panel:
    """A figure; the reader's choices pick one of ``figures``."""

    caption: str
    figures: Figures
    choices: tuple[str, ...] = ()  # names of the choices whose values, joined by "|", are the keys


@dataclass(frozen=True)
class Grid:
    """A table with a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One result."""

    name: str  # of the analysis, and of the anchor
    title: str
    text: Sequence[str]  # paragraphs
    panels: Sequence[Panel]
    choices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # name to values and what they are called
    preset: Mapping[str, str] = field(default_factory=dict)  # the value chosen at first, where it is not the first
    grid: Grid | None = None
    path: str = ""  # of the result in the store
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def slots(self) -> dict[str, Figures]:
        """Return the figures of all panels by slot."""
        return {f"{self.name}-{i}": panel.figures for i, panel in enumerate(self.panels)}


def choices_of(result: xr.Dataset, *dims: str) -> dict[str, dict[str, str]]:
    """Return a choice for each of these dimensions; sets say how many probes they hold."""
    found = {dim: {str(i): str(value) for i, value in enumerate(result[dim].values)} for dim in dims}
    if "set" in found:
        sizes = result["set_size"].values
        found["set"] = {i: f"{name} ({int(sizes[int(i)])})" for i, name in found["set"].items()}
    return found


def preset_set(result: xr.Dataset) -> dict[str, str]:
    """Return the choice of the test set, where there is one."""
    names = result["set"].values.tolist()
    return {"set": str(names.index("test"))} if "test" in names else {}


def for_each(choices: Mapping[str, Mapping[str, str]], draw: Callable[..., Figure]) -> Figures:
    """Return a figure for every combination of choices: ``draw(set="0", ...)``."""
    figures: Figures = {}

    def go(names: list[str], chosen: dict[str, str]) -> None:
        if not names:
            figures["|".join(chosen.values())] = draw(**chosen)
            return
        for value in choices[names[0]]:
            go(names[1:], chosen | {names[0]: value})

    go(list(choices), {})
    return figures


def newest(run: Run, name: str) -> tuple[xr.Dataset, str] | None:
    """Return the newest result of an analysis and its path; None where there is none."""
    paths = run.results(name)
    return (run.result(name), paths[-1]) if paths else None
