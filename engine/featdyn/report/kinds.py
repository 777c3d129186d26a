"""Results that set several kinds of composites side by side: controls, BatchNorm policies, rewound layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from featdyn.report.figures import COLOURS, Figure, checkpoint_axis, depth_colours, figure, line
from featdyn.report.section import Grid, Panel, Section, choices_of, for_each, newest, preset_set
from featdyn.store import Run

CONTROLS = (
    "Is it the direction of the drift that keeps predictions, or only its small size? Each line replaces the features "
    "of t1 by those of the last checkpoint plus a perturbation as long as the drift of that probe: the drift itself; "
    "isotropic noise; Gaussian noise of the drift’s covariance; the drift of another probe, of the same or another "
    "class. Features are not clipped.",
    "Drift counts as structured where its accuracy is above that of isotropic noise and of other probes’ drift, each "
    "with a 95 % bound over probes. These controls and this rule are our own choice.",
)
BATCHNORM = (
    "How much does the conclusion depend on BatchNorm? Statistics travel with their layers (as everywhere else on this "
    "page), are estimated anew on the composite’s own features of the training probes, or are those of the batch. "
    "arXiv 2509.20334 does not say which it used; the three policies are our own choice.",
)
REWIND = (
    "Everything from the last checkpoint, one layer put back to checkpoint t1 (after Zhang, Bengio and Singer, JMLR "
    "2022). A layer whose line stays high has hardly changed in a way that matters; “head” is what follows the last "
    "cut.",
)

OTHERS = ("reestimated", "batch")
"""Policies beside the one that the rest of the page uses."""


def controls(run: Run) -> Section | None:
    """Return the section on norm-matched controls; None where there is no result."""
    found = newest(run, "controls")
    if found is None:
        return None
    result, path = found
    last = result.load().isel(t2=-1)
    grid = Grid(
        ("Cut after", "Probes", "Checkpoints t1 whose drift is structured", "Largest error of a norm"),
        [
            (
                str(cell["cut"].item()),
                str(cell["set"].item()),
                f"{int(cell['structured'].sum())} of {int((cell['motion'] > 0).sum())}",
                f"{float(cell['norm_error'].max()):.1e}",
            )
            for cell in (last.isel(cut=c, set=s) for c in range(last.sizes["cut"]) for s in range(last.sizes["set"]))
        ],
    )
    return _section("controls", "Is drift structured?", CONTROLS, last, path, "kind", COLOURS, grid)


def batchnorm(run: Run) -> Section | None:
    """Return the section on BatchNorm policies; None where there is no result."""
    found = newest(run, "batchnorm")
    if found is None:
        return None
    result, path = found
    last = result.load().isel(t2=-1)
    rows = []
    for c, cut in enumerate(last["cut"].values):
        for s, name in enumerate(last["set"].values):
            change = last["change"].isel(cut=c, set=s)
            most = [float(change.sel(policy=p).values[np.abs(change.sel(policy=p).values).argmax()]) for p in OTHERS]
            rows.append((str(cut), str(name), *(f"{100 * value:+.1f} points" for value in most)))
    header = ("Cut after", "Probes", *(f"Largest change of accuracy, {p}" for p in OTHERS))
    return _section("batchnorm", "BatchNorm policies", BATCHNORM, last, path, "policy", COLOURS, Grid(header, rows))


def rewind(run: Run) -> Section | None:
    """Return the section on rewound layers; None where there is no result."""
    found = newest(run, "rewind")
    if found is None:
        return None
    result, path = found
    last = result.load().isel(t2=-1)
    colours = depth_colours(last.sizes["segment"])
    return _section("rewind", "One layer rewound", REWIND, last, path, "segment", colours)


def _section(
    name: str, title: str, text: Sequence[str], last: xr.Dataset, path: str, kind: str, colours: Sequence[str],
    grid: Grid | None = None,
) -> Section:  # fmt: skip
    """Return accuracy over t1, a line for each kind, by set and, where there are cuts, by cut."""
    choices = choices_of(last, *(dim for dim in ("set", "cut") if dim in last.dims))
    axis = checkpoint_axis(last["t1"].values, last["step1"].values)

    def draw(**chosen: str) -> Figure:
        cell = last.isel({dim: int(value) for dim, value in chosen.items()})
        kinds = zip(last[kind].values, cell["accuracy"].transpose(kind, "t1").values, colours, strict=False)
        return figure(
            [line(str(k).replace("_", " "), y, c) for k, y, c in kinds], "Accuracy", xaxis=axis, share=True, log=False
        )

    own = {key: last.attrs[key] for key in ("options", "input_commit") if key in last.attrs}
    step = int(last["step2"])
    of_t1 = "Shallow half of t1, deep half" if "cut" in choices else "One layer of t1, the rest"
    panel = Panel(f"{of_t1} of step {step:,}", for_each(choices, draw), tuple(choices))
    return Section(name, title, text, [panel], choices, preset_set(last), grid, path, own)
