"""What cannot be read now is not damaged: a repair stops, a check says so, a read from a bucket is tried again."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from featdyn.store import ArraySpec, Run, RunWriter, Schema, commit_result, files, gc, publish, repair, verify
from featdyn.store.files import Folder
from tests.engine.faults import Faults
from tests.engine.forked import start
from tests.engine.runs import refused
from tests.engine.small_run import RESULT, fill, read_and_truncate, record
from tests.engine.test_store_repair import files_of, flip

CODES = [errno.EACCES, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EMFILE]
KINDS = ["layers/a/activation/c.1.0.0", "commits/000002.json", "results/r/000003/value/c/0", "commits/000003.json"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    record(tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


def unreadable(path: str, code: int) -> Any:
    """Let one file of every store be unreadable."""
    inside = Folder.inside

    def fail(self: Folder, name: str) -> Path:
        if name == path:
            raise OSError(code, os.strerror(code))
        return inside(self, name)

    return mock.patch.object(Folder, "inside", fail)


@pytest.mark.parametrize("path", KINDS)
def test_a_repair_drops_nothing_for_what_cannot_be_read_now(
    store: Path, featdyn: Callable[..., tuple[int, str, str]], path: str
) -> None:
    flip(store / "checkpoint/c.1")  # there is damage, too
    before = files_of(store)
    for code in CODES:
        with unreadable(path, code):
            verdict = verify(store)
            assert verdict.unknown == (f"{path}: cannot be read now ({os.strerror(code)})",)
            assert not verdict.sound
            assert not [p for p in verdict.problems if p.startswith(path)]
            refused(lambda: repair(store), f"{path}: cannot be read now .*nothing was changed")
            exit_code, out, err = featdyn("verify", store, "--repair")
            assert (exit_code, out, err.count("\n")) == (1, "", 1)
            exit_code, out, _ = featdyn("verify", store)
            assert exit_code == 1
            assert "1 that cannot be read now" in out
            if path.startswith("commits"):
                refused(lambda: gc(store), os.strerror(code))
        assert files_of(store) == before
    assert repair(store).changed


@pytest.mark.parametrize("path", ["zarr.json", "commits/root.json"])
def test_nor_for_a_root_that_cannot_be_read_now(store: Path, path: str) -> None:
    if path != "zarr.json":
        flip(store / "zarr.json")
    before = files_of(store)
    for code in CODES:
        with unreadable(path, code):
            refused(lambda: repair(store), os.strerror(code))
            refused(lambda: RunWriter.open(store), f"{os.strerror(code)}|damaged")
    assert files_of(store) == before


def test_what_is_not_there_is_damage_whatever_is_in_its_place(store: Path) -> None:
    (store / "checkpoint/c.1").unlink()
    (store / "checkpoint/c.1").mkdir()
    (store / "results/r/000003/value/c/0").unlink()
    (store / "results/r/000003/value/c").rmdir()
    (store / "results/r/000003/value/c").write_text("a file in place of a folder")
    verdict = verify(store)
    assert verdict.unknown == ()
    assert len(verdict.problems) == 2
    assert repair(store).checkpoints == 1


def test_a_check_without_unknown_files_says_so_in_json(
    store: Path, featdyn: Callable[..., tuple[int, str, str]]
) -> None:
    assert json.loads(featdyn("verify", store, "--json")[1])["unknown"] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_shard_of_another_user(store: Path) -> None:
    (store / "checkpoint/c.1").chmod(0)
    refused(lambda: repair(store), "checkpoint/c.1: cannot be read now .Permission denied.*nothing was changed")


def test_a_disk_that_fails_under_what_was_read_kills_nobody(folder: Path) -> None:
    import torch

    from featdyn.capture.values import tensors_to_bytes

    path = folder / "run.zarr"
    spec = ArraySpec("layers/big/activation", ("sample", "feature"), (64, 2**14), "float32")
    weights = [tensors_to_bytes({"weight": torch.ones(2**10, 2**10)})]
    schema = Schema((spec,), 64, 64)
    with RunWriter.create(path, schema, static={}, attributes={}) as writer, writer.checkpoint() as checkpoint:
        checkpoint.write(spec.path, np.ones(spec.shape, np.float32))
        checkpoint.put("checkpoints/000000/model.safetensors", weights)
    child = start(read_and_truncate, str(path))
    child.join()
    assert child.exitcode == 0


def counted(read: list[int]) -> Callable[..., Any]:
    """Note how much of files is read in parts."""
    part = Folder.part

    def call(self: Folder, path: str, start: int, length: int) -> Any:
        read.append(length)
        return part(self, path, start, length)

    return call


def test_of_a_large_shard_only_the_samples_that_are_asked_for_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    arrays = (
        ArraySpec("layers/first", ("sample", "feature"), (61, 2**13), "float32"),
        ArraySpec("layers/second", ("feature", "sample"), (2**13, 61), "float32"),
    )
    for codec in ("none", "zstd"):
        path = folder / f"{codec}.zarr"
        values = {spec.path: rng.integers(0, 9, spec.shape).astype("float32") for spec in arrays}
        schema = Schema(arrays, 61, 64, codec)
        with RunWriter.create(path, schema, static={}, attributes={}) as writer, writer.checkpoint() as checkpoint:
            for spec in arrays:
                checkpoint.write(spec.path, values[spec.path])
        run, read = Run(path), []
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "part", counted(read))
            patch.setattr(Folder, "view", lambda *_: pytest.fail("read as a whole"))
            for rows in (slice(0, 1), slice(7, 23), slice(60, 61), slice(-3, None), slice(5, 5)):
                np.testing.assert_array_equal(run.block("layers/first", 0, 0, rows=rows), values["layers/first"][rows])
                found = run.block("layers/second", 0, 0, rows=rows)
                np.testing.assert_array_equal(found, values["layers/second"][:, rows])
        assert sum(read) < 10 * values["layers/first"].nbytes
        np.testing.assert_array_equal(run.block("layers/first", 0, 0), values["layers/first"])


RENAME = os.rename


def test_a_full_disk_after_the_rename_says_what_is_committed(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    run, commits = Run(store), len(Run(store).commits)
    at, said = 0, 0
    while True:  # each operation after the rename in turn
        at += 1
        caplog.clear()
        faults = Faults(0, code=errno.ENOSPC)

        def renamed(source: Any, target: Any, faults: Faults = faults, at: int = at) -> None:
            RENAME(source, target)
            if Path(target) == store / "zarr.json":  # the commit
                faults.at = faults.count + at

        with faults.installed(), mock.patch.object(os, "rename", renamed):
            path = commit_result(run, "r", RESULT)
        commits += 1
        assert path == f"results/r/{commits:06d}"
        assert len(Run(store).commits) == commits
        if not faults.at or faults.count < faults.at:
            break
        if caplog.text:  # a folder that is there already need not be made
            assert f"{path} is committed" in caplog.text
            assert full.strerror in caplog.text
            said += 1
    assert said > 3
    with RunWriter.open(store) as writer:
        monkeypatch.setattr(publish.roots, "repeat", mock.Mock(side_effect=full))
        with writer.checkpoint() as checkpoint:
            fill(checkpoint)
        assert "checkpoint 2 is committed; its copies could not be written yet (No space left on device)" in caplog.text
        refused(lambda: writer.result("r", RESULT), "the disk is full; its 3 committed checkpoints are safe")
    assert files.LOG is publish.LOG
