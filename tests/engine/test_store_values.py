"""Every way to read gives the same numbers and texts, whatever was missing or scaled, and paths mean one store."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.errors import StoreError
from featdyn.plain import plain
from featdyn.query import query
from featdyn.store import Run, RunWriter, commit_result, gc, locate, repair, verify
from featdyn.store.root import COPY
from tests.engine.runs import LAYERS, refused, write_run
from tests.engine.small_run import RESULT, SCHEMA, fill, record
from tests.engine.spec_reader import SpecReader
from tests.engine.test_store_crash import committed


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_every_way_to_read_a_gradient_gives_it_unscaled(tmp_path: Path, codec: str) -> None:
    run = write_run(tmp_path / "run.zarr", codec)
    theirs, ours = xr.open_datatree(run.path, engine="zarr"), SpecReader(Path(run.path))
    for name in LAYERS:
        path = f"layers/{name}/gradient"
        stored = np.stack([read_all(run, path, t, stored=True) for t in range(run.checkpoints)])
        assert stored.dtype == np.float16
        expected = stored.astype(np.float64) / 4096
        assert np.abs(expected).max() < 0.01
        blocks = np.stack([read_all(run, path, t) for t in range(run.checkpoints)])
        dotted = query(run, path.replace("/", "."))["gradient"]
        for found in (run.values(path), blocks, run.array(path), theirs[path], ours.array(path)):
            np.testing.assert_array_equal(np.asarray(found), expected)
        np.testing.assert_array_equal(dotted.to_numpy().reshape(expected.shape), expected)
        assert run.values(path).dtype == blocks.dtype == np.float32
        activation = run.block(f"layers/{name}/activation", 0, 0)
        assert activation.dtype == np.float16  # nothing to scale: as it is stored


def read_all(run: Run, path: str, t: int, *, stored: bool = False) -> np.ndarray[Any, Any]:
    return np.concatenate([run.block(path, t, b, stored=stored) for b in range(run.schema.blocks)])


TEXTS = st.lists(
    st.none() | st.sampled_from(["", "blur", "<missing>", "<<missing>>"]) | st.text(max_size=3), min_size=3, max_size=3
)


@settings(deadline=None, max_examples=15)
@given(texts=TEXTS, gone=st.sampled_from([None, np.nan]))
def test_text_that_is_missing_comes_back_as_missing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], gone: Any
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.zarr"
    given_ = np.array([gone if text is None else text for text in texts], dtype=object)
    coords = {"sample": np.array(["a", "b", "c"], dtype=object), "kind": ("sample", given_)}
    with RunWriter.create(path, SCHEMA, static={"": xr.Dataset(coords=coords)}, attributes={}) as writer:
        with writer.checkpoint() as checkpoint:
            fill(checkpoint)
        writer.result("r", xr.Dataset({"name": ("d", given_), "one": ((), np.array(texts[0], dtype=object))}))
    run = Run(path)
    assert run.values("kind").tolist() == texts
    assert run.values("results/r/000002/name").tolist() == texts
    assert run.values("results/r/000002/one").tolist() == texts[0]
    assert SpecReader(path).array("kind").tolist() == texts
    for found in (run.coords["kind"], xr.open_datatree(path, engine="zarr")["kind"], run.result("r")["name"]):
        assert [None if text != text else text for text in found.values.tolist()] == texts
    assert verify(path).sound


def test_text_among_numbers_that_are_missing_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "run.zarr", "c")
    mixed = xr.Dataset({"x": ("d", np.array(["a", None, 3], dtype=object))})
    with (
        RunWriter.open(tmp_path / "run.zarr") as writer,
        pytest.raises(ValueError, match="x holds text that is missing"),
    ):
        writer.result("r", mixed)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
NUMPY = st.sampled_from(
    [np.float32(0.5), np.int64(-3), np.bool_(True), np.str_("x"), np.arange(3), np.array([[np.nan]])]
)
VALUES = st.recursive(
    SCALARS | NUMPY | st.just(Path("a/b")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(value=VALUES)
def test_what_is_printed_as_json_is_json(value: Any) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = plain(value, missing=True)
    assert json.loads(json.dumps(found), parse_constant=refuse) == found
    try:
        assert plain(value) == found
    except ValueError:
        assert found != plain(value, missing=True) or "null" in json.dumps(found)


def test_numbers_arrays_and_paths_are_taken_as_attributes(tmp_path: Path) -> None:
    given_ = {
        "lr": np.float32(0.5),
        "seed": np.int64(3),
        "data": tmp_path,
        "grid": np.arange(4).reshape(2, 2),
        "on": np.True_,
    }
    with RunWriter.create(tmp_path / "run.zarr", SCHEMA, static={}, attributes=given_) as writer:
        with writer.checkpoint() as checkpoint:
            fill(checkpoint)
        writer.result("r", RESULT.assign_attrs(rate=np.float32(0.25), shape=np.arange(2)))
    run = Run(tmp_path / "run.zarr")
    expected = {"lr": 0.5, "seed": 3, "data": str(tmp_path), "grid": [[0, 1], [2, 3]], "on": True}
    assert run.attributes.items() >= expected.items()
    assert run.result("r").attrs == {"rate": 0.25, "shape": [0, 1]}


def test_a_path_means_the_same_store_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "one")
    with RunWriter.create("a.zarr", SCHEMA, static={}, attributes={}) as writer:
        for folder in ("one", "two"):
            monkeypatch.chdir(tmp_path / folder)
            with writer.checkpoint() as checkpoint:
                fill(checkpoint)
    monkeypatch.chdir(tmp_path / "one")
    run = Run("a.zarr")
    monkeypatch.chdir(tmp_path / "two")
    assert run.values("checkpoint").tolist() == [0, 1]
    assert run.tree.sizes["checkpoint"] == 2
    assert commit_result(run, "r", RESULT) == "results/r/000003"
    assert pickle.loads(pickle.dumps(run)).path == run.path == tmp_path / "one" / "a.zarr"
    record("~/b.zarr", "c")
    assert Run("~/b.zarr").path == tmp_path / "home" / "b.zarr"
    assert Run(Path("~") / "b.zarr").checkpoints == 1
    assert sorted(p.name for p in tmp_path.rglob("*.zarr")) == ["a.zarr", "b.zarr"]
    assert not list((tmp_path / "two").iterdir())
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(lambda: Run("a.zarr"), "a.zarr: there is no working directory")


def test_a_run_that_was_sent_is_that_run_or_none(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    record(path, "ccr")
    sent = pickle.dumps(Run(path))
    record(path, "ccrc")
    assert len(pickle.loads(sent).commits) == 3  # as of its own commit
    shutil.rmtree(path)
    refused(
        lambda: pickle.loads(sent), r"process \d+ on \S+ does not see the store that it was sent: .* no such folder"
    )
    with RunWriter.create(path, SCHEMA, static={}, attributes={}) as writer:
        for _ in range(2):
            with writer.checkpoint() as checkpoint:
                fill(checkpoint)
        writer.result("r", RESULT)
    refused(lambda: pickle.loads(sent), f"sees another store at {path}: all workers need the same files")


def _group(path: Path) -> None:
    xr.Dataset({"note": ("k", np.arange(3))}).to_zarr(path, group="mine", mode="a")


def _consolidate(path: Path) -> None:
    zarr.consolidate_metadata(path)


def _attribute(path: Path) -> None:
    zarr.open_group(path, mode="a").attrs["note"] = 1


def _reformat(path: Path) -> None:
    file = path / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()), indent=4))


CHANGES = [_group, _consolidate, _attribute, _reformat]


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("plan", ["cc", "ccr"])
def test_a_root_that_another_program_changed_is_mended_without_loss(
    folder: Path, change: Any, behind: bool, plan: str
) -> None:
    path = folder / "run.zarr"
    record(path, plan[:-1])
    old = (path / COPY).read_bytes()
    record(path, plan)
    whole = committed(path)
    if behind:  # the writer was killed before the copy followed
        (path / COPY).write_bytes(old)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that are no part of the group
        change(path)
    says = rf"another program has changed its zarr\.json .*nothing is lost; run: featdyn verify {path} --repair"
    for call in (Run, RunWriter.open, verify, gc):
        refused(lambda call=call: call(path), says)
    found = repair(path)
    assert found.changed
    assert not found.verdict.problems
    assert committed(path) == whole
    assert verify(path).sound
    if change is _group:
        assert xr.open_dataset(path, group="mine", engine="zarr", consolidated=False)["note"].values.tolist() == [
            0,
            1,
            2,
        ]
        assert not any("mine" in name for name in gc(path).removed)
    record(path, "ccrc")
    assert Run(path).checkpoints == 3


@pytest.mark.parametrize("change", [*CHANGES, lambda path: (path / "zarr.json").unlink()])
def test_a_training_goes_on_from_a_root_that_another_program_changed(folder: Path, change: Any) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    with RunWriter.open(path) as writer:
        commit_result(Run(path), "r", RESULT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(path)
        with writer.checkpoint() as checkpoint:
            fill(checkpoint)
    run = Run(path)
    assert [commit.kind for commit in run.commits] == ["checkpoint", "result", "checkpoint"]
    assert run.result("r").attrs == {"input_commit": 1}
    assert verify(path).sound


def test_a_folder_that_was_never_a_run_is_not_said_to_be_changed(tmp_path: Path) -> None:
    xr.Dataset({"x": ("d", [1])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    refused(lambda: Run(tmp_path / "other.zarr"), "not a featdyn store")
    with pytest.raises(StoreError, match="give a URL as text"):
        locate(Path("s3://bucket/run"))
