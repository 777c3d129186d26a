"""A run as a store holds it, made from formulas: nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from featdyn.store import ArraySpec, Run, RunWriter, Schema

CURVES = ("epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
CUBE = ("activation_mean", "activation_norm", "activation_cosine", "gradient_norm")


def steps(checkpoints: int) -> np.ndarray[Any, Any]:
    """Initialisation, log-spaced steps, then every 90."""
    early = [0, 3, 9, 28][:checkpoints]
    return np.array(early + [90 * (i + 1) for i in range(checkpoints - len(early))])


def make_run(
    path: Path,
    *,
    checkpoints: int = 5,
    layers: tuple[str, ...] = ("stem", "s1b3", "pooled"),
    sets: dict[str, int] | None = None,
    curves: tuple[str, ...] = CURVES,
    cube: tuple[str, ...] = CUBE,
    attributes: dict[str, Any] | None = None,
    split: bool = True,
) -> Run:
    """Commit a run whose numbers look like those of a network that learns."""
    sets = sets or {"train": 7, "test": 5, "corrupted": 3}
    samples, rng = sum(sets.values()), np.random.default_rng(0)
    specs = [ArraySpec(name, (), (), "int64") for name in ("checkpoint", "step")]
    specs += [ArraySpec(name, (), (), "float64") for name in curves]
    specs += [ArraySpec(f"layers/{n}/activation", ("sample", "f0"), (samples, 2), "float16") for n in ("a", "b")]
    note = {"long_name": "made up"}
    specs += [ArraySpec(f"cube/{n}", ("layer", "sample"), (len(layers), samples), "float32", note) for n in cube]
    root: dict[str, Any] = {"sample": np.array([f"s/{i}" for i in range(samples)], dtype=object)}
    root["label"] = ("sample", np.arange(samples) % 10)
    if split:
        root["split"] = ("sample", np.repeat(np.array(list(sets), dtype=object), list(sets.values())))
    static = {"": xr.Dataset(coords=root)}
    if cube:
        static["cube"] = xr.Dataset(coords={"layer": np.array(layers, dtype=object)})
    with RunWriter.create(path, Schema.build(specs, samples), static=static, attributes=attributes or {}) as writer:
        for t, step in enumerate(steps(checkpoints)):
            learnt = 1 - np.exp(-step / 300)
            known = {
                "epoch": step / 90,
                "learning_rate": 0.1 * (1 - t / checkpoints),
                "train_loss": 2.3 * np.exp(-step / 150) if t else np.nan,
                "train_accuracy": 0.1 + 0.9 * learnt if t else np.nan,
                "test_loss": 2.3 * np.exp(-step / 200) + 0.05,
                "test_accuracy": 0.1 + 0.87 * learnt,
            }
            with writer.checkpoint() as checkpoint:
                for spec in writer.schema.arrays:
                    if not spec.dims:
                        value = {"checkpoint": t, "step": step, **known}.get(spec.path, 0.5)
                        checkpoint.write(spec.path, np.array(value, spec.dtype))
                        continue
                    for block in range(writer.schema.blocks):
                        rows = writer.schema.block_slice(block)
                        shape = (len(layers), rows.stop - rows.start) if spec.dims[0] == "layer" else (rows.stop - rows.start, 2)
                        depth = np.arange(1, len(layers) + 1)[:, None] if spec.dims[0] == "layer" else 1.0
                        values = 10 / depth * (1 + learnt * depth) * rng.lognormal(0, 0.2, shape)
                        if spec.path.endswith("norm") and spec.path.startswith("cube/gradient"):
                            values = values * np.exp(-3 * learnt) / 50
                        if spec.path.endswith("cosine"):
                            values = np.full(shape, np.nan) if t == 0 else np.minimum(1, 0.4 + 0.5 * learnt + values * 0.005)
                        checkpoint.write(spec.path, values.astype(spec.dtype), block)
    return Run(path)


def add_consistency(run: Run, *, cuts: tuple[str, ...] = ("s1b3", "s2b3", "pooled"), **changes: Any) -> Run:
    """Commit a consistency result of the shape that the analysis gives."""
    splits = run.coords["split"].values if "split" in run.coords else np.full(run.schema.samples, "probes", dtype=object)
    sets = list(dict.fromkeys(splits.tolist()))
    sizes = np.array([(splits == name).sum() for name in sets])
    t = run.checkpoints
    step = run.coords["step"].values
    learnt = 1 - np.exp(-step / 300)
    rng = np.random.default_rng(1)
    apart = np.abs(np.log1p(step)[:, None] - np.log1p(step)[None, :])
    older = np.where(np.arange(t)[:, None] > np.arange(t)[None, :], 1.4, 1.0)
    share = []
    for c in range(len(cuts)):
        top = 0.1 + 0.87 * np.minimum(learnt[:, None] ** 0.5, learnt[None, :])
        value = 0.1 + (top - 0.1) * np.exp(-apart * older * (0.15 + 0.25 * c))
        share.append([np.clip(value - 0.05 * s, 0, 1) for s in range(len(sets))])
    n = sizes[None, :, None, None]
    accuracy = np.rint(np.array(share) * n) / n
    agreement = np.clip(np.rint((accuracy + rng.uniform(0, 0.1, accuracy.shape)) * n), 0, n) / n
    diagonal = np.arange(t)
    accuracy[:, :, diagonal, diagonal] = accuracy[:1][:, :, diagonal, diagonal]
    agreement[:, :, diagonal, diagonal] = 1
    macs = [40_000_000 * (c + 1) // len(cuts) for c in range(len(cuts))]
    dims = ("cut", "set", "t1", "t2")
    result = xr.Dataset(
        {
            "accuracy": (dims, accuracy),
            "agreement": (dims, agreement),
            "agreement_prefix": (dims, agreement.swapaxes(2, 3)),
            "loss": (dims, 2.5 - 2.4 * accuracy),
            "plain_accuracy": (("set", "t1"), accuracy[0][:, diagonal, diagonal]),
            "diagonal_differences": ("cut", np.zeros(len(cuts), int)),
            "prediction": (("cut", "t1", "t2", "probe"), np.zeros((len(cuts), t, t, run.schema.samples), np.uint8)),
        },
        coords={
            "cut": np.array(cuts, dtype=object),
            "set": np.array(sets, dtype=object),
            "t1": diagonal,
            "t2": diagonal,
            "step1": ("t1", step),
            "step2": ("t2", step),
            "probe": run.coords["sample"].values,
            "set_size": ("set", sizes),
            "prefix_macs": ("cut", macs),
            "suffix_macs": ("cut", [40_550_000 - m for m in macs]),
            "source": ("cut", np.array(["recomputed" if c == 0 else "stored" for c in range(len(cuts))], dtype=object)),
        },
        attrs={
            "batchnorm": "buffers travel with their layers",
            "options": {"cuts": ["default"], "features": "auto"},
            "input_commit": run.commits[-1].number,
            "provenance": {"created": "2026-01-02T03:04:05Z", "versions": {"torch": "2.11"}},
        },
    )
    with RunWriter.open(run.path) as writer:
        writer.result("consistency", result.assign(changes))
    return Run(run.path)
