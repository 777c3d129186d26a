"""``batchnorm``: how much the policy for BatchNorm statistics matters."""

from __future__ import annotations

import numpy as np
import xarray as xr

from featdyn.report.composite_curves import composite_curves
from featdyn.report.findings import NOTHING, probes
from featdyn.report.rounding import points
from featdyn.report.section import Finding, Grid, Section, bounded_word, cells, judged, name_of

TEXT = (
    "Statistics travel with their layers (as everywhere else on this page), are estimated anew on the composite’s own "
    "features of the training probes, or are those of the batch. Where the lines lie together, the policy does not "
    "matter.",
)
CAVEAT = "arXiv 2509.20334 does not say which policy it used; the three are our own choice."
OTHERS = ("reestimated", "batch")
"""Policies beside the one that the rest of the page uses."""


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    last = result.load().isel(t2=-1)
    others = [policy for policy in OTHERS if policy in last["policy"].values]
    rows = [
        (name_of(cell, "cut"), name_of(cell, "set"), *(_most(cell["change"].sel(policy=p)) for p in others))
        for cell in cells(last, "cut", "set")
    ]
    header = ("Cut after", "Probes", *(f"Largest change of accuracy, {policy}" for policy in others))
    more = {"finding": _finding(judged(last).sel(policy=others)), "caveat": CAVEAT}
    return composite_curves("BatchNorm policies", TEXT, last, "policy", Grid(header, rows), deep=False, **more)


def _most(change: xr.DataArray) -> str:
    """Return the change of the largest size, in points."""
    known = change.values[np.isfinite(change.values)]
    return points(known[np.abs(known).argmax()]) if known.size else "–"


def _finding(last: xr.Dataset) -> Finding:
    each = [cell for cell in cells(last, "policy", "cut", "t1") if np.isfinite(float(cell["change"]))]
    if not each:
        return Finding(NOTHING)
    most = max(each, key=lambda cell: abs(float(cell["change"])))
    place = f"{name_of(most, 'policy')}, cut after {name_of(most, 'cut')}, shallow half of step {int(most['step1']):,}"
    change = bounded_word(most, "change", points)
    return Finding(f"The largest change of accuracy {probes(last)} by another policy is {change} ({place}).")
