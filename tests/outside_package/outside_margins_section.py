"""What the report shows of margins."""

from __future__ import annotations

import xarray as xr

from featdyn.report.figures import COLOURS, checkpoint_axis, figure, line
from featdyn.report.section import Panel, Section


def section(result: xr.Dataset) -> Section:
    names = zip(result["set"].values, result["margin"].transpose("set", "t").values, COLOURS, strict=False)
    axis = checkpoint_axis(result["t"].values, result["step"].values)
    drawn = figure([line(str(name), y, colour) for name, y, colour in names], "Margin", xaxis=axis)
    return Section("Margins of outputs", ("The larger, the surer.",), [Panel("Mean margin", {"": drawn})])
