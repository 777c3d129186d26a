"""Questions to a store of millions of values, each by a process of its own: ``python -m bench.cold --json FILE``.

Start-up included: `query` and `sql`, beside DuckDB over the same numbers in Parquet and xarray with flox on the store.
Files are warm in the page cache. Answers are compared; contenders take turns, and medians of clock and CPU are given.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from bench import harness
from featdyn.store import ArraySpec, RunWriter, Schema

LABELS = 10
DUCKDB = """import duckdb, sys
c = duckdb.connect()
c.execute("create view cube as select * from '" + sys.argv[1] + "'")
print(c.execute(sys.argv[2]).df().to_csv(index=False), end='')"""
FLOX = """import sys, xarray as xr, flox.xarray
tree = xr.open_datatree(sys.argv[1], engine='zarr', chunks=None)
norm, label = tree['cube/activation_norm'], tree['label']
{question}
print(found.to_dataframe(name='norm').to_csv(), end='')"""
QUESTIONS: dict[str, dict[str, Any]] = {
    "mean by label and layer, one checkpoint": {
        "query": ["--where", "checkpoint=-1", "--by", "label,layer"],
        "sql": "select layer, label, avg(activation_norm) as norm from cube where checkpoint = {last} "
        "group by layer, label order by layer, label",
        "flox": "found = flox.xarray.xarray_reduce(norm.isel(checkpoint=-1).load(), label.load(), func='mean')",
    },
    "ten largest of a layer, last three checkpoints": {
        "query": ["--where", "checkpoint=-3..", "--where", "layer=l03", "--top", "10"],
        "sql": "select checkpoint, sample, activation_norm as norm from cube where checkpoint > {last} - 3 and "
        "layer = 'l03' order by norm desc limit 10",
        "flox": "found = norm.isel(checkpoint=slice(-3, None), layer=3).load().to_series().nlargest(10).to_xarray()",
    },
    "mean by checkpoint and layer, all": {
        "query": ["--reduce", "mean:sample"],
        "sql": "select checkpoint, layer, avg(activation_norm) as norm from cube group by checkpoint, layer "
        "order by checkpoint, layer",
        "flox": "found = norm.mean('sample').compute()",
    },
}


def write(folder: Path, checkpoints: int, layers: int, samples: int) -> None:
    """Write the store, and the same numbers as one Parquet file, a row group a checkpoint."""
    specs = [
        ArraySpec("checkpoint", (), (), "int64"),
        ArraySpec("cube/activation_norm", ("layer", "sample"), (layers, samples), "float32"),
        ArraySpec("outputs/loss", ("sample",), (samples,), "float32"),
    ]
    schema = Schema.build(specs, samples)
    names = np.array([f"l{i:02d}" for i in range(layers)], dtype=object)
    ids = np.array([f"probe/{i:06d}" for i in range(samples)], dtype=object)
    label = np.arange(samples) % LABELS
    split = np.where(np.arange(samples) < samples // 2, "train", "test").astype(object)
    coords = {"sample": ids, "label": ("sample", label), "split": ("sample", split)}
    static = {"": xr.Dataset(coords=coords), "cube": xr.Dataset(coords={"layer": names})}
    rng, file = np.random.default_rng(0), None
    fixed = {
        "layer": pa.array(np.repeat(names, samples)).dictionary_encode(),
        "sample": pa.array(np.tile(ids, layers)).dictionary_encode(),
        "label": pa.array(np.tile(label, layers)),
    }
    with RunWriter.create(folder / "run.zarr", schema, static=static, attributes={}) as writer:
        for t in range(checkpoints):
            values = rng.exponential(1, (layers, samples)).astype(np.float32)
            with writer.checkpoint() as checkpoint:
                checkpoint.write("checkpoint", np.array(t))
                for block in range(schema.blocks):
                    rows = schema.block_slice(block)
                    checkpoint.write("cube/activation_norm", np.ascontiguousarray(values[:, rows]), block)
                    checkpoint.write("outputs/loss", values[0, rows], block)
            rows_of_t = pa.table(
                {"checkpoint": np.full(values.size, t), **fixed, "activation_norm": values.reshape(-1)}
            )
            file = file or pq.ParquetWriter(folder / "cube.parquet", rows_of_t.schema)
            file.write_table(rows_of_t)
    assert file is not None
    file.close()


def commands(folder: Path, question: dict[str, Any], checkpoints: int) -> dict[str, list[str]]:
    """Return the command of each contender."""
    featdyn = [sys.executable, "-c", "from featdyn.cli import main; main()"]
    store, statement = str(folder / "run.zarr"), question["sql"].format(last=checkpoints - 1)
    flox = FLOX.format(question=question["flox"])
    return {
        "query": [*featdyn, "query", store, "cube.activation_norm", *question["query"], "--format", "csv"],
        "sql": [*featdyn, "sql", store, statement, "--format", "csv"],
        "DuckDB over Parquet": [sys.executable, "-c", DUCKDB, str(folder / "cube.parquet"), statement],
        "xarray and flox": [sys.executable, "-c", flox, store],
    }


def answer(command: list[str]) -> tuple[list[float], float, float]:
    """Run a command; return its last column, sorted, and its seconds by the clock and of CPU."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return sorted(float(line.rpartition(",")[2]) for line in out.splitlines()[1:]), clock, cpu


def measure(checkpoints: int, layers: int, samples: int, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each question and contender."""
    folder = Path(tempfile.mkdtemp(prefix="featdyn-bench-"))
    rows = []
    try:
        write(folder, checkpoints, layers, samples)
        for name, question in QUESTIONS.items():
            taken: dict[str, list[tuple[float, float]]] = {}
            for _ in range(repeats):
                expected: list[float] | None = None
                for who, command in commands(folder, question, checkpoints).items():
                    found, clock, cpu = answer(command)
                    expected = expected or found
                    np.testing.assert_allclose(found, expected, rtol=1e-4)
                    taken.setdefault(who, []).append((clock, cpu))
            for who, times in taken.items():
                clock, cpu = np.median(times, axis=0)
                rows.append({"question": name, "contender": who, "seconds": round(clock, 2), "cpu": round(cpu, 2)})
                print(f"{name}: {who} {clock:.2f} s, {cpu:.2f} s of CPU", flush=True)
    finally:
        shutil.rmtree(folder)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True)
    parser.add_argument("--size", type=int, nargs=3, default=(200, 20, 10_000), metavar=("T", "LAYERS", "SAMPLES"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    before = os.getloadavg()
    rows = measure(*options.size, options.repeats)
    load = {"before": before, "after": os.getloadavg()}
    about = {"environment": harness.environment("cpu"), "size": list(options.size), "load": load}
    Path(options.json).write_text(json.dumps(harness.plain({**about, "rows": rows}), indent=1) + "\n")


if __name__ == "__main__":
    main()
