"""Several processes that write: results between checkpoints, locks that end with their process, disks without locks."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featdyn
from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, commit_result, files, gc, locate, lock, publish, repair, verify
from featdyn.store import root as roots
from featdyn.store.lock import NAME, TURN, FolderLock
from featdyn.store.root import COPY, Root
from tests.engine.faults import Faults, Killed
from tests.engine.forked import start
from tests.engine.runs import encode_once, refused, tree
from tests.engine.small_run import RESULT, SCHEMA, STATIC, fill, fork_and_fail, fork_and_wait, record
from tests.engine.test_store_crash import committed


def add_checkpoint(writer: RunWriter) -> None:
    with writer.checkpoint() as checkpoint:
        fill(checkpoint)


def reference(path: Path, plan: str, inputs: list[int]) -> dict[str, bytes]:
    """Return the files of a run of one writer whose results say that they come from these commits."""
    left = iter(inputs)
    with RunWriter.create(path, SCHEMA, static=STATIC, attributes={"n": 1}) as writer:
        for kind in plan:
            if kind == "c":
                add_checkpoint(writer)
            else:
                writer.result("r", RESULT.assign_attrs(input_commit=next(left)))
    return committed(path)


def test_results_are_committed_while_a_training_goes_on(folder: Path) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    with RunWriter.open(path) as training:
        early = Run(path)
        assert commit_result(Run(path), "r", RESULT) == "results/r/000002"
        half = training.checkpoint()
        fill(half)
        assert commit_result(early, "r", RESULT) == "results/r/000003"  # its shards are there, and it is not committed
        half.commit()
        add_checkpoint(training)
        assert training.result("r", RESULT.assign_attrs(input_commit=5)) == "results/r/000006"
        for call in (RunWriter.open, gc, repair):
            refused(lambda call=call: call(path), f"is being written by process {os.getpid()}")
    assert committed(path) == reference(folder / "one.zarr", "crrccr", [1, 1, 5])
    assert (path / COPY).read_bytes() == (path / "zarr.json").read_bytes()
    run = Run(path)
    assert [run.tree[name].attrs["input_commit"] for name in run.results("r")] == [1, 1, 5]


def test_two_analyses_that_end_at_once_both_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    run, paths = Run(path), []
    turn = FolderLock(path, TURN)
    turn.acquire()
    threads = [threading.Thread(target=lambda: paths.append(commit_result(run, "r", RESULT))) for _ in range(3)]
    for thread in threads:
        thread.start()
    refused(lambda: commit_result(run, "r", RESULT, patience=0.1), f"is being written by process {os.getpid()} on")
    assert not paths
    turn.release()
    for thread in threads:
        thread.join()
    assert sorted(paths) == [f"results/r/{n:06d}" for n in (2, 3, 4)]
    assert verify(path).sound


@pytest.mark.parametrize("how", ["kill", "error"])
def test_a_result_that_fails_at_any_operation_costs_a_training_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    encode_once(monkeypatch)
    record(folder / "begun.zarr", "c")
    whole = {n: reference(folder / f"{n}.zarr", "c" + "r" * n + "c", [1] * n) for n in (0, 1)}
    at, seen = 0, set()
    while True:
        at += 1 if how == "kill" else 3
        path = folder / f"at{at}.zarr"
        shutil.copytree(folder / "begun.zarr", path)
        faults = Faults(at, kill=how == "kill")
        with RunWriter.open(path) as training:
            with suppress(Killed, StoreError), faults.installed():
                commit_result(Run(path), "r", RESULT)
            results = len(Run(path).results("r"))
            add_checkpoint(training)
        seen.add(results)
        assert committed(path) == whole[results], at
        root = Root.read(path)
        assert (path / COPY).read_bytes() == root.encode()
        for node, document in root.nodes.items():
            assert (path / node / "zarr.json").read_bytes() == roots.metadata.encode(document)
        if faults.count < at:
            break
    assert at > 15
    assert seen == {0, 1}


def test_what_another_writer_replaced_is_not_gone_on_with(folder: Path) -> None:
    path = folder / "run.zarr"
    record(path, "cc")
    run = Run(path)
    with RunWriter.open(path) as training:
        shutil.rmtree(path)
        with RunWriter.create(path, SCHEMA, static=STATIC, attributes={"n": 2}) as writer, writer.checkpoint() as first:
            fill(first)
            first.write("checkpoint", np.array(5))
        before = tree(path)
        refused(lambda: add_checkpoint(training), "moved, replaced or removed .*: nothing more is written there")
        refused(lambda: commit_result(run, "r", RESULT), "checkpoints were replaced while r was computed: run it again")
        assert before.items() <= tree(path).items()


def test_a_commit_that_everybody_sees_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    with RunWriter.open(path) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(roots, "repeat", failing(1))
            writer.result("r", RESULT)  # renamed: only the copies are missing
        assert Run(path).results("r") == ["results/r/000002"]
        assert (path / COPY).read_bytes() != (path / "zarr.json").read_bytes()
        with monkeypatch.context() as patch:  # nothing more is published before the copies have followed
            patch.setattr(roots, "repeat", failing(1))
            refused(lambda: writer.result("r", RESULT), "its 1 committed checkpoints are safe")
        assert len(Run(path).commits) == 2
        writer.result("r", RESULT)
        assert (path / COPY).read_bytes() == (path / "zarr.json").read_bytes()
    synced = files.sync_folder

    def sync(synced_folder: str | Path) -> None:
        if Path(synced_folder) == path and len(Root.read(path).commits) == 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced(synced_folder)

    monkeypatch.setattr(files, "sync_folder", sync)
    assert commit_result(Run(path), "r", RESULT) == "results/r/000004"
    assert "may not outlast a power cut" in caplog.text
    assert verify(path).sound


def read_only(opened: Callable[..., int]) -> Callable[..., int]:
    """Return what opens files as a file system does that is mounted read-only."""

    def open_to_read(path: Any, flags: int, *rest: Any, **keywords: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *rest, **keywords)

    return open_to_read


def failing(code: int) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_forked_child_neither_keeps_nor_loses_a_lock(folder: Path) -> None:
    path = str(folder / "run.zarr")
    record(path, "c")
    process = start(fork_and_fail, path)
    process.join()
    assert process.exitcode == 0
    assert Run(path).checkpoints == 2
    assert verify(path).sound
    here, there = multiprocessing.Pipe()
    process = start(fork_and_wait, path, there)
    child = here.recv()
    try:
        refused(lambda: RunWriter.open(path), f"is being written by process {process.pid} on")
        process.kill()
        process.join()
        os.kill(child, 0)  # it lives
        record(path, "ccc")  # and does not keep its parent's lock
    finally:
        os.kill(child, signal.SIGKILL)
    assert Run(path).checkpoints == 3


def test_a_lock_given_back_is_free_whoever_has_its_file_open(folder: Path) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    writer = RunWriter.open(path)
    # As in a child that was forked by other means than Python's, and shares the open file.
    shared = os.dup(writer._lock._file.descriptor)
    writer.close()
    record(path, "cc")
    os.close(shared)
    writer.close()  # again: nothing happens


@pytest.mark.parametrize(
    "name", ["process {} on {host}", "process {} on elsewhere", "process x on {host}", "", "process"]
)
def test_who_has_ended_is_never_named_as_the_holder(folder: Path, name: str) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    ended = start(os.getpid)
    ended.join()
    held = FolderLock(path, NAME)
    held.acquire()
    said = name.format(ended.pid, host=socket.gethostname())
    (path / NAME).write_text(said)
    holder = said if "elsewhere" in name else "another process"
    refused(lambda: RunWriter.open(path), f"run.zarr is being written by {holder}: wait for it or stop it$")
    held.release()


def test_without_the_system_s_locks_stores_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(folder / "run.zarr", "c")
    monkeypatch.setattr(lock, "fcntl", None)
    assert Run(folder / "run.zarr").checkpoints == 1
    refused(lambda: RunWriter.open(folder / "run.zarr"), "cannot be written: its file system has no file locks")


def test_how_long_a_result_waits() -> None:
    assert publish.RESULT_WAITS == 60


def test_anybody_commits_a_result_by_path_place_or_run(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    record(path, "cc")
    for number, store in enumerate((lambda: str(path), lambda: path, lambda: locate(path), lambda: Run(path)), 3):
        assert featdyn.commit_result(store(), "mine", RESULT) == f"results/mine/{number:06d}"
        assert Run(path).result("mine").attrs["input_commit"] == number - 1
    refused(lambda: featdyn.commit_result(str(tmp_path / "none.zarr"), "mine", RESULT), "no such folder")
    assert not (tmp_path / "none.zarr").exists()
