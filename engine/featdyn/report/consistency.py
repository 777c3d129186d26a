"""The consistency result as the page shows it: a grid of numbers for each cut, and gap curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from featdyn.report.figures import checkpoint_axis
from featdyn.report.gap import gap_figures
from featdyn.report.numbers import counts, rounded, short
from featdyn.statistics.resampling import wilson
from featdyn.store import Run

NAME = "consistency"
MEASURES = {
    "accuracy": "Accuracy",
    "agreement": "Agreement with t2’s own network",
    "agreement_prefix": "Agreement with t1’s own network",
}


@dataclass(frozen=True)
class Consistency:
    """Everything that the page says of one consistency result."""

    path: str  # in the store
    sets: dict[str, int]  # name to number of probes
    cuts: list[Cut]
    compared: int  # predictions on the diagonal of each cut
    checkpoints: int
    batchnorm: str
    grid: dict[str, Any]  # for the page's script
    figures: dict[str, dict[str, Any]]  # gap curves, by slot
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """One place where the network was cut."""

    name: str
    shallow: str  # multiply-adds of a sample
    deep: str
    share: float  # of the multiply-adds that lie in the deep half
    source: str
    differences: int


def consistency(run: Run) -> Consistency | None:
    """Return the newest result; None where there is none yet."""
    found = run.results(NAME)
    if not found:
        return None
    kept = [*MEASURES, "loss", "plain_accuracy", "diagonal_differences"]
    result = run.result(NAME)[kept].load()  # not the predictions, which are the bulk of it
    sizes = {str(name): int(n) for name, n in zip(result["set"].values, result["set_size"].values, strict=True)}
    cuts = [_cut(result.isel(cut=i)) for i in range(result.sizes["cut"])]
    return Consistency(
        path=found[-1],
        sets=sizes,
        cuts=cuts,
        compared=sum(sizes.values()) * int(np.isin(result["t1"].values, result["t2"].values).sum()),
        checkpoints=result.sizes["t1"],
        batchnorm=str(result.attrs.get("batchnorm", "not recorded")),
        grid=_grid(result, list(sizes.values())),
        figures=gap_figures(result, MEASURES),
        attributes=dict(result.attrs),
    )


def _cut(result: xr.Dataset) -> Cut:
    shallow, deep = int(result["prefix_macs"]), int(result["suffix_macs"])
    return Cut(
        str(result["cut"].item()),
        short(shallow),
        short(deep),
        deep / max(1, shallow + deep),
        str(result["source"].item()),
        int(result["diagonal_differences"]),
    )


def _grid(result: xr.Dataset, sizes: list[int]) -> dict[str, Any]:
    """Return whole numbers of probes, by measure, cut, set, t1 and t2: exact, and shorter than shares."""
    measures = {
        name: [[counts(values[s], n) for s, n in enumerate(sizes)] for values in result[name].values]
        for name in MEASURES
    }
    extremes = {name: [_extremes(result[name].values[:, s]) for s in range(len(sizes))] for name in MEASURES}
    return {
        "sizes": sizes,
        # The interval of k out of n, for every k: the script looks it up.
        "intervals": [[rounded(bound) for bound in wilson(np.arange(n + 1) / n, n)] for n in sizes],
        "measures": measures,
        "extremes": extremes,
        "loss": rounded(result["loss"].values),
        "titles": MEASURES,
        "t1": result["t1"].values.tolist(),
        "t2": result["t2"].values.tolist(),
        "step1": result["step1"].values.tolist(),
        "step2": result["step2"].values.tolist(),
        "axis1": checkpoint_axis(result["t1"].values, result["step1"].values),
        "axis2": checkpoint_axis(result["t2"].values, result["step2"].values),
    }


def _extremes(values: np.ndarray[Any, Any]) -> list[float]:
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if finite.size else [0.0, 1.0]
