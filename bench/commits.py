"""What a commit takes early in a run and late: ``python -m bench.commits --json FILE``.

A run of fifty small layers, in a folder, one of few checkpoints and one of many. Their commits alternate, so that both
see the same machine; of each the median is told, of the process's own time (which other processes do not change), of
the whole, and how many files were written and synced, and bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr

from bench import harness
from featdyn.store import ArraySpec, RunWriter, Schema
from featdyn.store import root as roots
from featdyn.store.files import Folder
from featdyn.store.gathered import Gatherer

LAYERS, SAMPLES, WIDTH = 50, 16, 16


def schema() -> Schema:
    """Return what is recorded: scalars, fifty activations, a cube."""
    specs = [ArraySpec(name, (), (), "float64") for name in ("checkpoint", "step", "epoch", "train_loss")]
    specs += [
        ArraySpec(f"layers/l{i}/activation", ("sample", "feature"), (SAMPLES, WIDTH), "float16") for i in range(LAYERS)
    ]
    specs += [ArraySpec(f"cube/{n}", ("layer", "sample"), (LAYERS, SAMPLES), "float32") for n in ("norm", "mean")]
    return Schema.build(specs, SAMPLES)


def commit(writer: RunWriter, rng: np.random.Generator) -> None:
    """Commit one more checkpoint of random numbers, which do not compress."""
    with writer.checkpoint() as checkpoint:
        for spec in writer.schema.arrays:
            checkpoint.write(spec.path, rng.standard_normal(spec.shape).astype(spec.dtype)[...])
        checkpoint.put(f"checkpoints/{checkpoint.index:06d}/model.safetensors", [bytes(20_000)])


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count files written and bytes."""
    seen, swap, plain = [0, 0], Folder._swap, Folder.write

    def count(size: int) -> None:
        seen[0] += 1
        seen[1] += size

    def swapped(self: Folder, path: str, content: bytes, **options: Any) -> Path:
        count(len(content))
        return swap(self, path, content, **options)

    def written(self: Folder, path: str, pieces: Any) -> Any:
        done = plain(self, path, pieces)
        count(done.size)
        return done

    with mock.patch.object(Folder, "_swap", swapped), mock.patch.object(Folder, "write", written):
        yield seen


@contextmanager
def unwritten() -> Iterator[None]:
    """Sync nothing, and write no chunk and no copy that the next commit writes anew: not to wait for long runs."""
    with (
        mock.patch.object(os, "fsync", return_value=None),
        mock.patch.object(Gatherer, "write", return_value=None),
        mock.patch.object(roots, "repeat", return_value=None),
    ):
        yield


def costs(call: Callable[[], None]) -> dict[str, float]:
    """Return what one call takes."""
    synced, fsync = [0], os.fsync

    def sync(descriptor: int) -> None:
        synced[0] += 1
        fsync(descriptor)

    with counted() as seen, mock.patch.object(os, "fsync", sync):
        start, own = time.perf_counter(), time.process_time()
        call()
        own, whole = time.process_time() - own, time.perf_counter() - start
    return {"cpu ms": 1e3 * own, "ms": 1e3 * whole, "files": seen[0], "fsyncs": synced[0], "bytes": seen[1]}


def measure(checkpoints: list[int], repeats: int) -> list[dict[str, Any]]:
    """Return a row for each number of checkpoints: medians over so many commits from there on."""
    folder, rng = Path(tempfile.mkdtemp(prefix="featdyn-bench-")), np.random.default_rng(0)
    static = {"": xr.Dataset(coords={"sample": np.arange(SAMPLES)})}
    writers = {}
    try:
        for count in checkpoints:
            writers[count] = RunWriter.create(folder / f"{count}.zarr", schema(), static=static, attributes={})
            commit(writers[count], rng)
            with unwritten():
                for _ in range(count - 1):
                    commit(writers[count], rng)
        found: dict[int, list[dict[str, float]]] = {count: [] for count in checkpoints}
        for _ in range(repeats):
            for count, writer in writers.items():
                found[count].append(costs(lambda writer=writer: commit(writer, rng)))
        return [
            {"checkpoint": count, **{name: statistics.median(row[name] for row in rows) for name in rows[0]}}
            for count, rows in found.items()
        ]
    finally:
        for writer in writers.values():
            writer.close()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.commits", description=__doc__)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[2, 200, 2000])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", metavar="FILE", help="also write the table and the environment here")
    options = parser.parse_args()
    rows = measure(options.checkpoints, options.repeats)
    print("".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:>14.5g}" for value in row.values()))
    if options.json:
        document = {"environment": harness.environment("cpu"), "results": rows}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
