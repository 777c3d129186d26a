"""A run with what people ask after: classes with names, corruptions, layers, results; nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from featdyn.analysis import analyses
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from tests.engine.declared_results import declared_result

CHECKPOINTS, LAYERS, CLASSES = 7, ("stem", "s1b3", "s2b3", "pooled"), ("ant", "bee", "cat", "dog")
SPLITS = {"train": 24, "test": 20, "corrupted": 20}
SAMPLES = sum(SPLITS.values())
SHAPE = (3, 2, 2)
Held = dict[str, np.ndarray[Any, Any]]
"""What was written, float64, by paths."""


def write(path: Path, seed: int = 0) -> tuple[Run, Held]:
    """Write it; return the run and what was written, float64, by paths."""
    rng = np.random.default_rng(seed)
    label = np.arange(SAMPLES) % len(CLASSES)
    logits = rng.standard_normal((CHECKPOINTS, SAMPLES, len(CLASSES)))
    logits += 1.5 * np.linspace(0, 1, CHECKPOINTS)[:, None, None] * np.eye(len(CLASSES))[label]
    held: Held = {
        "checkpoint": np.arange(CHECKPOINTS), "step": 10 * np.arange(CHECKPOINTS) ** 2,
        "epoch": np.arange(CHECKPOINTS) * 1.0, "test_accuracy": rng.random(CHECKPOINTS),
        "train_loss": rng.random(CHECKPOINTS), "test_loss": rng.random(CHECKPOINTS) + 1,
        "outputs/logits": logits, "outputs/loss": rng.exponential(1, (CHECKPOINTS, SAMPLES)),
        "cube/activation_norm": rng.exponential(1, (CHECKPOINTS, len(LAYERS), SAMPLES)),
        "cube/activation_sparsity": rng.random((CHECKPOINTS, len(LAYERS), SAMPLES)),
        "cube/sketch": rng.standard_normal((CHECKPOINTS, len(LAYERS), SAMPLES, 5)),
        "layers/s2b3/activation": rng.standard_normal((CHECKPOINTS, SAMPLES, *SHAPE)),
    }  # fmt: skip
    held["train_loss"][0] = np.nan
    axes = {"outputs/logits": ("sample", "class"), "outputs/loss": ("sample",)}
    axes |= {f"cube/{name}": ("layer", "sample") for name in ("activation_norm", "activation_sparsity")}
    axes |= {"cube/sketch": ("layer", "sample", "component")}
    axes |= {"layers/s2b3/activation": ("sample", "channel", "height", "width")}
    specs = [ArraySpec(name, axes.get(name, ()), values.shape[1:], _kind(name)) for name, values in held.items()]
    schema = Schema(tuple(specs), SAMPLES, 16)
    corrupted = np.arange(SAMPLES) >= SAMPLES - SPLITS["corrupted"]
    severity = np.where(corrupted, 1 + np.arange(SAMPLES) % 2 * 2, 0)
    kinds = np.array(["fog", "blur"], dtype=object)[np.arange(SAMPLES) // 2 % 2]
    coords = {
        "sample": np.array([f"toy/{i:03d}" for i in range(SAMPLES)], dtype=object),
        "split": ("sample", np.repeat(np.array(list(SPLITS), dtype=object), list(SPLITS.values()))),
        "label": ("sample", label),
        "corruption": ("sample", np.where(corrupted, kinds, "")),
        "severity": ("sample", severity.astype(np.int8)),
    }
    static = {"": xr.Dataset(coords=coords), "cube": xr.Dataset(coords={"layer": np.array(LAYERS, dtype=object)})}
    about = {"dataset": {"name": "toy", "classes": list(CLASSES)}, "recipe": {"training": {"seed": 1, "rate": seed}}}
    with RunWriter.create(path, schema, static=static, attributes=about) as writer:
        for t in range(CHECKPOINTS):
            with writer.checkpoint() as checkpoint:
                for spec in specs:
                    values = np.asarray(held[spec.path][t], spec.dtype)
                    if spec.sample_axis is None:
                        checkpoint.write(spec.path, values)
                        continue
                    for block in range(schema.blocks):
                        rows = (slice(None),) * spec.sample_axis + (schema.block_slice(block),)
                        checkpoint.write(spec.path, np.ascontiguousarray(values[rows]), block)
        for name in ("consistency", "isotropy", "representation"):
            found = declared_result(analyses()[name], seed=seed, missing=0.1, checkpoints=CHECKPOINTS)
            writer.result(name, found)
    coords_held = {name: value[1] if isinstance(value, tuple) else value for name, value in coords.items()}
    rounded = {name: values.astype(_kind(name)).astype(np.float64) for name, values in held.items()}
    return Run(path), {**rounded, **coords_held}


def _kind(name: str) -> str:
    return "int64" if name in ("checkpoint", "step") else "float64" if "/" not in name else "float32"
