"""Write the fixture of the current format: run once, when a format is released, and never again for that format.

``python -m tests.engine.formats.make`` writes ``format-<n>.zip``, one small store for each codec, and
``format-<n>.json``, every number in them as it was given to the writer. The tests only read both.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors.torch import save

from featdyn.store import ArraySpec, RunWriter, Schema
from featdyn.store.root import FORMAT

HERE = Path(__file__).parent
SAMPLES, CHECKPOINTS, LAYERS = 5, 2, ("stem", "fc.1")


def main() -> None:
    """Write both files."""
    recorded, archive = {}, HERE / f"format-{FORMAT}.zip"
    with TemporaryDirectory() as folder, zipfile.ZipFile(archive, "x", zipfile.ZIP_DEFLATED) as out:
        for codec in ("none", "zstd"):
            path = Path(folder, f"{codec}.zarr")
            recorded[codec] = write(path, codec)
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                out.write(file, file.relative_to(folder))
    (HERE / f"format-{FORMAT}.json").write_text(json.dumps(recorded, indent=1))


def write(path: Path, codec: Any) -> dict[str, Any]:
    """Write one store; return its arrays and tensors as JSON."""
    rng = np.random.default_rng([20, len(codec)])
    specs = [
        ArraySpec("checkpoint", (), (), "int64"),
        ArraySpec("step", (), (), "int64"),
        ArraySpec("train_loss", (), (), "float64"),
        ArraySpec("outputs/loss", ("sample",), (SAMPLES,), "float32"),
        ArraySpec("cube/activation_norm", ("layer", "sample"), (len(LAYERS), SAMPLES), "float32"),
    ]
    for name in LAYERS:
        dims, shape = ("sample", "channel", "width"), (SAMPLES, 2, 3)
        specs.append(ArraySpec(f"layers/{name}/activation", dims, shape, "float16"))
        specs.append(ArraySpec(f"layers/{name}/gradient", dims, shape, "float16", {"scale_factor": 1 / 4096}))
    schema = Schema(tuple(specs), SAMPLES, 2, codec).gathered()
    alone = tuple(replace(s, span=1) if "fc.1" in s.path else s for s in schema.arrays)  # as a large layer would be
    schema = replace(schema, arrays=alone)
    coords = {
        "sample": np.array([f"digits/{i}å" for i in range(SAMPLES)], dtype=object),
        "split": ("sample", np.array(["train", "test"], dtype=object)[np.arange(SAMPLES) % 2]),
        "label": ("sample", np.arange(SAMPLES) % 3),
    }
    static = {
        "": xr.Dataset(coords=coords),
        "cube": xr.Dataset(coords={"layer": np.array(LAYERS, dtype=object)}),
        "inputs": xr.Dataset({"input": (("probe", "pixel"), rng.standard_normal((SAMPLES, 4)).astype(np.float32))}),
    }
    found = {p: [d.values] for dataset in static.values() for p, d in dataset.variables.items()}
    found = {"cube/layer": found.pop("layer"), "inputs/input": found.pop("input"), **found}
    tensors: dict[str, Any] = {}
    with RunWriter.create(path, schema, static=static, attributes={"recipe": {"name": "fixture"}}) as writer:
        for t in range(CHECKPOINTS):
            with writer.checkpoint() as checkpoint:
                for spec in schema.arrays:
                    values = 100 * rng.standard_normal(spec.shape)
                    values = np.asarray({"checkpoint": t, "step": 7 * t}.get(spec.path, values)).astype(spec.dtype)
                    if spec.path == "train_loss" and not t:
                        values = np.asarray(np.nan)
                    found.setdefault(spec.path, []).append(values)
                    for block in range(schema.blocks if spec.sample_axis is not None else 1):
                        index = (slice(None),) * (spec.sample_axis or 0)
                        index += (schema.block_slice(block),) if spec.sample_axis is not None else ()
                        checkpoint.write(spec.path, values[index], block)
                weights = {"fc.weight": torch.arange(4.0) + t, "fc.bias": torch.full((2,), 0.1).bfloat16()}
                tensors[str(t)] = {name: tensor.tolist() for name, tensor in weights.items()}
                checkpoint.put(f"checkpoints/{t:06d}/model.safetensors", [save(weights)])
        result = xr.Dataset(
            {"accuracy": (("cut", "t1"), rng.random((2, CHECKPOINTS)))},
            coords={"cut": np.array(["s1", "fc.1"], dtype=object)},
            attrs={"options": {"cuts": ["all"]}, "input_commit": CHECKPOINTS},
        )
        where = writer.result("consistency", result)
    found |= {f"{where}/{name}": [v.values] for name, v in result.variables.items()}
    growing = {spec.path for spec in schema.arrays}
    arrays = {p: _array(np.stack(v) if p in growing else v[0]) for p, v in sorted(found.items())}
    return {"arrays": arrays, "tensors": tensors, "results": [where]}


def _array(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    if values.dtype == object:
        return {"dtype": "string", "shape": values.shape, "values": values.tolist()}
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {"dtype": values.dtype.name, "shape": values.shape, "hex": little.tobytes().hex()}


if __name__ == "__main__":
    main()
