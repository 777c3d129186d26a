"""A run as a store holds it, with numbers like those of a network that learns; nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from featdyn.analysis.status import ONE_CLASS, Status
from featdyn.statistics.resampling import wilson
from featdyn.store import ArraySpec, Run, RunWriter, Schema

CURVES = ("epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
CUBE = ("activation_mean", "activation_norm", "activation_cosine", "gradient_norm")
SETS = {"train": 7, "test": 5, "corrupted": 3}


def steps(checkpoints: int) -> np.ndarray[Any, Any]:
    """Initialisation, log-spaced steps, then every 90."""
    early = [0, 3, 9, 28][:checkpoints]
    return np.array(early + [90 * (i + 1) for i in range(checkpoints - len(early))])


def make_run(
    path: Path,
    *,
    checkpoints: int = 5,
    layers: tuple[str, ...] = ("stem", "s1b3", "pooled"),
    sets: dict[str, int] = SETS,
    curves: tuple[str, ...] = CURVES,
    cube: tuple[str, ...] = CUBE,
    attributes: dict[str, Any] | None = None,
    split: bool = True,
) -> Run:
    samples = sum(sets.values())
    specs = [ArraySpec(name, (), (), "int64") for name in ("checkpoint", "step")]
    specs += [ArraySpec(name, (), (), "float64") for name in curves]
    specs += [
        ArraySpec(f"layers/{n}/activation", ("sample", "f0"), (samples, 2), "float16") for n in ("stem", "pooled")
    ]
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
        for _ in range(checkpoints):
            _commit(writer)
    return Run(path)


def extend(run: Run) -> Run:
    """Commit one more checkpoint."""
    with RunWriter.open(run.path) as writer:
        _commit(writer)
    return Run(run.path)


def _commit(writer: RunWriter) -> None:
    t = writer.checkpoints
    step = int(steps(t + 1)[-1])
    with writer.checkpoint() as checkpoint:
        for spec in writer.schema.arrays:
            if spec.sample_axis is None:
                checkpoint.write(spec.path, np.array(_curve(spec.path, t, step), spec.dtype))
                continue
            values = _values(spec, t, step)
            for block in range(writer.schema.blocks):
                rows = writer.schema.block_slice(block)
                part = values[:, rows] if spec.sample_axis else values[rows]
                checkpoint.write(spec.path, np.ascontiguousarray(part), block)


def _learnt(step: Any) -> Any:
    return 1 - np.exp(-step / 300)


def _curve(name: str, t: int, step: int) -> float:
    known = {
        "checkpoint": t,
        "step": step,
        "epoch": step / 90,
        "learning_rate": 0.1 / (1 + t),
        "train_loss": 2.3 * np.exp(-step / 150) if t else np.nan,
        "train_accuracy": 0.1 + 0.9 * _learnt(step) if t else np.nan,
        "test_loss": 2.3 * np.exp(-step / 200) + 0.05,
        "test_accuracy": 0.1 + 0.87 * _learnt(step),
    }
    return known.get(name, 0.5)


def _values(spec: ArraySpec, t: int, step: int) -> np.ndarray[Any, Any]:
    noise = np.random.default_rng([t, len(spec.path)]).lognormal(0, 0.2, spec.shape)
    depth = np.arange(1, spec.shape[0] + 1)[:, None]
    values = 10 / depth * (1 + _learnt(step) * depth) * noise
    if spec.path == "cube/gradient_norm":
        values = values * np.exp(-3 * _learnt(step)) / 50
    if spec.path == "cube/activation_cosine":
        values = np.minimum(1, 0.9 * noise) if t else np.full(spec.shape, np.nan)
    return values.astype(spec.dtype)


def add_consistency(
    run: Run,
    *,
    cuts: tuple[str, ...] = ("s1b3", "s2b3", "pooled"),
    differences: int = 0,
    missing: bool = False,
) -> Run:
    """Commit a consistency result of the form that the analysis gives; with cells of one set missing where asked."""
    coords, t = run.coords, run.checkpoints
    splits = coords["split"].values if "split" in coords else np.full(run.schema.samples, "probes", dtype=object)
    sets = list(dict.fromkeys(splits.tolist()))
    sizes = np.array([(splits == name).sum() for name in sets])
    step, learnt, index = coords["step"].values, _learnt(coords["step"].values), np.arange(t)
    apart = np.abs(np.log1p(step)[:, None] - np.log1p(step)) * np.where(index[:, None] > index, 1.4, 1.0)
    top = 0.87 * np.minimum(learnt[:, None] ** 0.5, learnt)
    depth = np.arange(len(cuts))[:, None, None, None]
    share = 0.1 + top * np.exp(-apart * (0.15 + 0.25 * depth)) - 0.05 * np.arange(len(sets))[:, None, None]
    n = sizes[:, None, None]
    accuracy = np.rint(np.clip(share, 0, 1) * n) / n
    low, high = wilson(accuracy, n)
    agreement = np.minimum(1, accuracy + np.rint(0.05 * n) / n)
    agreement[..., index, index] = 1
    macs = np.array([40_000_000 * (c + 1) // len(cuts) for c in range(len(cuts))])
    grid = ("cut", "set", "t1", "t2")
    result = xr.Dataset(
        {
            "accuracy": (grid, accuracy),
            "accuracy_low": (grid, low),
            "accuracy_high": (grid, high),
            "agreement": (grid, agreement),
            "agreement_prefix": (grid, agreement.swapaxes(2, 3)),
            "loss": (grid, 2.5 - 2.4 * accuracy),
            "plain_accuracy": (("set", "t1"), accuracy[0][:, index, index]),
            "diagonal_differences": ("cut", np.full(len(cuts), differences)),
            "prediction": (("cut", "t1", "t2", "probe"), np.zeros((len(cuts), t, t, run.schema.samples), np.uint8)),
        },
        coords={
            "cut": np.array(cuts, dtype=object),
            "set": np.array(sets, dtype=object),
            "t1": index,
            "t2": index,
            "step1": ("t1", step),
            "step2": ("t2", step),
            "probe": coords["sample"].values,
            "set_size": ("set", sizes),
            "prefix_macs": ("cut", macs),
            "suffix_macs": ("cut", 40_550_000 - macs),
            "source": ("cut", np.array(["stored"] * len(cuts), dtype=object)),
        },
        attrs={
            "batchnorm": "buffers travel with their layers",
            "options": {"cuts": ["default"], "features": "auto"},
            "input_commit": run.commits[-1].number,
            "provenance": {"created": "2026-01-02T03:04:05Z", "versions": {"torch": "2.11"}},
        },
    )
    if missing:
        status = Status(grid, accuracy.shape)
        status.mark(ONE_CLASS, (0, 0))
        for name in ("accuracy", "accuracy_low", "accuracy_high"):
            result[name] = result[name].where(xr.DataArray(status.computed, dims=grid))
            result[name].attrs["ancillary_variables"] = "status"
        result["status"] = status.variable()
    with RunWriter.open(run.path) as writer:
        writer.result("consistency", result)
    return Run(run.path)
