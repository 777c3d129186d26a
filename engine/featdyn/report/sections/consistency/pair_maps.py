"""Heat maps over pairs of checkpoints, one for each cut, and where the network was cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from featdyn.report.figure import Map
from featdyn.report.figures import time_axis, time_map
from featdyn.report.findings import NOTHING, across, halfway, probes
from featdyn.report.plotly import checkpoint_ticks
from featdyn.report.rounding import counts, percent, rounded, short
from featdyn.report.section import (
    Finding,
    Grid,
    Section,
    cells,
    choices_of,
    judged,
    name_of,
    panel,
    preset_set,
    word,
)

MEASURES = {
    "accuracy": "Accuracy",
    "agreement": "Agreement with t2’s own network",
    "agreement_prefix": "Agreement with t1’s own network",
}
TEXT = (
    "Each square below stands for a network that was put together, without further training, from two checkpoints: "
    "everything up to the cut (the shallow half) from checkpoint t1, everything after it (the deep half) from "
    "checkpoint t2.",
    "Rows are t1, columns are t2, both growing from the lower left. On the diagonal stands the network as it was "
    "trained. Below the diagonal an older shallow half meets a newer deep half, above it the other way round. A broad "
    "even area means that halves from distant checkpoints fit together. All cuts share one colour scale. The lines "
    "cross where t1 and t2 are the checkpoint of the slider; intervals are shown when a square is pointed at.",
)
CAVEAT = (
    "Intervals are the result’s own 95 % ones; they do not cover what another seed of the training would change. That "
    "predictions hold says nothing of whether features moved: see the drift."
)
HEADER = (
    "Cut after", "Shallow half, multiply-adds", "Deep half, multiply-adds", "Features",
    "Diagonal: predictions that differ from the recorded network’s",
)  # fmt: skip
NOTE = (
    "On the diagonal both halves come from one checkpoint, so the composite must be the recorded network: 0 is "
    "expected, save where features were stored in float16. BatchNorm: {batchnorm}."
)


def pair_maps(result: xr.Dataset) -> Iterator[Section]:
    """Yield the section."""
    measures = measured(result)
    if not measures:
        return
    choices = choices_of(result, "set") | {"measure": measures}
    each = cells(result, "cut")
    panels = []
    for i, cell in enumerate(each):

        def draw(set: str, measure: str, cell: xr.Dataset = cell) -> Map:
            least, most = _extremes(result[measure].isel(set=int(set)).values)
            return replace(time_map(cell.isel(set=int(set)), measure), share=True, range=(least, most))

        cut = name_of(cell, "cut")
        shown = panel(f"cut after {cut}", choices, draw, "grid", at={"cut": cut}, detail=_share(cell), pair_map=i)
        panels.append(shown)
    yield Section(
        "Temporal consistency",
        TEXT,
        panels,
        choices,
        preset_set(result),
        Grid(HEADER, [_row(result, cell) for cell in each]),
        NOTE.format(batchnorm=result.attrs.get("batchnorm", "not recorded")),
        wide=False,
        pair_maps=_maps(result, measures),
        finding=_finding(judged(result)),
        caveat=CAVEAT,
    )


def _finding(result: xr.Dataset) -> Finding:
    half = result.isel(t1=halfway(result["step1"]), t2=-1)
    said = across(half, "accuracy", "cut", percent) if "accuracy" in half else ""
    if not said:
        return Finding(NOTHING)
    words = f"With the shallow half of step {int(half['step1']):,} and the deep half of the last checkpoint, accuracy "
    words += f"{probes(half)} is {said}"
    plain = result["plain_accuracy"].isel(t1=-1) if "plain_accuracy" in result else np.nan
    own = f"; that of the last network itself is {percent(float(plain))}" if np.isfinite(plain) else ""
    return Finding(f"{words}{own}.")


def measured(result: xr.Dataset) -> dict[str, str]:
    """Return the measures that the result holds."""
    return {name: title for name, title in MEASURES.items() if name in result}


def _share(cell: xr.Dataset) -> str:
    shallow, deep = int(cell["prefix_macs"]), int(cell["suffix_macs"])
    return f"{100 * deep / max(1, shallow + deep):.2g} % of the multiply-adds in the deep half"


def _row(result: xr.Dataset, cell: xr.Dataset) -> tuple[str, ...]:
    compared = int(result["set_size"].sum()) * int(np.isin(result["t1"].values, result["t2"].values).sum())
    halves = (short(int(cell[f"{half}_macs"])) for half in ("prefix", "suffix"))
    differ = f"{word(cell['diagonal_differences'], '{:,.0f}'.format)} of {compared:,}"
    return name_of(cell, "cut"), *halves, name_of(cell, "source"), differ


def _maps(result: xr.Dataset, names: dict[str, str]) -> dict[str, Any]:
    """Return whole numbers of probes, by measure, cut, set, t1 and t2: exact, and shorter than shares."""
    result = result.transpose("cut", "set", "t1", "t2", ...)
    sizes = [int(n) for n in result["set_size"].values]
    axes = {f"axis{end}": checkpoint_ticks(time_axis(result, end)) for end in "12"}
    places = {name: result[name].values.tolist() for name in ("t1", "t2", "step1", "step2")}
    return {
        "sizes": sizes,
        # As whole numbers of a thousandth, which are shorter, and no less than bounds can say.
        "bounds": {
            m: [counts(result[f"{m}_{e}"], 1000) for e in ("low", "high")] for m in names if f"{m}_low" in result
        },
        "measures": {m: [[counts(v[s], n) for s, n in enumerate(sizes)] for v in result[m].values] for m in names},
        "extremes": {m: [_extremes(result[m].values[:, s]) for s in range(len(sizes))] for m in names},
        "loss": rounded(result["loss"].values) if "loss" in result else None,
        "titles": names,
        **places,
        **axes,
    }


def _extremes(values: np.ndarray[Any, Any]) -> list[float]:
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if finite.size else [0.0, 1.0]
