"""Readers that know nothing of featdyn give the numbers that were written: zarr-python, zarrs, zarrita.js, DuckDB.

The stores are those of the released formats, whose numbers lie beside them. What is not installed is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest

from featdyn.query import query, render
from featdyn.store import Run
from tests.engine.small_run import norm, record
from tests.engine.test_store_formats import FORMATS, HERE, numbers

CODECS = ("none", "zstd")
# Growing arrays, gathered and alone, static ones, a result; numbers only.
SCRIPT = """
const [, , library, storage, path] = process.argv;
const zarr = await import(library);
const { default: FileSystemStore } = await import(storage);
const root = zarr.root(new FileSystemStore(path));
const found = {};
for (const [name, dtype] of Object.entries(JSON.parse(process.env.ARRAYS))) {
  if (dtype === "float16" && typeof Float16Array === "undefined") continue; // before Node 24
  const array = await zarr.open.v3(root.resolve("/" + name), { kind: "array" });
  const { data, shape } = await zarr.get(array);
  found[name] = { shape, values: Array.from(data, (v) => (Number.isNaN(Number(v)) ? null : Number(v))) };
}
console.log(JSON.stringify(found));
"""


@pytest.fixture(params=[(number, codec) for number in (*FORMATS, 0) for codec in CODECS[: number + 1]], ids=str)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray[Any, Any]]]:
    """A store, and its numbers as its writer was given them: of a released format, or 0, a sample run of float32."""
    number, codec = request.param
    if not number:
        record(tmp_path / "run.zarr", "ccc")
        whole = np.array([[[t, row] for row in range(3)] for t in range(3)], np.float32)
        held = {"layers/a/activation": whole, "norm": np.array([[norm(t, row) for row in range(3)] for t in range(3)])}
        return tmp_path / "run.zarr", held
    with zipfile.ZipFile(HERE / f"format-{number}.zip") as archive:
        archive.extractall(tmp_path)
    arrays = json.loads((HERE / f"format-{number}.json").read_text())[codec]["arrays"]
    held = {name: numbers(about) for name, about in arrays.items() if about["dtype"] != "string"}
    return tmp_path / f"{codec}.zarr", held


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("codecs", ["zarr", "zarrs"])
def test_zarr(stored: tuple[Path, dict[str, np.ndarray[Any, Any]]], codecs: str, consolidated: bool) -> None:
    """zarr-python with its own codecs, and with those of zarrs, which is Rust; by the root, and array by array."""
    pytest.importorskip(codecs)
    import zarr

    path, held = stored
    pipeline = {"zarr": zarr.config.get("codec_pipeline.path"), "zarrs": "zarrs.ZarrsCodecPipeline"}[codecs]
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=consolidated)
        for name, expected in held.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            assert type(array._async_array.codec_pipeline).__module__.partition(".")[0] == codecs
            np.testing.assert_array_equal(np.asarray(array[...]), expected)


def node_package(name: str) -> Path | None:
    """Return where npm has put a package, as NODE_PATH or npm's own folder says."""
    if which("node") is None:
        return None
    folders = os.environ.get("NODE_PATH", "/usr/local/lib/node_modules:/usr/lib/node_modules").split(os.pathsep)
    return next((found for folder in folders if (found := Path(folder, name)).is_dir()), None)


def test_zarrita(stored: tuple[Path, dict[str, np.ndarray[Any, Any]]], tmp_path: Path) -> None:
    """zarrita.js, which reads each array by its own document."""
    package = node_package("zarrita")
    if package is None:
        pytest.skip("no zarrita.js: npm install zarrita, and NODE_PATH")
    path, held = stored
    script = tmp_path / "read.mjs"
    script.write_text(SCRIPT)
    places = [package / "dist/src/index.js", package.parent / "@zarrita/storage/dist/src/fs.js"]
    dtypes = {name: values.dtype.name for name, values in held.items()}
    done = subprocess.run(
        ["node", str(script), *map(str, places), str(path)],
        capture_output=True, text=True, check=False, env={**os.environ, "ARRAYS": json.dumps(dtypes)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, about in json.loads(done.stdout).items():
        expected = held[name].astype(np.float64)
        values = np.array([np.nan if v is None else v for v in about["values"]], np.float64).reshape(about["shape"])
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("number", FORMATS)
def test_duckdb(tmp_path: Path, number: int, codec: str) -> None:
    """DuckDB reads no Zarr: what a query has written as parquet."""
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    with zipfile.ZipFile(HERE / f"format-{number}.zip") as archive:
        archive.extractall(tmp_path)
    run, file = Run(tmp_path / f"{codec}.zarr"), tmp_path / "table.parquet"
    (result,) = run.results("consistency")
    table = query(run, "results.consistency.accuracy")
    render(table, "parquet", file)
    found = duckdb.sql(f"select accuracy from '{file}' order by cut desc, t1").fetchall()
    expected = run.values(f"{result}/accuracy")
    np.testing.assert_array_equal(np.ravel([row[0] for row in found]), expected.ravel())
