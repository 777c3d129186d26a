"""Findings in words: what most results say, made from their numbers and stored intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from featdyn.report.section import bounded_word, name_of

ONE_CHECKPOINT = "There is one checkpoint, which has no change to show."
NOTHING = "Nothing here could be computed; the reasons stand below."


def across(data: xr.Dataset, name: str, dim: str, show: Callable[[float], str]) -> str:
    """Return the smallest and the largest value along a dimension, with intervals: "0.1 at pooled to 0.9 at stem"."""
    values = np.asarray(data[name].values, float)
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return ""
    at = dict.fromkeys(int(known[pick(values[known])]) for pick in (np.argmin, np.argmax))
    said = (f"{bounded_word(cell, name, show)} at {name_of(cell, dim)}" for cell in (data.isel({dim: i}) for i in at))
    return " to ".join(said)


def sign_of(cell: xr.Dataset, name: str) -> int:
    """Return 1 or -1 where the stored interval lies above or below zero, 0 where it holds zero or is missing."""
    if f"{name}_low" not in cell:
        return 0
    return int(float(cell[f"{name}_low"]) > 0) - int(float(cell[f"{name}_high"]) < 0)


def probes(result: xr.Dataset) -> str:
    """Return which probes a finding speaks of, as in "on test probes"."""
    if "set" not in result.coords or result["set"].ndim:
        return ""
    name = str(result["set"].item())
    return f"on {name} probes" if name != "probes" else "on all probes"  # of a run without splits


def halfway(steps: xr.DataArray) -> int:
    """Return the place of the checkpoint that is nearest to half of the last one's steps."""
    return int(np.abs(steps.values - steps.values[-1] / 2).argmin())
