"""Heat maps over pairs of checkpoints, one for each cut, and where the network was cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from featdyn.report.figures import checkpoint_axis
from featdyn.report.rounding import counts, rounded, short
from featdyn.report.section import Grid, Panel, Section, cells, choices_of, name_of, preset_set, word

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
    "even area means that halves from distant checkpoints fit together. All cuts share one colour scale.",
)
HEADER = (
    "Cut after", "Shallow half, multiply-adds", "Deep half, multiply-adds", "Features",
    "Diagonal: predictions that differ from the recorded network’s",
)  # fmt: skip
NOTE = (
    "On the diagonal both halves come from one checkpoint, so the composite must be the recorded network: 0 is "
    "expected, save where features were stored in float16. BatchNorm: {batchnorm}. Intervals, shown when a square is "
    "pointed at, are the result’s own 95 % ones; they do not cover what another seed of the training would change."
)


def pair_maps(result: xr.Dataset) -> Iterator[Section]:
    """Yield the section."""
    measures = measured(result)
    if not measures:
        return
    choices = choices_of(result, "set") | {"measure": measures}
    each = cells(result, "cut")
    yield Section(
        "Temporal consistency",
        TEXT,
        [Panel(f"cut after {name_of(c, 'cut')}", detail=_share(c), pair_map=i) for i, c in enumerate(each)],
        choices,
        preset_set(result),
        Grid(HEADER, [_row(result, cell) for cell in each]),
        NOTE.format(batchnorm=result.attrs.get("batchnorm", "not recorded")),
        wide=False,
        pair_maps=_maps(result, measures),
    )


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
    axes = {f"axis{end}": checkpoint_axis(result[f"t{end}"].values, result[f"step{end}"].values) for end in "12"}
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
