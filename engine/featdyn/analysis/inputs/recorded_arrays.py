"""What was recorded, for analyses that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.lacking import INSTEAD, keeps_moments
from featdyn.analysis.inputs.positions import padding_of
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.errors import FeatdynError
from featdyn.nearest import meant
from featdyn.networks.layer_patterns import matching
from featdyn.store import ArraySpec, Run

VANISHED = "vanished_in_float16"


def recorded(run: Run, patterns: Sequence[str], of: str) -> list[ArraySpec]:
    """Return the arrays ``layers/<layer>/<of>`` of the layers that match, in the order of the network; at least one."""
    held = {spec.path: spec for spec in run.schema.arrays}
    chosen = {name for p in patterns for name in (run.layers if p == "all" else matching(p, run.layers))}
    named = [layer for layer in run.layers if layer in chosen]
    found = [held[path] for path in (f"layers/{layer}/{of}" for layer in named) if path in held]
    if not found:
        if named and not any(path.startswith("layers/") and path.endswith(f"/{of}") for path in held):
            kept = of == "activation" and keeps_moments(run)
            raise FeatdynError(f"{run.path}: no {of}s were recorded" + f", {INSTEAD}" * kept)
        raise FeatdynError(
            f"{run.path}: no {of} of {', '.join(patterns)} was recorded; "
            f"{meant(patterns[0], run.layers)}layers are {', '.join(run.layers)}"
        )
    for spec in found:
        if spec.sample_axis != 0:  # as another writer may store it
            axes = ", ".join(("checkpoint", *spec.dims))
            raise FeatdynError(
                f"{run.path}: {spec.path} has the axes {axes}, not checkpoint, sample, ...: leave it out"
            )
    return found


def vanished(run: Run, spec: ArraySpec) -> NDArray[np.bool_]:
    """Return ``(checkpoint, probe)``, where an array stored as float16 has lost what was there.

    The norms that were recorded beside it, in float32, tell: the root of the mean square is below what float16 holds
    in full. Where there are none, nothing tells.
    """
    _, layer, of = spec.path.split("/")
    norms = f"cube/{of}_norm"
    if spec.dtype != "float16" or norms not in run.nodes:
        return np.zeros((run.checkpoints, run.schema.samples), bool)
    place = run.values("cube/layer").tolist().index(layer)
    mask = padding_of(run, spec)
    many = np.array(prod(spec.shape[1:])) if mask is None else mask.sum(1) * prod(spec.shape[2:])
    size = run.values(norms)[:, place] / many**0.5
    held = float(np.finfo(np.float16).smallest_normal) * float(spec.attrs.get("scale_factor", 1.0))
    return np.asarray((size > 0) & (size < held))


def refuse_vanished(run: Run, layers: Sequence[str], way: str) -> None:
    """Raise FeatdynError, which says ``way`` out, where most activations of a layer are lost in float16."""
    for layer in layers:
        lost = vanished(run, run.schema[f"layers/{layer}/activation"]).mean(1)
        if (lost > 0.5).any():
            raise FeatdynError(
                f"{run.path}: the activations at {layer} are too small for float16, as which they were stored "
                f"(checkpoint {int(lost.argmax())}): {way}"
            )


def is_maps(spec: ArraySpec) -> bool:
    """Whether the variables are channels, which come before the positions; else they are the last axis."""
    return "channel" in spec.dims


def variables(spec: ArraySpec) -> int:
    """Return the number of a layer's variables: channels of maps, else the length of the last axis."""
    return spec.shape[1 if is_maps(spec) else -1]


def layer_coords(run: Run, specs: Sequence[ArraySpec], sets: ProbeSets) -> dict[str, Any]:
    """Return the coordinates of results over (layer, set, t)."""
    return {
        "layer": np.array([spec.path.split("/")[1] for spec in specs], dtype=object),
        "set": np.array(sets.names, dtype=object),
        "set_size": ("set", sets.sizes),
        "t": np.arange(run.checkpoints),
        "step": ("t", run.values("step")),
    }
