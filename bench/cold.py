"""Questions to a store of millions of values, each by a process: ``python -m bench.cold FOLDER --json FILE``.

Start-up included: `query` and `sql`, beside DuckDB over the same numbers in Parquet and xarray with flox on the store.
Files are warm in the page cache. Answers are compared; contenders take turns, and medians of clock and CPU are given.
How many blocks of the store a question reads is counted, beside how many hold what it asks for. FOLDER keeps the data
and what was measured: the same command goes on where it was stopped. What is not installed is left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from bench import harness
from featdyn.query import ask
from featdyn.query.sql import sql
from featdyn.store import ArraySpec, Run, RunWriter, Schema

LABELS = 10
DUCKDB = """import duckdb, sys
c = duckdb.connect()
c.execute("set enable_progress_bar = false")
c.execute("create view cube as select * from '" + sys.argv[1] + "'")
print(c.execute(sys.argv[2]).df().to_csv(index=False), end='')"""
FLOX = """import sys, xarray as xr, flox.xarray
tree = xr.open_datatree(sys.argv[1], engine='zarr', chunks=None)
norm, label = tree['cube/activation_norm'], tree['label']
{question}
print(found.to_csv(), end='')"""
ASKED = "cube.activation_norm"
QUESTIONS: dict[str, dict[str, Any]] = {
    "mean by label and layer, one checkpoint": {
        "checkpoints": 1,
        "query": {"where": ["checkpoint=-1"], "by": ["label,layer"]},
        "sql": "select layer, label, avg(activation_norm) as norm from cube where checkpoint = {last} "
        "group by layer, label order by layer, label",
        "flox": "found = flox.xarray.xarray_reduce(norm.isel(checkpoint=-1).load(), label.load(), func='mean')\n"
        "found = found.to_series()",
    },
    "ten largest of a layer, last three checkpoints": {
        "checkpoints": 3,
        "query": {"where": ["checkpoint=-3..", "layer=l03"], "top": 10},
        "sql": "select checkpoint, sample, activation_norm as norm from cube where checkpoint > {last} - 3 and "
        "layer = 'l03' order by norm desc limit 10",
        "flox": "found = norm.isel(checkpoint=slice(-3, None), layer=3).load().to_series().nlargest(10)",
    },
    "mean by checkpoint and layer, all": {
        "checkpoints": None,
        "query": {"reduce": ["mean:sample"]},
        "sql": "select checkpoint, layer, avg(activation_norm) as norm from cube group by checkpoint, layer "
        "order by checkpoint, layer",
        "flox": "found = norm.mean('sample').to_series()",
    },
}


def write(folder: Path, checkpoints: int, layers: int, samples: int) -> None:
    """Write the store, and the same numbers as one Parquet file, a row group a checkpoint, unless both are there."""
    if (folder / "cube.parquet").exists():
        return
    shutil.rmtree(folder / "run.zarr", ignore_errors=True)  # of a write that was stopped
    folder.mkdir(parents=True, exist_ok=True)
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
            file = file or pq.ParquetWriter(folder / "cube.part", rows_of_t.schema)
            file.write_table(rows_of_t)
    assert file is not None
    file.close()
    (folder / "cube.part").rename(folder / "cube.parquet")


def commands(folder: Path, question: dict[str, Any], checkpoints: int) -> dict[str, list[str]]:
    """Return the command of each contender that is installed."""
    featdyn = [sys.executable, "-m", "featdyn"]
    store, statement = str(folder / "run.zarr"), question["sql"].format(last=checkpoints - 1)
    flags = [word for name, values in question["query"].items() for value in _several(values)
             for word in (f"--{name}", str(value))]  # fmt: skip
    found = {"query": [*featdyn, "query", store, ASKED, *flags, "--format", "csv"]}
    if find_spec("duckdb"):
        found["sql"] = [*featdyn, "sql", store, statement, "--format", "csv"]
        found["DuckDB over Parquet"] = [sys.executable, "-c", DUCKDB, str(folder / "cube.parquet"), statement]
    if find_spec("flox"):
        found["xarray and flox"] = [sys.executable, "-c", FLOX.format(question=question["flox"]), store]
    return found


def _several(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def answer(command: list[str]) -> tuple[list[float], float, float]:
    """Run a command; return its last column, sorted, and its seconds by the clock and of CPU."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return sorted(float(line.rpartition(",")[2]) for line in out.splitlines()[1:]), clock, cpu


class Counting(Run):
    """A run that counts the blocks which are read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: set[tuple[str, int, int]] = set()

    def block(self, path: str, checkpoint: int, block: int, **options: Any) -> Any:
        """Count, and read."""
        self.read.add((path, checkpoint, block))
        return super().block(path, checkpoint, block, **options)


def blocks(folder: Path, question: dict[str, Any], size: tuple[int, int, int]) -> dict[str, dict[str, int]]:
    """Return for query and SQL how many blocks are needed, read, read beyond need, and there."""
    checkpoints, counted = size[0], {}
    for who in ("query", "sql") if find_spec("duckdb") else ("query",):
        run = Counting(folder / "run.zarr")
        if who == "query":
            ask(run, ASKED, **question["query"]).frame()
        else:
            sql(run, question["sql"].format(last=checkpoints - 1))
        of_one = run.schema.blocks
        needed = {("cube/activation_norm", t, b) for t in range(checkpoints - (question["checkpoints"] or checkpoints),
                  checkpoints) for b in range(of_one)}  # fmt: skip
        large = {read for read in run.read if "/" in read[0]}  # not the numbers of the checkpoints
        counted[who] = {"needed": len(needed), "read": len(large), "beyond": len(large - needed),
                        "all": checkpoints * of_one}  # fmt: skip
    return counted


def measure(folder: Path, size: tuple[int, int, int], repeats: int) -> list[dict[str, Any]]:
    """Return a row for each question and contender; every answer is kept in the folder once it was timed."""
    write(folder, *size)
    kept = folder / "times.json"
    times: dict[str, list[tuple[float, float]]] = json.loads(kept.read_text()) if kept.exists() else {}
    rows = []
    for name, question in QUESTIONS.items():
        contenders = commands(folder, question, size[0])
        expected: list[float] | None = None
        for number in range(repeats):
            for who, command in contenders.items():
                taken = times.setdefault(f"{name} | {who}", [])
                if len(taken) > number:
                    continue
                found, clock, cpu = answer(command)
                expected = answer(contenders["query"])[0] if expected is None and who != "query" else expected or found
                np.testing.assert_allclose(found, expected, rtol=1e-4)
                taken.append((clock, cpu))
                kept.write_text(json.dumps(times))
        touched = blocks(folder, question, size)
        for who in contenders:
            clock, cpu = np.median(times[f"{name} | {who}"][:repeats], axis=0)
            row = {"question": name, "contender": who, "seconds": round(clock, 2), "cpu": round(cpu, 2)}
            rows.append(row | ({"blocks": touched[who]} if who in touched else {}))
            said = (
                "{read} blocks read of {needed} needed and {all} there".format(**touched[who]) if who in touched else ""
            )
            print(f"{name}: {who} {clock:.2f} s, {cpu:.2f} s of CPU {said}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", required=True)
    parser.add_argument("--size", type=int, nargs=3, default=(200, 20, 10_000), metavar=("T", "LAYERS", "SAMPLES"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    missing = [name for name in ("duckdb", "flox") if not find_spec(name)]
    if missing:
        print(f"left out, not installed: {', '.join(missing)}")
    before = os.getloadavg()
    rows = measure(options.folder / "x".join(map(str, options.size)), tuple(options.size), options.repeats)
    load = {"before": before, "after": os.getloadavg()}
    about = {"environment": harness.environment("cpu"), "size": list(options.size), "load": load}
    Path(options.json).write_text(json.dumps(harness.plain({**about, "rows": rows}), indent=1) + "\n")


if __name__ == "__main__":
    main()
