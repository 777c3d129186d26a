"""``representation``: ranks, dimensions, class manifolds and margins of each layer."""

from __future__ import annotations

from typing import Any

import xarray as xr

from featdyn.report.findings import NOTHING, across, probes
from featdyn.report.layer_curves import layer_curves, with_of
from featdyn.report.section import Finding, Grid, Section, bounded_word, cells, judged, name_of, word

QUANTITIES = (
    "effective_rank", "participation_ratio", "stable_rank", "condition_number", "power_law_exponent", "gini", "hoyer",
    "two_nn", "local_dimension", "manifold_radius", "manifold_dimension", "manifold_capacity", "signal_to_noise",
    "mean_field_capacity", "margin",
)  # fmt: skip
TABLE = (
    "effective_rank", "effective_rank_variance", "two_nn", "two_nn_half", "two_nn_quarter", "manifold_radius",
    "manifold_dimension",
)  # fmt: skip
OF = {"effective_rank": "singular values", "participation_ratio": "variances", "stable_rank": "variances"}
POSITIONS = "Positions and tokens are averaged."
TEXT = (
    "Ranks count the directions that features use, of singular values unless a name says variance. The intrinsic "
    "dimension by two nearest neighbours is that of the surface on which features lie. Manifolds are the features of a "
    "class: their capacity is estimated from radius and dimension, an approximation; the mean field capacity, where it "
    "was asked for, is solved for.",
    "The margin is that of a linear probe, fitted to the training probes without those of the same image, on all "
    "others; negative where it is wrong. The table is of the last checkpoint.",
)
CAVEAT = (
    "Dimensions depend on how many probes there are: where one falls with fewer of them (half, quarter), it is not yet "
    "the layer’s."
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    result = result.load()
    header = ("Layer", "Probes", *(with_of(name, OF).capitalize() for name in TABLE), "Margin")
    rows = [
        (
            name_of(cell, "layer"),
            name_of(cell, "set"),
            *(word(cell[name]) for name in TABLE),
            bounded_word(cell, "margin", "{:.3g}".format),
        )
        for cell in cells(result.isel(t=-1), "layer", "set")
    ]
    last = judged(result.isel(t=-1))
    named = {
        "effective_rank": "the effective rank of singular values, positions averaged,",
        "two_nn": "the intrinsic dimension",
    }
    said = [f"{words} is {s}" for name, words in named.items() if (s := across(last, name, "layer", word))]
    finding = Finding(f"At the last checkpoint, {probes(last)}, {'; '.join(said)}." if said else NOTHING)
    more: dict[str, Any] = {"finding": finding, "caveat": CAVEAT, "of": OF, "detail": POSITIONS}
    caption = "Measures of representations"
    return layer_curves("Representations", TEXT, result, caption, QUANTITIES, Grid(header, rows), as_map=True, **more)
