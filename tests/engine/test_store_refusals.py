"""What cannot be written gets one clear line, and nothing that is not ours is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from featdyn.errors import StoreError
from featdyn.store import ArraySpec, Run, RunWriter, Schema, verify
from featdyn.store.lock import NAME as LOCK
from featdyn.store.schema import check_name
from tests.engine.runs import refused, result_dataset, tree, write_run
from tests.engine.test_store_turns import read_only

SCHEMA = Schema((ArraySpec("checkpoint", (), (), "int64"), ArraySpec("a", ("sample",), (3,), "float32")), 3, 4)
STATIC = {"": xr.Dataset(coords={"sample": np.array(["x", "y", "z"], dtype=object)})}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("store") / "run.zarr", checkpoints=2).path


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "run.zarr"))


def test_a_second_writer_is_refused(store: Path, tmp_path: Path) -> None:
    code = "import sys; from featdyn.store import RunWriter; RunWriter.open(sys.argv[1])"
    with RunWriter.open(store):
        refused(lambda: RunWriter.open(store), rf"is being written by process {os.getpid()} on .*: wait for it or stop")
        child = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=False)
        assert child.returncode == 1
        assert f"is being written by process {os.getpid()}" in child.stderr
        assert Run(store).checkpoints == 2  # readers are not
    RunWriter.open(store).close()
    with RunWriter.create(tmp_path / "new.zarr", SCHEMA, static=STATIC, attributes={}):
        refused(
            lambda: RunWriter.create(tmp_path / "new.zarr", SCHEMA, static=STATIC, attributes={}), "is being written by"
        )


def test_a_run_is_not_created_where_something_is(original: Path, tmp_path: Path) -> None:
    def create(path: Path) -> None:
        RunWriter.create(path, SCHEMA, static=STATIC, attributes={})

    before = tree(original)
    refused(lambda: create(original), "a store is there already")
    assert tree(original) == before
    (tmp_path / "notes.txt").write_text("mine")
    refused(lambda: create(tmp_path), "not empty and not a featdyn store; choose another path")
    refused(lambda: create(tmp_path / "notes.txt"), "not empty and not a featdyn store")
    assert tree(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("foreign", ["notes.txt", "layers/notes.txt", "a/c.txt", "commits/1.json", "link"])
def test_what_a_killed_writer_left_is_cleared_but_nothing_else(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "run.zarr"
    writer = RunWriter.create(path, SCHEMA, static=STATIC, attributes={})
    writer.checkpoint().write("a", np.zeros(3, "float32"))
    writer._lock.release()  # the process is gone, and with it its lock
    killed = tree(path)
    assert {"sample/c/0", "a/c.0.0", LOCK} <= killed.keys()
    if foreign == "link":
        (path / foreign).symlink_to(tmp_path)
    else:
        (path / foreign).parent.mkdir(exist_ok=True)
        (path / foreign).write_text("mine")
    with_foreign = tree(path)
    refused(lambda: RunWriter.create(path, SCHEMA, static=STATIC, attributes={}), "not empty and not a featdyn store")
    assert tree(path) == with_foreign
    (path / foreign).unlink()
    other = replace(SCHEMA, arrays=(*SCHEMA.arrays[:1], ArraySpec("b", (), (), "int8")))
    with RunWriter.create(path, other, static=STATIC, attributes={}) as writer:
        assert not (path / "a").exists()
        with writer.checkpoint() as checkpoint:
            checkpoint.write("checkpoint", np.array(0))
            checkpoint.write("b", np.array(1, "int8"))
    assert verify(path).sound


def test_nothing_is_left_of_a_run_without_a_commit(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def fail(path: Path) -> None:
        with RunWriter.create(path, SCHEMA, static=STATIC, attributes={}) as writer, writer.checkpoint() as checkpoint:
            checkpoint.write("a", np.zeros(3, "float32"))
            (path / "mine.txt").write_text("mine") if path.name == "kept" else None
            raise Stop

    for name in ("new", "empty", "kept"):
        if name == "empty":
            (tmp_path / name).mkdir()
        with pytest.raises(Stop):
            fail(tmp_path / name)
    assert tree(tmp_path) == {"empty": None, "kept": None, "kept/mine.txt": b"mine"}


def test_a_folder_that_cannot_be_written(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:  # to root every folder is writable
        os.chmod(store, 0o500)
        refused(lambda: RunWriter.open(store), "cannot be written: Permission denied")
        os.chmod(store, 0o700)
    monkeypatch.setattr(os, "open", read_only(os.open))
    refused(lambda: RunWriter.open(store), "cannot be written: Read-only file system")
    assert Run(store).tree.sizes["checkpoint"] == 2
    assert verify(store).sound


def test_a_path_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused(
        lambda: RunWriter.create(tmp_path / "file" / "run.zarr", SCHEMA, static=STATIC, attributes={}),
        "Not a directory",
    )


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../x", "/x", "a..b", ".hidden", "__x", "zarr.json", "a\n", "a\0", "a\\b", "c:d", "é" * 101],
)
def test_names_that_cannot_be_stored(tmp_path: Path, original: Path, name: str) -> None:
    refused(lambda: check_name(name, "layer"), "layer .* cannot be stored")
    coords = {"sample": np.array(["x", "y", "z"], dtype=object), name: ("sample", np.arange(3))}
    schema = replace(SCHEMA, arrays=(*SCHEMA.arrays, ArraySpec(f"layers/{name}/activation", (), (), "int8")))
    path = tmp_path / "run.zarr"
    if name != "a/b":  # a layer's name is one part of a path; as two it is another, good path
        refused(lambda: RunWriter.create(path, schema, static={}, attributes={}), "cannot be stored")
    static = {"": xr.Dataset(coords=coords)}
    refused(lambda: RunWriter.create(path, SCHEMA, static=static, attributes={}), "cannot be stored")
    assert not path.exists()
    before = tree(original)
    with RunWriter.open(original) as writer:
        refused(lambda: writer.result(name, result_dataset(0.0)), "cannot be stored")
        with pytest.raises((StoreError, ValueError), match=r"path must be|cannot be stored"):
            writer.checkpoint().put(f"checkpoints/000002/{name}", [b""])
    assert tree(original) == before


@pytest.mark.parametrize("name", ["features.0", "_blocks.3", "s1 b1", "größe", "a-b", "0", "c.0", "C"])
def test_names_that_can(name: str) -> None:
    assert check_name(name, "layer") == name


@pytest.mark.parametrize(
    ("extra", "static", "error", "message"),
    [
        (["layers/A/x", "layers/a/x"], {}, StoreError, "differ in case only"),
        (["layers/a", "layers/a/x"], {}, StoreError, "'layers/a/x' lies inside the array 'layers/a'"),
        (["results/a/x"], {}, StoreError, "results, checkpoints, commits are taken"),
        (["commits"], {}, StoreError, "are taken"),
        ([], {"": xr.Dataset(coords={"checkpoints": ("sample", [1, 2, 3])})}, StoreError, "are taken"),
        (["layers/a/x", "layers/a/x"], {}, ValueError, "two arrays of the same path"),
        (["layers/a/x"], {"layers/a": xr.Dataset({"x": ("d", [1])})}, ValueError, "in the schema and in static"),
        ([], {"cube": xr.Dataset({"x": ("sample", [1, 2])})}, ValueError, "sample has length 2, but 3 in the root"),
        ([], {"": xr.Dataset({"x": ("sample", [1, 2])})}, ValueError, "sample has length"),
    ],
)
def test_arrays_that_do_not_fit_together(
    tmp_path: Path, extra: list[str], static: dict[str, xr.Dataset], error: type[Exception], message: str
) -> None:
    schema = replace(SCHEMA, arrays=(*SCHEMA.arrays, *(ArraySpec(path, (), (), "int8") for path in extra)))
    with pytest.raises(error, match=message):
        RunWriter.create(tmp_path / "run.zarr", schema, static=static, attributes={})
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"x": float("nan")}, "attributes must be JSON"),
        ({"x": np.array([1, np.inf])}, "attributes must be JSON: inf is not a JSON number"),
        ({"x": {1, 2}}, r"attributes must be JSON: set \{1, 2\} has no JSON form"),
        ({"x": np.array(1j)}, "attributes must be JSON: complex"),
        ({(1, 2): 3}, r"attributes must be JSON: key \(1, 2\) is not text"),
        ({"featdyn": {}}, "attributes may not hold featdyn"),
        ({"coordinates": "x"}, "attributes may not hold coordinates"),
    ],
)
def test_attributes_that_cannot_be_stored(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunWriter.create(tmp_path / "run.zarr", SCHEMA, static=STATIC, attributes=attributes)
    assert not (tmp_path / "run.zarr").exists()


def test_schemas_that_cannot_be(tmp_path: Path) -> None:
    for bad, message in {
        "dtype": "dtype must be one of bool, int8",
        "dims": "must be distinct",
        "checkpoint": "without checkpoint",
        "length": "at least 1",
    }.items():
        dims = {"dims": ("x", "x"), "checkpoint": ("checkpoint", "x")}.get(bad, ("x", "y"))
        with pytest.raises(ValueError, match=message):
            ArraySpec("a", dims, (0 if bad == "length" else 1, 1), "complex64" if bad == "dtype" else "int8")
    array = ArraySpec("a", ("sample",), (3,), "int8")
    for arguments, message in [((4, 4), "does not have the 4 samples"), ((3, 6), "power of two"), ((3, 0), "power of")]:
        with pytest.raises(ValueError, match=message):
            Schema((array,), *arguments)
    with pytest.raises(ValueError, match="codec must be none or zstd, got lz4"):
        Schema((array,), 3, 4, "lz4")  # type: ignore[arg-type]


def test_results_that_would_spoil_the_store(store: Path) -> None:
    before = tree(store)
    with RunWriter.open(store) as writer:
        for dataset, message in [
            (xr.Dataset({"x": ("sample", [1])}), "may not have the root's dimensions, got sample"),
            (xr.Dataset({"x": ("checkpoint", [1])}), "may not have the root's dimensions, got checkpoint"),
            (xr.Dataset({"x": ("d", [1])}, attrs={"y": float("nan")}), "JSON"),
        ]:
            with pytest.raises(ValueError, match=message):
                writer.result("r", dataset)
        refused(lambda: writer.result("r", xr.Dataset({"a/b": ("d", [1])})), "'a/b' cannot be stored")
    assert tree(store) == before
    writer = RunWriter.create(store.with_name("new"), SCHEMA, static=STATIC, attributes={})
    with writer, pytest.raises(ValueError, match="a run without checkpoints has no results"):
        writer.result("r", result_dataset(0.0))


def test_checkpoints_written_wrongly(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with RunWriter.create(path, SCHEMA, static=STATIC, attributes={}) as writer:
        message = r"checkpoint 0 is not complete: checkpoint/c\.0 was not written"
        with pytest.raises(ValueError, match=message), writer.checkpoint() as first:
            first.write("a", np.zeros(3, "float32"))
        assert not (path / "a" / "c.0.0").exists()
        with writer.checkpoint() as first:
            with pytest.raises(ValueError, match=r"must be float32 of shape \(3,\), got float64 of shape \(3,\)"):
                first.write("a", np.zeros(3))
            with pytest.raises(ValueError, match=r"got float32 of shape \(4,\)"):
                first.write("a", np.zeros(4, "float32"))
            with pytest.raises(ValueError, match="block must be below 1, got 1"):
                first.write("a", np.zeros(3, "float32"), 1)
            for bad in ("model.safetensors", "checkpoints/000001/model.safetensors", "checkpoints/000000/model.pt"):
                with pytest.raises(ValueError, match=r"path must be checkpoints/000000/<kind>\.safetensors"):
                    first.put(bad, [b""])
            first.write("a", np.ones(3, "float32"))
            first.write("checkpoint", np.array(0))
        before = tree(path)
        refused(lambda: first.write("a", np.zeros(3, "float32")), "checkpoint 0 is committed")
        with pytest.raises(StoreError, match="is committed"), first:
            first.write("a", np.zeros(3, "float32"))
        assert tree(path) == before  # also where the body fails, nothing committed is removed
    assert json.loads((path / "zarr.json").read_bytes())["attributes"]["featdyn"]["samples"] == 3
