"""A store in a bucket is the store that a folder holds, and reads the same for everyone."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featdyn.store import Run, RunWriter, Schema, client, exists, locate, verify
from tests.engine.buckets import NAMES, contents
from tests.engine.runs import LAYERS, refused, result_dataset, write_run
from tests.engine.spec_reader import SpecReader
from tests.engine.test_store import random_values, schemas, shards, write

from obstore.store import S3Store  # isort: skip
from zarr.storage import ObjectStore  # isort: skip


@pytest.fixture(scope="module")
def run(s3: str) -> Run:
    return write_run(f"{s3}/module/run.zarr", "zstd")


def download(store: str, folder: Path) -> Path:
    for path, content in contents(store).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=schemas(), checkpoints=st.integers(1, 3), seed=st.integers(0, 999))
def test_the_same_files_as_in_a_folder(
    s3: str, tmp_path_factory: pytest.TempPathFactory, schema: Schema, checkpoints: int, seed: int
) -> None:
    folder, prefix = tmp_path_factory.mktemp("store"), f"same/{next(NAMES)}/run.zarr"
    values = random_values(schema, checkpoints, seed)
    names = np.array([f"ü{i}" * (i % 3) + f"/{i}" for i in range(schema.samples)], dtype=object)
    static = {"": xr.Dataset(coords={"sample": names})}
    for path in (folder / "run.zarr", f"{s3}/{prefix}"):
        write(path, schema, values, static)
    assert contents(f"{s3}/{prefix}") == contents(folder / "run.zarr")  # the root, too

    run = Run(f"{s3}/{prefix}")
    theirs = ObjectStore(S3Store("runs", prefix=prefix, client_options={"allow_http": True}), read_only=True)
    tree = xr.open_datatree(theirs, engine="zarr")  # without featdyn
    for array, expected in values.items():
        np.testing.assert_array_equal(np.asarray(tree[array]), expected)
        np.testing.assert_array_equal(np.asarray(run.tree[array]), expected)
        np.testing.assert_array_equal(zarr.open_array(theirs, path=array, mode="r")[...], expected)
    for t in range(checkpoints):
        for spec, block, region in shards(schema):
            np.testing.assert_array_equal(run.block(spec.path, t, block), values[spec.path][t][region])


def test_the_specification_is_enough_to_read_what_a_bucket_holds(run: Run, tmp_path: Path) -> None:
    reader = SpecReader(download(str(run.path), tmp_path))
    there = {p for p in locate(run.path).listing() if not p.endswith(("zarr.json", "root.json"))}
    assert there == {*reader.check(), *(c["manifest"]["path"] for c in reader.commits), ".featdyn.lock"}
    for path, values in reader.arrays().items():
        np.testing.assert_array_equal(np.asarray(run.tree[path].values), values)


def test_a_path_prints_as_it_was_given_and_opens_the_store_again(run: Run) -> None:
    assert str(run.path) == f"{run.path}" == "s3://runs/module/run.zarr"
    assert (run.name, Run(run.path).checkpoints) == ("run.zarr", run.checkpoints)
    assert exists(run.path)
    assert not exists("s3://runs/module/other.zarr")
    assert not exists("s3://runs/module/run.zar")  # a prefix is a folder, not the begin of a name


def test_what_is_open_does_not_change(url: str) -> None:
    run = write_run(url, checkpoints=2)
    with RunWriter.open(url) as writer, writer.checkpoint() as checkpoint:
        for spec, block, region in shards(run.schema):
            checkpoint.write(spec.path, np.ones(spec.shape, spec.dtype)[region], block)
        assert Run(url).checkpoints == 2  # nothing is seen before the commit
    assert run.tree.sizes["checkpoint"] == len(run.values("step")) == 2
    sent = pickle.loads(pickle.dumps(run.array("cube/activation_norm")))  # as Dask sends it to another process
    np.testing.assert_array_equal(sent, run.array("cube/activation_norm"))
    again = pickle.loads(pickle.dumps(locate(url)))
    assert Run(again).checkpoints == Run(url).tree.sizes["checkpoint"] == 3
    assert run.results("consistency") == ["results/consistency/000003", "results/consistency/000004"]
    with RunWriter.open(url) as writer:
        path = writer.result("consistency", result_dataset(7.0))
    xr.testing.assert_identical(run.result("consistency"), result_dataset(1.0).load())
    np.testing.assert_array_equal(Run(url).tree[path]["accuracy"], result_dataset(7.0)["accuracy"])


def test_verify_names_every_object_that_is_not_as_it_was_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(url, checkpoints=1)
    from featdyn.store.client import QUICK, connect

    store, rng = connect(url, QUICK), np.random.default_rng(0)
    verdict = verify(url)
    assert verdict.sound
    paths = [p for p in contents(url) if not p.endswith(("zarr.json", "root.json"))]
    assert verdict.files == len(paths)
    for number, path in enumerate(rng.permutation(paths)[:4]):
        content = bytes(store.get(path).bytes())
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        damaged = (bytes(flipped), content[:-1], content + b"\0", None)[number % 4]
        store.delete(path) if damaged is None else store.put(path, damaged)
        assert [p.partition(": ")[0] for p in verify(url).problems] == [path]
        store.put(path, content)
    monkeypatch.setattr(client, "PART", 100)  # as if all objects were large
    monkeypatch.setattr("featdyn.store.bucket.PART", 100)
    assert verify(url) == verdict


def test_large_objects_go_and_come_in_parts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(url, checkpoints=1)
    for module in ("client", "bucket"):
        monkeypatch.setattr(f"featdyn.store.{module}.PART", 5 * 2**20)  # the least that S3 takes
    monkeypatch.setattr("featdyn.store.bucket.SINGLE", 2**20)
    content = np.random.default_rng(0).bytes(11 * 2**20)
    with RunWriter.open(url) as writer:
        record = writer.place.write("a/c.0", [content[:7], content[7:]])
        assert writer.place.write("a/c.0", [content]) == record
        assert writer.place.read("a/c.0") == content
        assert writer.place.check(record) is None
    with RunWriter.open(url) as writer:  # one that a killed writer left
        writer.place.write("a/c.0", [content[1:]])
        assert writer.place.read("a/c.0") == content[1:]


def test_tensors(url: str) -> None:
    import torch

    from featdyn.capture.values import tensors_to_bytes

    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)}
    run = write_run(url, checkpoints=1)
    with RunWriter.open(url) as writer, writer.checkpoint() as checkpoint:
        for spec, block, region in shards(run.schema):
            checkpoint.write(spec.path, np.ones(spec.shape, spec.dtype)[region], block)
        checkpoint.put("checkpoints/000001/model.safetensors", [tensors_to_bytes(tensors)])
    found = Run(url).state(1)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    refused(lambda: Run(url).state(0), r"model\.safetensors cannot be read")


def test_damage_and_what_is_missing_are_one_line(url: str) -> None:
    from featdyn.store.client import QUICK, connect

    run, store = write_run(url, checkpoints=2), connect(url, QUICK)
    store.delete("layers/s1.b1/activation/c.1.0.0.0")
    refused(lambda: run.block("layers/s1.b1/activation", 1, 0), r"c\.1\.0\.0\.0 cannot be read \(missing\); run: feat")
    newest = run.commits[-1].files(url)[0]
    store.put(newest.path, b"")
    refused(lambda: RunWriter.open(url), "0 bytes instead of .*; run: featdyn verify")
    assert Run(url).checkpoints == 2  # a reader does not ask for each object
    root = bytes(store.get("zarr.json").bytes())
    store.put("zarr.json", root[:-3])
    refused(lambda: Run(url), r"its zarr\.json is damaged|not a featdyn store")


def test_a_layer_name_of_any_script_lies_there_under_its_own_name(run: Run) -> None:
    import boto3

    answer: dict[str, Any] = boto3.client("s3").list_objects_v2(Bucket="runs", Prefix="module/run.zarr/layers/")
    assert {key["Key"].split("/")[3] for key in answer["Contents"]} == {*LAYERS, "zarr.json"}


def test_marks_of_a_url_are_part_of_the_name(url: str) -> None:
    """Else two names would be one store."""
    for name in ("run#1", "run#2", "run?lr=1", "run?lr=2", "run%231", "run"):
        place = locate(f"{url}/{name}")
        assert not place.exists("zarr.json")
        client.Client(client.connect(place.path, client.QUICK)).put("zarr.json", name.encode())
        assert place.read("zarr.json") == name.encode()


def test_local_stores_do_without_obstore(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["obstore"] = None  # not installed
import featdyn, featdyn.store
from tests.engine.runs import write_run
run = write_run({str(tmp_path / "run.zarr")!r}, checkpoints=1)
run.tree.load()
from featdyn.extras import MissingExtra
try:
    featdyn.store.Run("s3://bucket/run.zarr")
except MissingExtra as error:
    print(error)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stdout == "this needs obstore, which is not installed: pip install 'featdyn[cloud]'\n", child.stderr
    code = f"""
import sys
from featdyn.store import Run
Run({str(tmp_path / "run.zarr")!r}).tree
print([m for m in sys.modules if m.split(".")[0] == "obstore"])
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "[]\n"
