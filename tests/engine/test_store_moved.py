"""Stores at odd paths, in the way of which something lies, or that are moved while they are written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from featdyn.store import Run, RunWriter, gc, repair, verify
from featdyn.testing.sample_run import RESULT, SCHEMA, STATIC, check, fill, record
from tests.engine.buckets import contents
from tests.engine.runs import refused


@pytest.mark.parametrize(
    "name", ["a b", "ä日本", "run#1", "run%20x", "?lr=2", "-dash", "tab\there", "back\\slash", "*[1]", "n" * 255]
)
def test_any_name_that_a_file_may_have(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / name
    record(path)
    check(Run(str(path)))
    assert xr.open_datatree(path, engine="zarr").sizes["checkpoint"] == 2
    assert verify(path).sound
    assert not gc(path).foreign
    assert not repair(path).changed


def test_names_that_none_may_have(tmp_path: Path) -> None:
    for path in (tmp_path / ("n" * 256), tmp_path.joinpath(*["d" * 200] * 25)):
        refused(lambda path=path: record(path), "File name too long")
        refused(lambda path=path: Run(path), "File name too long")


@pytest.mark.parametrize("path", ["", "run\0.zarr"])
def test_what_is_no_path(path: str) -> None:
    for call in (Run, record, gc):
        refused(lambda call=call: call(path), "is no path of a store")


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "run.zarr").symlink_to(tmp_path / "gone")
    refused(lambda: record(tmp_path / "run.zarr"), "is a symbolic link that leads nowhere")


@pytest.mark.parametrize("moved", ["the folder", "a link to it", "only the lock"])
@pytest.mark.parametrize("other", ["nothing", "a run"])
def test_a_writer_whose_store_is_moved_touches_nothing_that_lies_there_then(
    tmp_path: Path, moved: str, other: str
) -> None:
    """Not the files of another run, whose chunks of the same names are committed, and it makes no half of one."""
    real, path = tmp_path / "real.zarr", tmp_path / "run.zarr"
    if moved == "a link to it":
        real.mkdir()
        path.symlink_to(real)
    with RunWriter.create(path, SCHEMA, static=STATIC, attributes={"n": 1}) as writer:
        with writer.checkpoint() as checkpoint:
            fill(checkpoint)
        checkpoint = writer.checkpoint()
        checkpoint.write("checkpoint", np.array(1))
        match moved:
            case "the folder":
                path.rename(tmp_path / "moved.zarr")
            case "a link to it":
                path.unlink()
            case _:
                (path / ".featdyn.lock").unlink()
        if other == "a run" and moved != "only the lock":
            record(path, "ccc")
        before = contents(path) if path.exists() else {}
        refused(lambda: fill(checkpoint), "it was moved, replaced or removed while it was being written")
        checkpoint.discard()
        refused(lambda: writer.result("r", RESULT), "moved, replaced|another writer has changed|cannot be written")
    assert (contents(path) if path.exists() else {}) == before
    if before:
        check(Run(path))
        assert verify(path).sound
    if moved == "the folder":
        record(tmp_path / "moved.zarr", "ccc")
        check(Run(tmp_path / "moved.zarr"))


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    for name in ("norm/0.0", "layers/a/activation/c.1.0.0", "commits/root.json", "zarr.json"):
        record(path, "cc")
        (path / name).unlink()
        os.mkfifo(path / name)
        if name == "zarr.json":
            refused(lambda: Run(path), "its zarr.json is missing")
            continue
        if name != "commits/root.json":
            refused(lambda name=name: Run(path).values(name.rpartition("/")[0]), f"{name}.* (is missing|0 bytes)")
            assert [problem.partition(":")[0] for problem in verify(path).problems] == [name]
        assert repair(path).checkpoints == (1 if "layers" in name else 2)
    assert repair(path).checkpoints == 2
    check(Run(path))
