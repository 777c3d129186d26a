"""``consistency``: heat maps over pairs of checkpoints, gap curves, and memory."""

from __future__ import annotations

import xarray as xr

from featdyn.report.section import Section
from featdyn.report.sections.consistency import gap_curves, memory, pair_maps

TEXT = (*pair_maps.TEXT, *gap_curves.TEXT, *memory.TEXT)
"""What its sections say, in their order."""


def section(result: xr.Dataset) -> list[Section]:
    """Return its sections; one of measures that the result does not hold is left out."""
    bulk = [name for name in ("prediction", "probe_horizon", "class_accuracy") if name in result]
    result = result.drop_vars(bulk).load()
    return [*pair_maps.pair_maps(result), *gap_curves.gap_curves(result), *memory.memory(result)]
