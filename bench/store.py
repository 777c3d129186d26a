"""One checkpoint into the store, beside the same bytes written plainly and through zarr.

Ours is durable: every file is synced before the commit. Of the peers only the first is.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from bench.harness import Case, sized
from featdyn.store import ArraySpec, Run, RunWriter, Schema

SHAPES = {"s1b3": (16, 32, 32), "s2b3": (32, 16, 16), "pooled": (64,)}  # resnet20's default cuts


def cases(device: str) -> Iterator[Case]:
    if device != "cpu":
        return
    rng, samples = np.random.default_rng(0), sized(1024, 5)
    data = {n: np.maximum(rng.standard_normal((samples, *s)), 0).astype("float16") for n, s in SHAPES.items()}
    total = sum(a.nbytes for a in data.values())
    for codec in ("none", "zstd"):
        folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
        try:
            yield _case(folder, data, codec, total)
        finally:
            shutil.rmtree(folder)


def _case(folder: Path, data: dict[str, np.ndarray], codec: str, total: int) -> Case:
    specs = [ArraySpec("checkpoint", (), (), "int64")]
    specs += [
        ArraySpec(f"layers/{n}/activation", ("sample", *"xyz"[: a.ndim - 1]), a.shape, "float16")
        for n, a in data.items()
    ]
    samples = len(next(iter(data.values())))
    schema = Schema.build(specs, samples, codec)
    sample = {"": xr.Dataset(coords={"sample": np.arange(samples)})}
    writer = RunWriter.create(folder / "ours.zarr", schema, static=sample, attributes={})
    count = itertools.count()

    def ours() -> tuple[str, int]:
        with writer.checkpoint() as checkpoint:
            checkpoint.write("checkpoint", np.array(checkpoint.index))
            for name, values in data.items():
                for block in range(schema.blocks):
                    checkpoint.write(f"layers/{name}/activation", values[schema.block_slice(block)], block)
        return "ours", checkpoint.index

    def plain(sync: bool) -> tuple[str, int]:
        t = next(count)
        for name, values in data.items():
            with open(folder / f"{name}.{t}", "wb") as file:
                file.write(values.tobytes())
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        return "plain", t

    arrays: dict[str, dict[str, zarr.Array]] = {}

    def through_zarr(pipeline: str) -> tuple[str, int]:
        t = next(count)
        with zarr.config.set({"codec_pipeline.path": pipeline}):
            if pipeline not in arrays:
                arrays[pipeline] = {
                    n: _create(folder / pipeline.split(".")[0] / n, a, schema, specs, codec) for n, a in data.items()
                }
            for name, values in data.items():
                arrays[pipeline][name][t] = values
        return pipeline, t

    def check(result: tuple[str, int]) -> None:
        kind, t = result
        for name, values in data.items():
            if kind == "ours":
                run = Run(folder / "ours.zarr")
                parts = [run.block(f"layers/{name}/activation", t, b) for b in range(schema.blocks)]
                found = np.concatenate(parts)
            elif kind == "plain":
                found = np.fromfile(folder / f"{name}.{t}", "float16").reshape(values.shape)
            else:
                found = arrays[kind][name][t]
            assert np.array_equal(found, values), kind

    python, rust = "zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"
    peers = {
        "plain files, synced": lambda: plain(True),
        "plain files": lambda: plain(False),
        "zarr-python, sharded": lambda: through_zarr(python),
        "zarr-python with zarrs, sharded": lambda: through_zarr(rust),
    }
    name = f"checkpoint of {total / 2**20:.0f} MiB float16, codec {codec}"
    # What a contender leaves unwritten would be written while the next one is timed.
    return Case(name, ours, peers, check, ceiling="copy", amount=2 * total, repeats=9, prepare=os.sync)


def _create(path: Path, values: np.ndarray, schema: Schema, specs: list[ArraySpec], codec: str) -> zarr.Array:
    spec = next(s for s in specs if s.shape == values.shape)
    tail = values.shape[1:]
    return zarr.create_array(
        path,
        shape=(1000, *values.shape),
        shards=(1, schema.shard_samples, *tail),
        chunks=(1, schema.chunk_samples(spec), *tail),
        dtype="float16",
        compressors=None if codec == "none" else zarr.codecs.ZstdCodec(level=1),
    )
