"""Isotropy: is the noise of SGD the same in all directions, and does drift follow it?"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.report.figures import COLOURS, NEUTRAL, Figure, checkpoint_axis, depth_colours, figure, line
from featdyn.report.section import Grid, Panel, Section, cells, choices_of, for_each, name_of, word

TEXT = (
    "Noise is what a mini-batch adds to the gradient of the whole training set, at fixed weights: of the parameters "
    "before a cut, and of the features of probes, which one step of plain SGD with that noise moves. The control moves "
    "features by isotropic noise of the parameters, of the same norm: already that is not isotropic in features, so "
    "feature noise must be judged beside it.",
    "The verdict rests on tests that allow for heavy tails (sign test, exact test given the lengths). They assume "
    "draws that are independent and, whatever their lengths, equally likely to point anywhere; of noise that is skewed "
    "or sparse, “anisotropic” need not mean that variances differ between directions. Adjusted p-values are Holm’s "
    "over checkpoints and cuts.",
    "Drift share: the part of the squared way to the next sampled checkpoint that lies along the largest directions of "
    "noise. Beside it what a random subspace would hold; a drift is a sum of gradients, so that more than this is no "
    "news by itself. What is sampled, and which tests decide, are our own choice.",
)
SPACES = {"parameter": "parameters", "feature": "features", "control": "features, isotropic control"}
REFERENCES = ("isotropic", "heldout", "held_out")
"""Endings of what a share is shown beside, as far as the result holds them."""


def section(result: xr.Dataset) -> Section:
    """Return the section; figures and columns of what the result does not hold are left out."""
    result = result.load()
    cuts = choices_of(result, "cut")
    axis = checkpoint_axis(result["t"].values, result["step"].values)
    spaces = [space for space in SPACES if f"{space}_participation_ratio" in result]
    colours = depth_colours(result.sizes["cut"])
    beside = [name for ending in REFERENCES if (name := f"parameter_share_{ending}") in result]

    def ratios(cut: str) -> Figure:
        lines = [
            line(SPACES[space], _over_probes(result[f"{space}_participation_ratio"].isel(cut=int(cut))), colour)
            for space, colour in zip(spaces, COLOURS, strict=False)
        ]
        return figure(lines, "Participation ratio", xaxis=axis)

    def shares(cut: str) -> Figure:
        of_cut, largest = result.isel(cut=int(cut)), result["k"].values[-1]
        lines = [
            line(f"largest {k}", of_cut["parameter_share"].sel(k=k).transpose("t").values, colour)
            for k, colour in zip(result["k"].values, COLOURS, strict=False)
        ]
        for name, dash in zip(beside, ("solid", "dot", "dash"), strict=False):
            style = {"color": NEUTRAL, "width": 2, "dash": dash}
            label = f"largest {largest}, {_ending(name)}"
            lines.append(line(label, of_cut[name].isel(k=-1).transpose("t").values, NEUTRAL, line=style))
        return figure(lines, "Share of the variance", xaxis=axis, share=True, log=False)

    panels = []
    if spaces:
        title = "Participation ratio of the noise (features: median over probes)"
        panels.append(Panel(title, for_each(cuts, ratios), ("cut",)))
    if "parameter_share" in result:
        title = "Variance of parameter noise along its largest directions"
        panels.append(Panel(title, for_each(cuts, shares), ("cut",)))
    if "parameter_drift_share" in result:
        values = result["parameter_drift_share"].isel(k=-1).transpose("cut", "t").values
        lines = [line(str(c), y, colour) for c, y, colour in zip(result["cut"].values, values, colours, strict=True)]
        title = "Drift of parameters within the largest directions"
        panels.append(Panel(title, {"": figure(lines, xaxis=axis, share=True)}))
    columns = {name: title for name, title in _columns(result, beside).items() if name in result}
    rows = [_row(cell, columns) for cell in cells(result, "cut", "t")]
    return Section("Noise of SGD", TEXT, panels, cuts, grid=Grid(("Cut after", "Step", *columns.values()), rows))


def _columns(result: xr.Dataset, beside: list[str]) -> dict[str, str]:
    """Return what the table may show: variable to header."""
    counts = " / ".join(str(k) for k in result["k"].values) if "k" in result.coords else ""
    return {
        "parameter_verdict": "Verdict, parameters",
        "parameter_statistic": "Sign test: statistic",
        "parameter_pvalue": "p",
        "parameter_holm": "p, adjusted",
        "parameter_participation_ratio": "Participation ratio",
        "parameter_share": f"Share of the top {counts}",
        **{name: f"{_ending(name).capitalize()} {counts}" for name in beside},
        "parameter_drift_share": "Drift share of the most directions",
        "parameter_drift_share_random": "Random",
        "parameter_drift_pvalue": "p",
    }


def _row(cell: xr.Dataset, columns: dict[str, str]) -> list[str]:
    return [name_of(cell, "cut"), f"{int(cell['step']):,}", *(_show(cell, name) for name in columns)]


def _show(cell: xr.Dataset, name: str) -> str:
    value = cell[name]
    if name == "parameter_verdict":
        verdict, count = str(value.item()), cell.get("parameter_directions")
        return verdict + (f", {int(count)} directions" if verdict == "anisotropic" and _positive(count) else "")
    if "test" in value.dims:
        value = value.sel(test="sign_test")
    if "share" in name:
        kept = value.isel(k=[-1]) if "drift" in name else value
        return " / ".join(word(v, lambda share: f"{100 * share:.2g} %") for v in kept.values)
    if "k" in value.dims:
        value = value.isel(k=-1)
    return word(value, _p) if name.endswith(("pvalue", "holm")) else word(value)


def _positive(count: xr.DataArray | None) -> bool:
    return count is not None and bool(count > 0)


def _ending(name: str) -> str:
    return name.removeprefix("parameter_share_").replace("_", " ")


def _p(value: float) -> str:
    return "< 1e-16" if value < 1e-16 else f"{value:.2g}"


def _over_probes(values: xr.DataArray) -> NDArray[np.float64]:
    return np.asarray(values.median("probe") if "probe" in values.dims else values)
