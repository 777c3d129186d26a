"""A store of format 1 becomes one of the newest format, or stays what it was."""

from __future__ import annotations

import json
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from featdyn.store import Run, RunWriter, compact, gc, locate, repair, verify
from featdyn.store.root import COPY, FORMAT, Root
from tests.engine.runs import refused, result_dataset, tree
from tests.engine.small_run import SCHEMA, STATIC
from tests.engine.spec_reader import SpecReader
from tests.engine.test_store_crash import Faults, Killed

ARCHIVE = Path(__file__).parent / "formats" / "format-1.zip"


@pytest.fixture(params=["none", "zstd"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return extracted(tmp_path, request.param)


def extracted(folder: Path, codec: str) -> Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder / f"{codec}.zarr"


def everything(path: Path) -> dict[str, bytes | list[object]]:
    """Return every value of a store, by three readers that must agree, and its attributes."""
    opened, run, independent = xr.open_datatree(path, engine="zarr"), Run(path), SpecReader(path)
    independent.check()
    found: dict[str, bytes | list[object]] = {}
    for name, values in independent.arrays().items():
        for other in (run.values(name), np.asarray(opened[name].values)):
            np.testing.assert_array_equal(other, values)
        found[name] = values.tolist() if values.dtype == object else values.tobytes()
    attributes = {name: value for name, value in run.attributes.items() if name != "featdyn"}
    groups = {name: node["attributes"] for name, node in run.nodes.items()}
    tensors = {f"{t} {n}": v.tolist() for t in range(run.checkpoints) for n, v in run.state(t).items()}
    return found | {"about": [attributes, groups, tensors, [(c.number, c.kind, c.name) for c in run.commits]]}


def test_every_value_stays(store: Path) -> None:
    before, many = everything(store), len(list(store.rglob("c.*")))
    opened = Run(store)
    assert compact(store)
    assert everything(store) == before
    assert opened.block("layers/stem/activation", 1, 2).shape == (1, 2, 3)  # what was open goes on
    assert Run(store).attributes["featdyn"]["format"] == FORMAT
    assert verify(store).sound
    assert not compact(store)
    assert len(gc(store).removed) > many  # and the old manifests
    assert everything(store) == before
    assert not list(store.rglob("c.*"))


def test_it_is_continued_and_repaired_like_any_other(store: Path) -> None:
    compact(store)
    gc(store)
    values = {spec.path: Run(store).block(spec.path, 1, 0, stored=True) for spec in Run(store).schema.arrays}
    weights = (store / "checkpoints/000001/model.safetensors").read_bytes()
    with RunWriter.open(store) as writer:
        added = writer.result("more", result_dataset(0.0))
        with writer.checkpoint() as checkpoint:
            for spec in writer.schema.arrays:
                for block in range(writer.schema.blocks if spec.sample_axis is not None else 1):
                    checkpoint.write(spec.path, cut(spec, values, block), block)
            checkpoint.put("checkpoints/000002/model.safetensors", [weights])
    before = everything(store)
    (store / "step" / "0").write_bytes(b"damaged")
    assert repair(store).verdict.mendable == ("step/0",)
    assert everything(store) == before
    (store / "zarr.json").unlink()
    (store / COPY).unlink()
    assert repair(store).checkpoints == 3
    assert Run(store).results("more") == [added]
    again = everything(store)
    for found in (before, again):
        found["about"][0].pop("provenance", None)  # type: ignore[union-attr]
    assert again == before


def test_a_store_of_format_1_goes_on_as_one(store: Path) -> None:
    before = SpecReader(store).arrays()
    values = {spec.path: Run(store).block(spec.path, 0, 0, stored=True) for spec in Run(store).schema.arrays}
    with RunWriter.open(store) as writer, writer.checkpoint() as checkpoint:
        for spec in writer.schema.arrays:
            for block in range(writer.schema.blocks if spec.sample_axis is not None else 1):
                checkpoint.write(spec.path, cut(spec, values, block), block)
    root = Root.read(store)
    assert (root.format, root.checkpoints, root.start, root.log(65)) == (1, 3, 1, ())
    assert "rows" not in json.loads((store / "commits/000004.json").read_bytes())
    reader = SpecReader(store)
    reader.check()
    for path, found in reader.arrays().items():
        np.testing.assert_array_equal(found[: len(before[path])], before[path])


def cut(spec, values, block):
    """Return a block of as many samples as it must have."""
    whole = values[spec.path]
    if spec.sample_axis is None or block < 2:
        return whole
    return np.ascontiguousarray(np.take(whole, [0], axis=spec.sample_axis))


@pytest.mark.parametrize("fault", ["kill", "error"])
def test_stopped_at_any_moment_it_leaves_the_old_store_or_the_new(tmp_path: Path, fault: str) -> None:
    whole = extracted(tmp_path / "whole", "none")
    values, count = everything(whole), Faults()
    with count.installed():
        compact(whole)
    formats = set()
    for at in range(1, count.count + 1, 61 if fault == "error" else 23):
        path = extracted(tmp_path / f"{at}", "none")
        with suppress(Killed, Exception), Faults(at, kill=fault == "kill").installed():
            compact(path)
        formats.add(json.loads((path / "zarr.json").read_bytes())["attributes"]["featdyn"]["format"])
        assert verify(path).sound
        assert everything(path) == values
        compact(path)
        gc(path)
        assert everything(path) == values
    assert formats == {1, FORMAT}


def test_the_head_of_a_store_whose_compaction_was_stopped_is_made_anew_from_all_its_commits(tmp_path: Path) -> None:
    path, schema = tmp_path / "run.zarr", replace(SCHEMA, arrays=SCHEMA.arrays[:2])
    with RunWriter.create(path, schema, static=STATIC, attributes={}) as writer:
        writer._root = replace(writer._root, format=1)
        for t in range(3):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("checkpoint", np.array(t))
                for block, rows in enumerate((2, 1)):
                    checkpoint.write("layers/a/activation", np.full((rows, 2), t, np.float32), block)
    values = SpecReader(path).arrays()
    counts = []
    for at in (4, 20, 10_000):
        with suppress(Killed), Faults(at, kill=True).installed():
            compact(path)
        stopped = Run(path).attributes["featdyn"]["format"] == 1
        counts.append(len(list(path.glob("commits/*.2.json"))))
        (path / "zarr.json").unlink()
        (path / COPY).unlink(missing_ok=True)
        repair(path)
        assert Run(path).attributes["featdyn"]["format"] == (1 if stopped else FORMAT)
        assert verify(path).sound
        for name, expected in SpecReader(path).arrays().items():
            np.testing.assert_array_equal(values[name], expected)
    assert 0 < counts[0] < counts[1] <= counts[2] == 3


def test_who_writes_is_not_disturbed(store: Path) -> None:
    with RunWriter.open(store):
        before = tree(store)
        refused(lambda: compact(store), "is being written by")
        assert tree(store) == before


def test_damage_is_not_carried_on(store: Path) -> None:
    (store / "step" / "c.1").write_bytes(b"8 bytes.")
    refused(lambda: compact(store), r"step/c\.1: the content does not match its checksum; run: featdyn verify")
    assert Run(store).attributes["featdyn"]["format"] == 1


def test_in_a_bucket(tmp_path: Path) -> None:
    folder, place = extracted(tmp_path, "zstd"), locate("memory://compact/run.zarr")
    values = everything(folder)
    from featdyn.store.client import QUICK, connect

    bucket = connect(str(place), QUICK)
    for name, content in tree(folder).items():
        if content is not None and not name.startswith(".featdyn"):
            bucket.put(name, content)
    assert compact(str(place))
    gc(str(place))
    assert verify(str(place)).sound
    run = Run(str(place))
    for name, document in run.nodes.items():
        if document["node_type"] == "array":
            found = run.values(name)
            assert (found.tobytes() if found.dtype.kind in "biuf" else found.tolist()) == values[name]
