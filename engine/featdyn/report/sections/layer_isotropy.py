"""``layer_isotropy``: whether what was recorded of a layer is isotropic over the probes."""

from __future__ import annotations

from typing import Any

import xarray as xr

from featdyn.report.findings import NOTHING, probes
from featdyn.report.layer_curves import layer_curves
from featdyn.report.section import Finding, Grid, Section, cells, judged, name_of, word

QUANTITIES = ("participation_ratio", "effective_rank", "stable_rank")
OF = dict.fromkeys(QUANTITIES, "covariance")
VERDICTS = ("anisotropic", "isotropic", "undecided")
TEXT = (
    "Whether what was recorded of a layer, its gradients by default, is isotropic over the probes, each of which is a "
    "draw. The table counts checkpoints by verdict.",
)
CAVEAT = (
    "The tests behind a verdict allow for heavy tails; they assume draws that are independent and, whatever their "
    "lengths, equally likely to point anywhere. Where that does not hold, as for skewed or sparse values, "
    "“anisotropic” need not mean that variances differ between directions."
)


def section(result: xr.Dataset) -> Section:
    """Return the section."""
    of = result.attrs["options"]["of"]
    result = result.load().rename({name: str(name).removeprefix(f"{of}_") for name in result.data_vars})
    rows = []
    for cell in cells(result, "layer", "set"):
        counts = [f"{int((cell['verdict'].values == name).sum())}" for name in VERDICTS]
        rows.append((name_of(cell, "layer"), name_of(cell, "set"), *counts, word(cell["participation_ratio"].median())))
    header = ("Layer", "Probes", *(name.capitalize() for name in VERDICTS), "Median participation ratio of covariance")
    title, caption = f"Isotropy of each layer’s {of}s", f"Directions that {of}s lie along"
    more: dict[str, Any] = {"finding": _finding(judged(result), of), "caveat": CAVEAT}
    return layer_curves(title, TEXT, result, caption, QUANTITIES, Grid(header, rows), of=OF, **more)


def _finding(result: xr.Dataset, of: str) -> Finding:
    verdicts = [str(v) for v in result["verdict"].values.flat]
    counts = {name: verdicts.count(name) for name in VERDICTS if name in verdicts}
    if not counts:
        return Finding(NOTHING)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    return Finding(f"Of {sum(counts.values())} layers at checkpoints {of}s {probes(result)} are: {said}.", said)
