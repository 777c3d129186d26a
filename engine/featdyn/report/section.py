"""A part of the page that shows one result: its finding, words, choices, figures, and a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from featdyn.report.figure import Figure
from featdyn.report.rounding import short


@dataclass(frozen=True)
class Panel:
    """A figure; the reader's choices pick one of ``figures``."""

    caption: str
    figures: Mapping[str, Figure] = field(default_factory=dict)  # by choices joined by "|"; "" where there are none
    choices: tuple[str, ...] = ()  # names of the choices whose values are the keys
    name: str = ""  # in short, unique among those of its analysis; panels that differ in ``at`` alone share it
    at: Mapping[str, str] = field(default_factory=dict)  # what of the result this shows, where others show the rest
    detail: str = ""  # below the caption
    pair_map: int | None = None  # the page draws this cut of the section's ``pair_maps`` instead, which are smaller


@dataclass(frozen=True)
class Grid:
    """A table with a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Finding:
    """What a result says in one sentence, and the verdict it reaches, if it reaches one."""

    sentence: str
    verdict: str = ""


@dataclass(frozen=True)
class Section:
    """What is shown of a result under one heading."""

    title: str
    text: Sequence[str] = ()  # paragraphs: what is measured and how to read it
    panels: Sequence[Panel] = ()  # which share the choices
    choices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # name to values and what they are called
    preset: Mapping[str, str] = field(default_factory=dict)  # the value chosen at first, where it is not the first
    grid: Grid | None = None  # below the figures
    note: str = ""  # small print below that
    wide: bool = True  # whether figures need room
    pair_maps: Mapping[str, Any] | None = None  # from which the page's script draws heat maps over pairs of checkpoints
    finding: Finding | None = None
    caveat: str = ""  # what the finding does not say, and what is our own choice

    @property
    def timed(self) -> bool:
        """Whether anything here follows the slider of checkpoints."""
        axes = (axis for p in self.panels for f in p.figures.values() for axis in (f.x, f.y))
        return "t" in self.choices or self.pair_maps is not None or any(axis.checkpoints for axis in axes)


def alt_text(section: Section, panel: Panel) -> str:
    """Return what a figure shows, for those who do not see it."""
    said = section.finding.sentence if section.finding else ""
    return " ".join(filter(None, (f"{panel.caption}.", panel.detail and f"{panel.detail}.", said)))


def choices_of(result: xr.Dataset, *dims: str) -> dict[str, dict[str, str]]:
    """Return a choice for each of these dimensions; sets say how many probes they hold."""
    found = {dim: {str(i): str(value) for i, value in enumerate(result[dim].values)} for dim in dims}
    if "set" in found and "set_size" in result.coords:
        sizes = result["set_size"].values
        found["set"] = {i: f"{name} ({int(sizes[int(i)])})" for i, name in found["set"].items()}
    return found


def preset_set(result: xr.Dataset) -> dict[str, str]:
    """Return the choice of the set of unseen probes, where there is one."""
    names, options = result["set"].values.tolist(), result.attrs.get("options")
    test = options.get("test", "test") if isinstance(options, Mapping) else "test"
    return {"set": str(names.index(test))} if test in names else {}


def times_of(result: xr.Dataset, most: int) -> dict[str, str]:
    """Return the choice ``t`` of the slider: at most so many checkpoints, evenly spaced, the last one among them."""
    shown = np.unique(np.linspace(0, result.sizes["t"] - 1, most).round().astype(int))
    times, steps = result["t"].values, result["step"].values
    return {str(int(times[t])): f"{times[t]} / {short(float(steps[t]))}" for t in shown}


def judged(result: xr.Dataset) -> xr.Dataset:
    """Return the result of the set that findings speak of: unseen probes, else the first set."""
    return result.isel(set=int(preset_set(result).get("set", "0"))) if "set" in result.dims else result


def panel(
    caption: str, choices: Mapping[str, Mapping[str, str]], draw: Callable[..., Figure], name: str = "", **more: Any
) -> Panel:
    """Return a panel with a figure for every combination of choices: ``draw(set="0", ...)``.

    ``name`` is what ``featdyn plot`` and notebooks call it; ``more`` is as of :class:`Panel`.
    """
    figures = {}
    for chosen in product(*choices.values()):
        words = [choices[name][value] for name, value in zip(choices, chosen, strict=True)]
        title = f"{caption}: {', '.join(words)}" if words else caption
        figures["|".join(chosen)] = replace(draw(**dict(zip(choices, chosen, strict=True))), title=title)
    return Panel(caption, figures, tuple(choices), name, **more)


def cells(result: xr.Dataset, *dims: str) -> list[xr.Dataset]:
    """Return the result at every place of these dimensions, the last one fastest."""
    shape = [result.sizes[dim] for dim in dims]
    return [result.isel(dict(zip(dims, at, strict=True))) for at in np.ndindex(*shape)]


def name_of(cell: xr.Dataset, dim: str) -> str:
    """Return the label of a cell along a dimension."""
    return str(cell[dim].item())


def word(value: Any, show: Callable[[float], str] = "{:.3g}".format) -> str:
    """Return one number for a table, a dash where it is missing."""
    number = float(value)
    return show(number) if np.isfinite(number) else "–"


def bounded_word(cell: xr.Dataset, name: str, show: Callable[[float], str]) -> str:
    """Return a number with its 95 % interval, as far as the cell holds them; a dash where it is missing."""
    if name not in cell or not np.isfinite(float(cell[name])):
        return "–"
    ends = [float(cell[f"{name}_{end}"]) for end in ("low", "high") if f"{name}_{end}" in cell]
    interval = f" ({between(ends[0], ends[1], show)})" if len(ends) == 2 and np.isfinite(ends).all() else ""
    return show(float(cell[name])) + interval


def between(low: float, high: float, show: Callable[[float], str]) -> str:
    """Return an interval in words; a unit stands once: 93.0 to 98.3 %."""
    unit = re.search(r"( points| ?%)?$", show(high))
    return f"{show(low).removesuffix(unit[0] if unit else '')} to {show(high)}"
