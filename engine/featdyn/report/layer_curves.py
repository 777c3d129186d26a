"""Summaries of recorded layers over training: lines and a map of layers by checkpoints, chosen by the reader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, depth_colours, figure, layer_map, lines
from featdyn.report.section import Grid, Section, choices_of, panel, preset_set


def layer_curves(
    title: str,
    text: Sequence[str],
    result: xr.Dataset,
    caption: str,
    quantities: Sequence[str],
    grid: Grid,
    *,
    as_map: bool = False,
) -> Section:
    """Return the section; ``quantities`` are variables over layer, set and t, of which some may be left out.

    ``as_map`` adds the same numbers as a map of layers by checkpoints.
    """
    names = {name: name.replace("_", " ") for name in quantities if name in result}
    choices = choices_of(result, "set") | {"quantity": names}
    axis = checkpoint_axis(result["t"].values, result["step"].values)
    colours = depth_colours(result.sizes["layer"])

    def draw(set: str, quantity: str) -> Figure:
        values = result[quantity].isel(set=int(set)).transpose("layer", "t").values.astype(np.float64)
        return figure(lines(result["layer"].values, values, colours), names[quantity], xaxis=axis)

    def drawn_as_map(set: str, quantity: str) -> Figure:
        values = result[quantity].isel(set=int(set)).transpose("layer", "t").values
        return layer_map(values, result["layer"].values, axis)

    panels = [panel(caption, choices, draw)]
    panels += [panel(f"{caption}, layers by checkpoints", choices, drawn_as_map)] if as_map else []
    return Section(title, text, panels, choices, preset_set(result), grid)
