"""Isotropy: is the noise of SGD the same in all directions, and does drift follow it?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.report.figures import COLOURS, NEUTRAL, Figure, checkpoint_axis, depth_colours, figure, line
from featdyn.report.section import Grid, Panel, Section, choices_of, for_each, newest
from featdyn.store import Run

TEXT = (
    "Noise is what a mini-batch adds to the gradient of the whole training set, at fixed weights: of the parameters "
    "before a cut, and of the features of probes, which one step of plain SGD with that noise moves. The control moves "
    "features by isotropic noise of the parameters, of the same norm: already that is not isotropic in features, so "
    "feature noise must be judged beside it.",
    "The verdict rests on tests that hold for any tail (sign test, exact test given the lengths): heavy tails alone "
    "are not called anisotropic. Adjusted p-values are Holm’s over checkpoints and cuts. Drift share: the part of the "
    "squared way to the next sampled checkpoint that lies along the ten largest directions of noise; a random subspace "
    "would hold 10/p. What is sampled, and which tests decide, are our own choice.",
)
SPACES = {"parameter": "parameters", "feature": "features", "control": "features, isotropic control"}


def isotropy(run: Run) -> Section | None:
    """Return the section; None where there is no result."""
    found = newest(run, "isotropy")
    if found is None:
        return None
    result, path = found
    result = result.load()
    cuts = choices_of(result, "cut")
    axis = checkpoint_axis(result["t"].values, result["step"].values)
    spaces = [space for space in SPACES if f"{space}_participation_ratio" in result]
    colours = depth_colours(result.sizes["cut"])

    def ratios(cut: str) -> Figure:
        lines = [
            line(SPACES[space], _over_probes(result[f"{space}_participation_ratio"].isel(cut=int(cut))), colour)
            for space, colour in zip(spaces, COLOURS, strict=False)
        ]
        return figure(lines, "Participation ratio", xaxis=axis)

    def shares(cut: str) -> Figure:
        of_cut = result.isel(cut=int(cut))
        lines = [
            line(f"largest {k}", of_cut["parameter_share"].sel(k=k).values, colour)
            for k, colour in zip(result["k"].values, COLOURS, strict=False)
        ]
        baseline = of_cut["parameter_share_isotropic"].isel(k=-1).values
        lines.append(line(f"largest {result['k'].values[-1]}, isotropic", baseline, NEUTRAL))
        return figure(lines, "Share of the variance", xaxis=axis, share=True, log=False)

    drift = [
        line(str(cut), y, colour)
        for cut, y, colour in zip(
            result["cut"].values, result["parameter_drift_share"].isel(k=-1).values, colours, strict=True
        )
    ]
    panels = [
        Panel("Participation ratio of the noise (features: median over probes)", for_each(cuts, ratios), ("cut",)),
        Panel("Variance of parameter noise along its largest directions", for_each(cuts, shares), ("cut",)),
        Panel("Drift of parameters within the ten largest directions", {"": figure(drift, xaxis=axis, share=True)}),
    ]
    own = {key: result.attrs[key] for key in ("options", "sampled", "center", "input_commit") if key in result.attrs}
    grid = Grid(HEADER, list(_rows(result)))
    return Section("isotropy", "Noise of SGD", TEXT, panels, cuts, grid=grid, path=path, attributes=own)


HEADER = (
    "Cut after", "Step", "Verdict, parameters", "Sign test: statistic", "p", "p, adjusted", "Participation ratio",
    "Share of the top 1 / 5 / 10", "Isotropic 1 / 5 / 10", "Drift share of the top 10", "Random", "p",
)  # fmt: skip


def _rows(result: xr.Dataset) -> Iterator[tuple[str, ...]]:
    for cell in (result.isel(cut=c, t=t) for c in range(result.sizes["cut"]) for t in range(result.sizes["t"])):
        sign = cell.sel(test="sign_test")
        count = int(cell["parameter_directions"])
        verdict = str(cell["parameter_verdict"].item())
        yield (
            str(cell["cut"].item()),
            f"{int(cell['step']):,}",
            verdict + (f", {count} directions" if verdict == "anisotropic" and count > 0 else ""),
            f"{float(sign['parameter_statistic']):.3g}",
            _p(sign["parameter_pvalue"]),
            _p(sign["parameter_holm"]),
            f"{float(cell['parameter_participation_ratio']):.3g}",
            _shares(cell["parameter_share"]),
            _shares(cell["parameter_share_isotropic"]),
            _shares(cell["parameter_drift_share"].isel(k=[-1])),
            _shares(cell["parameter_drift_share_random"].isel(k=[-1])),
            _p(cell["parameter_drift_pvalue"].isel(k=-1)),
        )


def _shares(values: xr.DataArray) -> str:
    return " / ".join(f"{100 * v:.2g} %" if v == v else "–" for v in values.values.tolist())


def _p(value: xr.DataArray) -> str:
    p = float(value)
    return "–" if p != p else "< 1e-16" if p < 1e-16 else f"{p:.2g}"


def _over_probes(values: xr.DataArray) -> NDArray[np.float64]:
    return np.asarray(values.median("probe") if "probe" in values.dims else values)
