"""What the layers do over training: the cube's summaries, averaged over the probes of each set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.report.figures import Figures, checkpoint_axis, depth_colours, figure, line
from featdyn.report.rounding import rounded
from featdyn.report.training_curves import steps
from featdyn.store import Run

FIRST = "activation_norm"


@dataclass(frozen=True)
class Layers:
    """Figures by set and quantity (``0|activation_norm``), and what there is to choose."""

    sets: dict[str, int]  # name to number of probes
    quantities: dict[str, str]  # name to what it means
    figures: Figures


def layers(run: Run) -> Layers | None:
    """Return the figures of all per-layer summaries in ``/cube``; None where the store has none."""
    arrays = [a for a in run.schema.arrays if a.path.startswith("cube/") and a.dims == ("layer", "sample")]
    if not arrays:
        return None
    sets = ProbeSets.of(run)
    axis = checkpoint_axis(run.coords["checkpoint"].values, steps(run))
    names, colours = run.layers, depth_colours(len(run.layers))
    quantities, figures = {}, {}
    for array in sorted(arrays, key=lambda a: a.path != f"cube/{FIRST}"):
        name = array.path.removeprefix("cube/")
        quantities[name] = str(array.attrs.get("long_name", name.replace("_", " ")))
        means, spreads = _over_sets(run, array.path, np.stack(sets.members))
        for s in range(len(sets.names)):
            lines = [
                line(layer, mean, colour, meta={"spread": rounded(spread)}, hovertemplate=HOVER)
                for layer, colour, mean, spread in zip(names, colours, means[s], spreads[s], strict=True)
            ]
            figures[f"{s}|{name}"] = figure(lines, name.replace("_", " "), xaxis=axis)
    return Layers(dict(zip(sets.names, sets.sizes, strict=True)), quantities, figures)


HOVER = (
    "<b>%{fullData.name}</b><br>checkpoint %{x}, step %{customdata[0]:,}<br>"
    "mean %{y}<br>standard deviation %{customdata[1]:.3g}<extra></extra>"
)


def _over_sets(run: Run, path: str, members: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation over each set's finite values, ``(set, layer, checkpoint)``.

    One shard is in memory at a time. NaN where a set has no finite value.
    """
    shape = (len(members), run.schema[path].shape[0], run.checkpoints)
    number, total, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for t in range(run.checkpoints):
        for block in range(run.schema.blocks):
            values = run.block(path, t, block).astype(np.float64)
            for s, chosen in enumerate(members[:, run.schema.block_slice(block)]):
                part = values[:, chosen]
                finite = np.isfinite(part)
                part = np.where(finite, part, 0.0)
                number[s, :, t] += finite.sum(1)
                total[s, :, t] += part.sum(1)
                squares[s, :, t] += (part * part).sum(1)
    with np.errstate(invalid="ignore"):  # 0 / 0
        mean = total / number
        return mean, np.sqrt(np.maximum(squares / number - mean**2, 0.0))
