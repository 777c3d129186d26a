"""A run whose composites do as planted at one pair of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from featdyn.store import Run, RunWriter
from tests.engine.synthetic_run import make_run, steps

SETS, CUTS = ("train", "test"), ("s1b3", "pooled")


def planted(
    path: Path, *, agreement: float, fits: int, noise: float = 0.0, seed: int = 0, frozen: str = "",
    checkpoints: int = 6,
) -> Run:  # fmt: skip
    """A run whose composites agree as planted at the pair that compare reads, and not at all elsewhere."""
    recipe: dict[str, Any] = {"labels": {"noise": noise}, "training": {"seed": seed}, "network": {}, "data": {}}
    if frozen:
        recipe["intervention"] = {"cut": frozen, "freeze_at": 2.0}
    attributes = {"recipe": recipe, "dataset": {"name": "planted"}}
    sets = {"train": 4, "test": 4}
    make_run(path, checkpoints=checkpoints, sets=sets, attributes=attributes)
    step = steps(checkpoints)
    t1 = max(t for t in range(checkpoints) if step[t] <= step[fits] / 2)
    values = np.zeros((len(CUTS), len(SETS), checkpoints, checkpoints))
    values[:, :, t1, fits] = agreement
    plain = np.where(np.arange(checkpoints) >= fits, 1.0, 0.5)
    index = range(checkpoints)
    coords = {
        "cut": np.array(CUTS, object), "set": np.array(SETS, object), "t1": index, "t2": index,
        "step1": ("t1", step), "step2": ("t2", step), "set_size": ("set", [4, 4]),
    }  # fmt: skip
    pairs = xr.Dataset(
        {
            "agreement": (("cut", "set", "t1", "t2"), values),
            "plain_accuracy": (("set", "t1"), np.stack([plain, plain / 2])),
        },
        coords,
    )
    with RunWriter.open(path) as writer:
        writer.result("consistency", pairs)
    return Run(path)
