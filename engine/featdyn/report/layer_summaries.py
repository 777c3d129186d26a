"""What the layers do over training: the cube's summaries, averaged over the probes of each set."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.report.figure import Axis, Lines
from featdyn.report.figures import chart, checkpoint_axis, lines
from featdyn.report.section import Section, panel
from featdyn.report.training_curves import steps
from featdyn.store import Run

FIRST = "activation_norm"


TEXT = (
    "Each line is a layer, coloured from shallow (violet) to deep (green or yellow), averaged over the chosen probes. "
    "Point at a line for the layer’s name and the spread over probes; click a name in the legend to hide a line, "
    "double-click to see it alone."
)


Sums: TypeAlias = dict[tuple[str, int], NDArray[np.float64]]
"""By array and checkpoint: how many values of each set are finite, their sum and that of their squares."""


def layers(run: Run, known: Sums | None = None) -> tuple[Section, dict[str, str]] | None:
    """Return the section of all per-layer summaries in ``/cube``, and what they mean; None where the store has none.

    What is read goes into ``known``, and what is there already is not read again.
    """
    arrays = [a for a in run.schema.arrays if a.path.startswith("cube/") and a.dims == ("layer", "sample")]
    if not arrays:
        return None
    sets = ProbeSets.of(run)
    axis = checkpoint_axis(run.coords["checkpoint"].values, steps(run))
    arrays = sorted(arrays, key=lambda a: a.path != f"cube/{FIRST}")
    names = [array.path.removeprefix("cube/") for array in arrays]
    means = {a: _over_sets(run, f"cube/{a}", np.stack(sets.members), {} if known is None else known) for a in names}
    choices = {
        "set": {str(i): f"{n} ({size})" for i, (n, size) in enumerate(zip(sets.names, sets.sizes, strict=True))},
        "quantity": {name: name.replace("_", " ") for name in names},
    }

    def draw(set: str, quantity: str) -> Lines:
        mean, spread = (values[int(set)] for values in means[quantity])
        each = [replace(s, beside=b) for s, b in zip(lines(run.layers, mean, deep=True), spread, strict=True)]
        y = Axis(choices["quantity"][quantity], "auto")
        return chart(each, y, axis, beside="standard deviation over probes")

    preset = {"set": str(sets.names.index("test"))} if "test" in sets.names else {}
    meanings = {n: str(a.attrs.get("long_name", "")) for n, a in zip(choices["quantity"].values(), arrays, strict=True)}
    found = panel("Mean over probes, layer by layer", choices, draw, "mean")
    return Section("Layers", (TEXT,), (found,), choices, preset), meanings


def _over_sets(
    run: Run, path: str, members: NDArray[np.bool_], known: Sums
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation over each set's finite values, ``(set, layer, checkpoint)``.

    One shard is in memory at a time. NaN where a set has no finite value.
    """
    for t in range(run.checkpoints):
        if (path, t) not in known:
            known[path, t] = np.sum([_sums(run, path, t, block, members) for block in range(run.schema.blocks)], 0)
    number, total, squares = np.moveaxis(np.stack([known[path, t] for t in range(run.checkpoints)]), 0, -1)
    with np.errstate(invalid="ignore"):  # 0 / 0
        mean = total / number
        return mean, np.sqrt(np.maximum(squares / number - mean**2, 0.0))


def _sums(run: Run, path: str, t: int, block: int, members: NDArray[np.bool_]) -> NDArray[np.float64]:
    values = run.block(path, t, block).astype(np.float64)
    found = np.zeros((3, len(members), len(values)))
    for s, chosen in enumerate(members[:, run.schema.block_slice(block)]):
        part = values[:, chosen]
        finite = np.isfinite(part)
        part = np.where(finite, part, 0.0)
        found[:, s] = finite.sum(1), part.sum(1), (part * part).sum(1)
    return found
