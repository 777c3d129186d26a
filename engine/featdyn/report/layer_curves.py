"""Summaries of recorded layers over training: lines and a map of layers by checkpoints, chosen by the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from featdyn.report.figure import Axis, Lines, Map
from featdyn.report.figures import chart, curves, layer_map, time_axis
from featdyn.report.section import Grid, Section, cells, choices_of, panel, preset_set


def with_of(name: str, of: Mapping[str, str]) -> str:
    """Return a quantity in words, with what it is taken of: effective rank of singular values."""
    return " of ".join(filter(None, (name.replace("_", " "), of.get(name, ""))))


def layer_curves(
    title: str,
    text: Sequence[str],
    result: xr.Dataset,
    caption: str,
    quantities: Sequence[str],
    grid: Grid,
    *,
    as_map: bool = False,
    of: Mapping[str, str] | None = None,
    detail: str = "",
    **more: Any,
) -> Section:
    """Return the section; ``quantities`` are variables over layer, set and t, of which some may be left out.

    ``as_map`` adds the same numbers as a map of layers by checkpoints. ``of`` says what some quantities are taken of
    and ``detail`` what all are, where other sections have such names; ``more`` is as of :class:`Section`.
    """
    names = {name: with_of(name, of or {}) for name in quantities if name in result}
    choices = choices_of(result, "set") | {"quantity": names}
    axis, each_set = time_axis(result), cells(result, "set")

    def draw(set: str, quantity: str) -> Lines:
        each = curves(each_set[int(set)], quantity, "t", "layer")
        return chart(each, Axis(names[quantity], "auto"), axis)

    def drawn_as_map(set: str, quantity: str) -> Map:
        of = each_set[int(set)]
        ends = {
            end: of[f"{quantity}_{end}"].transpose("layer", "t").values
            for end in ("low", "high")
            if f"{quantity}_{end}" in of
        }
        return layer_map(of[quantity].transpose("layer", "t").values, result["layer"].values, axis, **ends)

    panels = [panel(caption, choices, draw, "layers", detail=detail)]
    panels += (
        [panel(f"{caption}, layers by checkpoints", choices, drawn_as_map, "layers_map", detail=detail)]
        if as_map
        else []
    )
    return Section(title, text, panels, choices, preset_set(result), grid, **more)
