"""Training curves: every number that was recorded with the checkpoints."""

from __future__ import annotations

import numpy as np

from featdyn.report.figure import Axis
from featdyn.report.figures import chart, checkpoint_axis, line
from featdyn.report.section import Panel
from featdyn.store import Run

SPLITS = ("train", "test", "validation", "valid", "val", "eval")
PLACE = ("checkpoint", "step", "epoch")  # where in training a checkpoint is: not curves


def panels(run: Run) -> list[Panel]:
    """Return a panel for each quantity among the root's coordinates: ``train_loss`` and ``test_loss`` share one."""
    coords = run.coords
    quantities: dict[str, list[tuple[str, str]]] = {}
    for name, values in coords.coords.items():
        if name in PLACE or values.dims != ("checkpoint",) or values.dtype.kind not in "fiu":
            continue
        if not np.isfinite(values.values).any():
            continue
        split, _, rest = str(name).partition("_")
        split, quantity = (split, rest) if split in SPLITS and rest else ("", str(name))
        quantities.setdefault(quantity, []).append((split, str(name)))
    axis = checkpoint_axis(coords["checkpoint"].values, steps(run))
    trained = run.recipe is not None  # then an accuracy is a share; other loops may count in percent
    found = []
    for quantity in sorted(quantities, key=_order):
        title = quantity.replace("_", " ").capitalize()
        lines = [
            line(split or title, coords[name].values, _rank(split))
            for split, name in sorted(quantities[quantity], key=lambda pair: _rank(pair[0]))
        ]
        of = Axis(scale="auto" if "loss" in quantity else "linear", share=quantity == "accuracy" and trained)
        found.append(Panel(title, {"": chart(lines, of, axis, title=title)}, name=quantity))
    return found


def steps(run: Run) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the training step of each checkpoint; its number where a store holds none."""
    coords = run.coords
    values = coords["step"].values if "step" in coords else np.arange(run.checkpoints)
    return np.asarray(values, dtype=np.int64)


def _rank(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else 0


def _order(quantity: str) -> tuple[int, str]:
    first = ("accuracy", "loss")
    return (first.index(quantity) if quantity in first else len(first), quantity)
