"""What the report shows of margins."""

from __future__ import annotations

import xarray as xr

from featdyn.report.figures import chart, curves, time_axis
from featdyn.report.section import Panel, Section


def section(result: xr.Dataset) -> Section:
    drawn = chart(curves(result, "margin", "t", "set", deep=False), "Margin", time_axis(result))
    return Section("Margins of outputs", ("The larger, the surer.",), [Panel("Mean margin", {"": drawn})])
