"""Results with every variable that an analysis declares: random values, of any size, with cells missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from featdyn.analysis import Analysis
from featdyn.analysis.status import DEAD, Status

NAMES = {
    "kind": ["drift", "isotropic", "gaussian", "same_class", "other_class"],
    "policy": ["travel", "reestimated", "batch"],
    "average": ["weights", "predictions"],
    "measure": ["kde_tv", "mmd"],
    "test": ["sign_test", "other_test"],
}
"""Labels of dimensions that are not counted."""
TEXT = ("verdict", "reason")


def declared_result(
    analysis: Analysis, *, seed: int = 0, missing: float = 0.0, checkpoints: int = 4, others: int = 2
) -> xr.Dataset:
    """Return a result of the form that is declared.

    Parameters
    ----------
    missing
        Share of the cells of each variable that are missing; 1 for all of them.
    checkpoints
        Length of the axes of time.
    others
        Length of all axes beside those of :data:`NAMES`.
    """
    rng, values = np.random.default_rng(seed), dict[str, Any]()
    dims = dict.fromkeys(dim for v in analysis.variables.values() for dim in v.dims.split() if dim != "*")
    times = ("t", "t1", "t2", "lag", "window")
    sizes = {dim: len(NAMES.get(dim, "")) or (checkpoints if dim in times else others) for dim in dims}
    sizes |= {"pair": checkpoints - 1} if "pair" in dims else {}
    for name, variable in analysis.variables.items():
        axes = variable.dims.split()
        if "*" in (*name, *axes):
            continue
        shape = [sizes[dim] for dim in axes]
        if name.endswith(TEXT):
            values[name] = axes, rng.choice(["isotropic", "anisotropic", "undecided"], shape).astype(object)
            continue
        low, high = variable.valid_range or (0.1, 3.0)
        array = rng.uniform(low, high, shape)
        status = Status(axes, shape)
        status.mark(DEAD, rng.random(shape) < missing)
        attributes = variable.attributes() | {"ancillary_variables": f"{name}_why"}
        values[name] = axes, np.where(status.computed, array, np.nan), attributes
        values[f"{name}_why"] = status.variable()
    coords = _coordinates(sizes)
    attributes = {"options": analysis.options().model_dump(mode="json"), "question": analysis.question}
    return xr.Dataset(values, coords, attributes)


def _coordinates(sizes: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for dim, size in sizes.items():
        if dim in NAMES:
            found[dim] = np.array(NAMES[dim], dtype=object)
        elif dim in ("t", "t1", "t2", "k", "lag", "window", "class", "component"):
            found[dim] = np.arange(size) + (dim in ("k", "window"))
        elif dim != "pair":
            words = ["test", "train"] if dim == "set" else []
            found[dim] = np.array([*words, *(f"{dim}{i}" for i in range(size))][:size], dtype=object)
    for dim, step in (("t", "step"), ("t1", "step1"), ("t2", "step2")):
        if dim in sizes:
            found[step] = dim, 90 * np.arange(sizes[dim])
    if "pair" in sizes:
        earlier = np.arange(sizes["pair"])
        for name, value in {"t1": earlier, "t2": earlier * 0 + sizes["pair"]}.items():
            found |= {name: ("pair", value), f"step{name[1]}": ("pair", 90 * value)}
    if "cut" in sizes:
        found |= {name: ("cut", 1000 * (1 + np.arange(sizes["cut"]))) for name in ("prefix_macs", "suffix_macs")}
        found["source"] = "cut", np.array(["stored"] * sizes["cut"], dtype=object)
    if "set" in sizes:
        found["set_size"] = "set", np.full(sizes["set"], 7)
    if "layer" in sizes:
        found["width"] = "layer", np.full(sizes["layer"], 16)
    if {"layer", "set"} <= sizes.keys():
        found["observations"] = ("layer", "set"), np.full((sizes["layer"], sizes["set"]), 64)
    return found
