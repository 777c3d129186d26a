"""How many directions recorded features and gradients use: spectra, and tests of isotropy, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from featdyn.report.figures import Figure, checkpoint_axis, depth_colours, figure, line
from featdyn.report.section import Grid, Panel, Section, choices_of, for_each, newest, preset_set
from featdyn.store import Run

QUANTITIES = ("effective_rank", "participation_ratio", "stable_rank", "variance", "mean_norm")
SPECTRA = (
    "The spectrum of the covariance of each layer: how many directions the features of a set use. Variables are a "
    "layer’s channels or features; positions and tokens count as observations like probes do, which is our own choice.",
)
ISOTROPY = (
    "Whether what was recorded of a layer, its gradients by default, is isotropic over the probes: each probe is a "
    "draw, which is our own choice. The verdict rests on tests that hold for any tail.",
)


def spectra(run: Run) -> Section | None:
    """Return the section of the spectra; None where there is no result."""
    found = newest(run, "spectra")
    if found is None:
        return None
    result, path = found
    result = result.load()
    choices = choices_of(result, "set") | {"quantity": {name: name.replace("_", " ") for name in QUANTITIES}}
    header = ("Layer", "Probes", "Observations", "Width", *(name.capitalize() for name in choices["quantity"].values()))
    rows = [
        (
            str(cell["layer"].item()),
            str(cell["set"].item()),
            f"{int(cell['observations']):,}",
            f"{int(cell['width'])}",
            *(f"{float(cell[name]):.3g}" for name in QUANTITIES),
        )
        for cell in _cells(result.isel(t=-1))
    ]
    return Section(
        "spectra",
        f"Spectra of each layer’s {result.attrs['options']['of']}s",
        (*SPECTRA, "The table is of the last checkpoint."),
        [Panel("Directions in use", for_each(choices, _lines(result)), tuple(choices))],
        choices,
        preset_set(result),
        Grid(header, rows),
        path,
        _own(result),
    )


def layer_isotropy(run: Run) -> Section | None:
    """Return the section of the tests of isotropy; None where there is no result."""
    found = newest(run, "layer_isotropy")
    if found is None:
        return None
    result, path = found
    result = result.load()
    of = result.attrs["options"]["of"]
    result = result.rename({name: str(name).removeprefix(f"{of}_") for name in result.data_vars})
    names = ("participation_ratio", "effective_rank", "stable_rank")
    choices = choices_of(result, "set") | {"quantity": {name: name.replace("_", " ") for name in names}}
    header = ("Layer", "Probes", "Anisotropic", "Isotropic", "Undecided", "Median participation ratio")
    rows = []
    for cell in _cells(result):
        verdicts = cell["verdict"].values
        counts = [f"{int((verdicts == name).sum())}" for name in ("anisotropic", "isotropic", "undecided")]
        ratio = float(cell["participation_ratio"].median())
        rows.append((str(cell["layer"].item()), str(cell["set"].item()), *counts, f"{ratio:.3g}"))
    return Section(
        "layer_isotropy",
        f"Isotropy of each layer’s {of}s",
        (*ISOTROPY, "The table counts checkpoints by verdict."),
        [Panel(f"Directions that {of}s lie along", for_each(choices, _lines(result)), tuple(choices))],
        choices,
        preset_set(result),
        Grid(header, rows),
        path,
        _own(result),
    )


def _lines(result: xr.Dataset) -> Callable[..., Figure]:
    axis = checkpoint_axis(result["t"].values, result["step"].values)
    colours = depth_colours(result.sizes["layer"])

    def draw(set: str, quantity: str) -> Figure:
        values = result[quantity].isel(set=int(set)).transpose("layer", "t").values.astype(np.float64)
        each = zip(result["layer"].values, values, colours, strict=True)
        return figure(
            [line(str(layer), y, colour) for layer, y, colour in each], quantity.replace("_", " "), xaxis=axis
        )

    return draw


def _cells(result: xr.Dataset) -> list[xr.Dataset]:
    return [result.isel(layer=c, set=s) for c in range(result.sizes["layer"]) for s in range(result.sizes["set"])]


def _own(result: xr.Dataset) -> dict[str, object]:
    return {key: result.attrs[key] for key in ("options", "input_commit") if key in result.attrs}
