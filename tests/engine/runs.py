"""Small stores, written directly: no training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from featdyn.errors import StoreError
from featdyn.store import ArraySpec, Run, RunWriter, Schema, datasets

CHECKPOINTS, SAMPLES, LAYERS = 4, 11, ("stem", "s1.b1", "s3b1")
SPLITS = ("train", "test", "corrupted")


def write_run(path: Path, codec: str = "none", checkpoints: int = CHECKPOINTS) -> Run:
    """Write a run of three layers (one with a dot in its name) and 11 samples in shards of 4, with one result."""
    rng = np.random.default_rng(7)
    scaled = {"scale_factor": 1 / 4096}
    arrays = [
        ArraySpec("checkpoint", (), (), "int64"),
        ArraySpec("step", (), (), "int64"),
        ArraySpec("epoch", (), (), "float64"),
        ArraySpec("train_loss", (), (), "float64"),
        ArraySpec("outputs/loss", ("sample",), (SAMPLES,), "float32"),
        ArraySpec("cube/activation_norm", ("layer", "sample"), (len(LAYERS), SAMPLES), "float32"),
        ArraySpec("cube/activation_cosine", ("layer", "sample"), (len(LAYERS), SAMPLES), "float32"),
    ]
    for name in LAYERS:
        shape = (SAMPLES, 3, 2)
        arrays.append(ArraySpec(f"layers/{name}/activation", ("sample", "channel", "width"), shape, "float16"))
        arrays.append(ArraySpec(f"layers/{name}/gradient", ("sample", "channel", "width"), shape, "float16", scaled))
    schema = Schema(tuple(arrays), SAMPLES, 4, codec)  # type: ignore[arg-type]
    number = np.arange(SAMPLES)
    coords = {
        "sample": np.array([f"digits/{i:03d}" for i in number], dtype=object),
        "split": ("sample", np.array([SPLITS[i % 3] for i in number], dtype=object)),
        "label": ("sample", number % 4),
        "corruption": ("sample", np.array(["", "", "fog"], dtype=object)[number % 3]),
        "severity": ("sample", (number % 3 == 2).astype(np.int8) * 3),
    }
    static = {
        "": xr.Dataset(coords=coords),
        "cube": xr.Dataset(coords={"layer": np.array(LAYERS, dtype=object)}),
    }
    with RunWriter.create(path, schema, static=static, attributes={"recipe": {"name": "test"}}) as writer:
        for t in range(checkpoints):
            with writer.checkpoint() as checkpoint:
                values = {"checkpoint": t, "step": 10 * t * t, "epoch": t / 2, "train_loss": 1 / t if t else np.nan}
                for spec in schema.arrays:
                    if spec.sample_axis is None:
                        checkpoint.write(spec.path, np.array(values[spec.path], spec.dtype))
                        continue
                    whole = rng.standard_normal(spec.shape).astype(spec.dtype)
                    if spec.path == "cube/activation_cosine":
                        whole[rng.random(spec.shape) < (1.0 if t == 0 else 0.2)] = np.nan
                    for block in range(schema.blocks):
                        index = (slice(None),) * spec.sample_axis + (schema.block_slice(block),)
                        checkpoint.write(spec.path, whole[index], block)
                checkpoint.put(f"checkpoints/{t:06d}/model.safetensors", [b"weights %d" % t])
        writer.result("consistency", result_dataset(0.0))
        writer.result("consistency", result_dataset(1.0))
    return Run(path)


def result_dataset(offset: float) -> xr.Dataset:
    """Return what an analysis may return: axes with and without coordinates, text, and numbers along an axis."""
    cuts, sets = np.array(["s1", "s2"], dtype=object), np.array(["train", "test"], dtype=object)
    accuracy = offset + np.arange(36, dtype=np.float64).reshape(2, 2, 3, 3)
    prediction = np.arange(2 * 3 * 3 * 5, dtype=np.uint8).reshape(2, 3, 3, 5)
    return xr.Dataset(
        {
            "accuracy": (("cut", "set", "t1", "t2"), accuracy),
            "prediction": (("cut", "t1", "t2", "probe"), prediction),
            "right": (("cut", "probe"), prediction[:, 0, 0] % 2 == 0),
            "wrong": ("cut", np.array([3, 4])),
        },
        coords={
            "cut": cuts,
            "set": sets,
            "t1": np.arange(3),
            "t2": np.arange(3),
            "step1": ("t1", [0, 10, 40]),
            "step2": ("t2", [0, 10, 40]),
            "source": ("cut", np.array(["stored", "recomputed"], dtype=object)),
        },
        attrs={"note": "test"},
    )


def tree(path: Path) -> dict[str, bytes | None]:
    """Return all that lies below a folder."""
    return {p.relative_to(path).as_posix(): None if p.is_dir() else p.read_bytes() for p in path.rglob("*")}


def refused(call: Callable[[], Any], message: str) -> None:
    """Check that a call is refused in one line."""
    with pytest.raises(StoreError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def encode_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let zarr encode the dataset of a path once, for tests that write hundreds of equal runs."""
    encode, known = datasets.encode, {}

    def encoded(dataset: xr.Dataset, path: str) -> Any:
        if path not in known:
            known[path] = encode(dataset, path)
        return known[path]

    monkeypatch.setattr(datasets, "encode", encoded)
