"""Stores of every released format open and give the numbers that were written; newer ones are refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from featdyn.store import Run, RunWriter, gc, repair, verify
from featdyn.store import root as roots
from featdyn.store.record import crc32c
from featdyn.store.root import FORMAT, Root
from tests.engine.runs import refused, result_dataset, write_run
from tests.engine.spec_reader import SpecReader

HERE = Path(__file__).parent / "formats"
FORMATS = range(1, FORMAT + 1)


@pytest.fixture(params=[(number, codec) for number in FORMATS for codec in ("none", "zstd")], ids=str)
def released(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A store of a released format, and what its writer was given."""
    number, codec = request.param
    with zipfile.ZipFile(HERE / f"format-{number}.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / f"{codec}.zarr", json.loads((HERE / f"format-{number}.json").read_text())[codec]


def numbers(recorded: dict[str, Any]) -> np.ndarray[Any, Any]:
    if recorded["dtype"] == "string":
        return np.array(recorded["values"], dtype=object).reshape(recorded["shape"])
    return np.frombuffer(bytes.fromhex(recorded["hex"]), recorded["dtype"]).reshape(recorded["shape"])


def test_every_number_of_a_released_format_is_read(released: tuple[Path, dict[str, Any]]) -> None:
    path, recorded = released
    run, tree, independent = Run(path), xr.open_datatree(path, engine="zarr"), SpecReader(path)
    independent.check()
    assert verify(path).sound
    assert {p for p, d in run.nodes.items() if d["node_type"] == "array"} == recorded["arrays"].keys()
    assert run.results("consistency") == recorded["results"]
    assert run.result("consistency").attrs == {"options": {"cuts": ["all"]}, "input_commit": run.checkpoints}
    for name, about in recorded["arrays"].items():
        expected = numbers(about)
        scale = run.nodes[name]["attributes"].get("scale_factor")
        read = expected if scale is None else expected.astype(np.float32) * np.float32(scale)
        for values in (run.values(name), np.asarray(tree[name].values), independent.array(name)):
            np.testing.assert_array_equal(values, read)
        if name.startswith("layers/"):
            for t in range(run.checkpoints):
                for stored, whole in ((True, expected), (False, read)):
                    blocks = [run.block(name, t, block, stored=stored) for block in range(run.schema.blocks)]
                    np.testing.assert_array_equal(np.concatenate(blocks), whole[t])
    for t, expected in recorded["tensors"].items():
        assert {name: tensor.tolist() for name, tensor in run.state(int(t)).items()} == expected


def test_a_released_format_is_continued_repaired_and_cleared(released: tuple[Path, dict[str, Any]]) -> None:
    path, recorded = released
    with RunWriter.open(path) as writer:
        added = writer.result("more", result_dataset(0.0))
    (path / added / "accuracy" / "c/0/0/0/0").unlink()
    assert repair(path).verdict.lost == (added,)
    assert set(gc(path).removed) > {f"{added}/zarr.json", f"{added}/prediction/c/0/0/0/0"}
    assert verify(path).sound
    assert SpecReader(path).arrays().keys() == recorded["arrays"].keys()


def test_a_store_of_format_2_goes_on_in_format_3(tmp_path: Path) -> None:
    with zipfile.ZipFile(HERE / "format-2.zip") as archive:
        archive.extractall(tmp_path)
    path = tmp_path / "zstd.zarr"
    before = SpecReader(path).arrays()
    with RunWriter.open(path) as writer, writer.checkpoint() as checkpoint:
        for spec in writer.schema.arrays:
            for block in range(writer.schema.blocks if spec.sample_axis is not None else 1):
                checkpoint.write(spec.path, Run(path).block(spec.path, 0, block, stored=True).copy(), block)
    assert Root.read(path).format == FORMAT
    content, values = (path / "zarr.json").read_bytes(), SpecReader(path).arrays()
    for name in ("step/0", "layers/stem/gradient/0.1.0.0"):  # rows in two manifests of format 2 and one of format 3
        (path / name).write_bytes(b"x")
        assert repair(path).verdict.mendable == (name,)
    SpecReader(path).check()
    for name, found in SpecReader(path).arrays().items():
        np.testing.assert_array_equal(found, values[name])
        np.testing.assert_array_equal(found[: len(before[name])], before[name])
    for name in ("zarr.json", "commits/root.json"):
        (path / name).unlink()
    repair(path)
    assert (path / "zarr.json").read_bytes() == content


def changed(path: Path, change: Any) -> None:
    """Rewrite the root of a store as another writer might, with its checksum."""
    document = json.loads((path / "zarr.json").read_bytes())
    state = document["attributes"]["featdyn"]
    change(state)
    document["attributes"]["featdyn"] = {**state, "root_crc32c": "00000000"}
    content = json.dumps(document).encode()
    checksum = b'"root_crc32c": "%08x"' % crc32c(content)
    (path / "zarr.json").write_bytes(content.replace(b'"root_crc32c": "00000000"', checksum, 1))


def test_what_a_later_writer_of_this_format_may_add_is_ignored(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.zarr", checkpoints=2).path
    before = SpecReader(path).arrays()
    manifest = {"commit": 5, "by": "others", "files": [["notes.bin", 3, crc32c(b"abc"), "more"]]}
    content = json.dumps(manifest).encode()
    (path / "notes.bin").write_bytes(b"abc")
    (path / "commits/000005.json").write_bytes(content)

    def add(state: dict[str, Any]) -> None:
        record = {"path": "commits/000005.json", "size": len(content), "crc32c": crc32c(content), "by": "others"}
        state["commits"].append({"number": 5, "kind": "note", "name": "notes", "manifest": record, "by": "others"})
        state["by"] = ["others"]

    changed(path, add)
    run = Run(path)
    assert (run.checkpoints, len(run.results("consistency")), len(run.commits)) == (2, 2, 5)
    for name, values in before.items():
        np.testing.assert_array_equal(np.asarray(run.tree[name].values), values)
    assert verify(path).sound
    with RunWriter.open(path) as writer:
        assert writer.result("more", result_dataset(0.0)) == "results/more/000006"
    assert not gc(path).removed
    assert gc(path).foreign == ()  # its files are named by a commit, whatever that is
    (path / "notes.bin").write_bytes(b"abx")
    assert repair(path).verdict.lost == ("notes",)
    assert Run(path).results("more") == ["results/more/000006"]


def test_a_newer_format_is_refused_by_all_that_write(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.zarr", checkpoints=1).path
    changed(path, lambda state: state.update(format=FORMAT + 1))
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and not p.name.startswith(".featdyn.")}
    for call in (Run, RunWriter.open, verify, repair, gc):
        refused(lambda call=call: call(path), r"is newer than this featdyn reads \(3\): update featdyn")
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and not p.name.startswith(".featdyn.")} == before
    assert Root.decode((path / "commits/root.json").read_bytes(), path)  # is there, and is not taken for it
    assert roots.intact((path / "zarr.json").read_bytes())
