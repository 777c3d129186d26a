"""``controls``: drift beside perturbations of its norm."""

from __future__ import annotations

import xarray as xr

from featdyn.report.composite_curves import composite_curves
from featdyn.report.findings import NOTHING, probes
from featdyn.report.section import Finding, Grid, Section, cells, judged, name_of, word

TEXT = (
    "Each line replaces the features of t1 by those of the last checkpoint plus a perturbation as long as the drift of "
    "that probe: the drift itself; isotropic noise; Gaussian noise of the drift’s covariance; the drift of another "
    "image, of the same or another class. Features are not clipped.",
    "Drift counts as structured where its accuracy is above that of isotropic noise and of other images’ drift, each "
    "with a 95 % bound over probes.",
)
CAVEAT = (
    "These controls and this rule are our own choice. Where even the controls keep all predictions, no rule can tell "
    "direction from size."
)
HEADER = ("Cut after", "Probes", "Checkpoints t1 whose drift is structured", "Largest error of a norm")


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    last = result.load().isel(t2=-1)
    rows = [
        (name_of(cell, "cut"), name_of(cell, "set"), _structured(cell), word(cell["norm_error"].max(), "{:.1e}".format))
        for cell in cells(last, "cut", "set")
    ]
    more = {"finding": _finding(judged(last)), "caveat": CAVEAT}
    return composite_curves("Is drift structured?", TEXT, last, "kind", Grid(HEADER, rows), deep=False, **more)


def _counts(cell: xr.Dataset) -> tuple[int, int]:
    moved = cell["motion"] > 0
    return int((cell["structured"] == 1).where(moved, False).sum()), int(moved.sum())


def _structured(cell: xr.Dataset) -> str:
    """Return of how many checkpoints that moved the drift is structured."""
    return "{} of {}".format(*_counts(cell))


def _finding(last: xr.Dataset) -> Finding:
    structured, moved = _counts(last)
    if not moved:
        return Finding(NOTHING)
    each = "; ".join(f"{_structured(cell)} at {name_of(cell, 'cut')}" for cell in cells(last, "cut"))
    said = f"Checkpoints whose drift keeps predictions better than all controls {probes(last)}: {each}."
    return Finding(said, f"structured in {structured} of {moved}")
