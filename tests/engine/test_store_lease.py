"""Where a file system has no locks, that is said, and a writer takes a lease, as in a bucket."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from featdyn.store import Run, RunWriter, commit_result, gc, lease, repair, verify
from featdyn.store.lease_file import LeaseFile
from featdyn.store.lock import NAME
from featdyn.store.record import Refused
from featdyn.store.right import HeldError
from tests.engine.buckets import Clock
from tests.engine.dict_place import Dictionary
from tests.engine.forked import start
from tests.engine.runs import refused, tree
from tests.engine.small_run import RESULT, fill, record
from tests.engine.test_store_crash import committed
from tests.engine.test_store_turns import add_checkpoint, failing

CODES = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have no locks; let time pass on demand, and no lease be renewed in the background."""
    found = Clock()
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    monkeypatch.setattr(lease, "now", found)
    monkeypatch.setattr(lease, "RENEWED", 1e6)
    return found


@pytest.mark.parametrize("code", CODES)
def test_a_run_is_recorded_as_anywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    path, other = folder / "run.zarr", folder / "other.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *_: None)
        record(other)
    monkeypatch.setattr(fcntl, "flock", failing(code))
    record(path, "cc")
    record(path)
    assert f"{path}: its file system has no file locks ({os.strerror(code)}): a lease is taken instead" in caplog.text
    assert committed(path).keys() == committed(other).keys()
    assert commit_result(Run(path), "r", RESULT) == "results/r/000004"
    assert not gc(path).removed
    assert not repair(path).changed
    assert verify(path).sound


def test_a_second_writer_is_refused_until_the_lease_has_run_out(folder: Path, clock: Clock) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    run, first = Run(path), RunWriter.open(path)
    held = rf"is being written by process {os.getpid()} on .*\(if it is gone already, try again in 60 s\)"
    for call in (RunWriter.open, gc, repair, lambda p: commit_result(run, "r", RESULT, patience=0)):
        refused(lambda call=call: call(path), held)
    add_checkpoint(first)
    clock.expire()
    with RunWriter.open(path) as second:  # it takes over
        assert Run(path).commits == (*run.commits, Run(path).commits[1])
        before = tree(path)
        ended = "this writer's lease ended"
        refused(lambda: first.checkpoint().write("checkpoint", np.array(2)), ended)
        refused(lambda: first.result("r", RESULT), ended)
        first.close()
        assert tree(path) == before
        add_checkpoint(second)
    RunWriter.open(path).close()  # given back, so at once
    assert Run(path).checkpoints == 3
    assert verify(path).sound


def test_a_lease_lost_in_the_middle_of_a_commit_publishes_nothing(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    with RunWriter.open(path) as writer:
        before = (path / "zarr.json").read_bytes()
        fsync = os.fsync

        def sleep(descriptor: int) -> None:
            fsync(descriptor)
            if (path / "commits/000002.json").exists():
                clock.expire()
                monkeypatch.setattr(os, "fsync", fsync)
                RunWriter.open(path).close()

        monkeypatch.setattr(os, "fsync", sleep)
        with pytest.raises(Exception, match="this writer's lease ended"), writer.checkpoint() as checkpoint:
            fill(checkpoint)
    assert len(Run(path).commits) == 1
    assert json.loads((path / "zarr.json").read_bytes())["attributes"]["n"] == json.loads(before)["attributes"]["n"]


def test_who_has_ended_on_this_machine_holds_nothing(folder: Path) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    ended = start(os.getpid)
    ended.join()
    writer = RunWriter.open(path)
    (name,) = path.glob(f"{NAME}.*")
    said = json.loads(name.read_bytes())
    refused(lambda: RunWriter.open(path), f"being written by process {os.getpid()} on")
    name.write_text(json.dumps(said | {"pid": ended.pid, "holder": f"process {ended.pid} on here"}))
    RunWriter.open(path).close()
    name = max(path.glob(f"{NAME}.*"))
    name.write_text(json.dumps(said | {"pid": ended.pid, "machine": "another", "holder": "process 7 on another"}))
    refused(lambda: RunWriter.open(path), "being written by process 7 on another")  # nobody here knows
    writer.close()


def test_one_of_many_gets_the_next_version(folder: Path) -> None:
    file, won = LeaseFile(folder), []
    for version in (None, *range(1, 20)):
        barrier = threading.Barrier(4)

        def put(content: bytes, version: int | None = version, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            with contextlib.suppress(Refused):
                won.append((file.put_if("lock", content, version), content))

        threads = [threading.Thread(target=put, args=(b"%d" % i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        number = (version or 0) + 1
        assert [n for n, _ in won].count(number) == 1
        found = file.get("lock")
        assert found is not None
        assert (found.version, found.content) == won[-1]
        for stale in (None, version, number + 1):
            if stale != number:
                with pytest.raises(Refused):
                    file.put_if("lock", b"stale", stale)
    assert [p.name for p in folder.iterdir()] == ["lock.20"]


def test_a_writer_killed_while_it_takes_the_lease_keeps_it_for_its_time(folder: Path, clock: Clock) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    newest = max(int(p.suffix[1:]) for p in path.glob(f"{NAME}.*"))
    empty = path / f"{NAME}.{newest + 1}"
    empty.touch()
    os.utime(empty, (clock.time, clock.time))
    refused(lambda: RunWriter.open(path), "is being written by another process")
    clock.expire()
    record(path, "cc")
    assert Run(path).checkpoints == 2


def test_each_takeover_is_counted_by_one_and_stays(folder: Path, clock: Clock) -> None:
    path, counts = folder / "run.zarr", []
    record(path, "c")
    for taken in (False, True, True, False):
        with contextlib.ExitStack() as ended:
            if taken:
                ended.callback(RunWriter.open(path).close)  # only once another has come
                clock.expire()
            with RunWriter.open(path) as writer:
                add_checkpoint(writer)
        counts.append(json.loads((path / "zarr.json").read_bytes())["attributes"]["featdyn"].get("takeovers", 0))
    assert counts == [0, 1, 2, 2]


def test_several_processes_need_locks(folder: Path) -> None:
    path = folder / "run.zarr"
    record(path, "c")
    with RunWriter.open(path) as writer:
        refused(writer.invite, "several processes cannot record into one store on a file system without locks")


def test_a_lease_that_another_takes_while_it_is_taken_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first put is accepted, and the next one finds another writer's."""
    put = Dictionary.put_if

    def late(self, path, content, before):
        if before is not None:
            raise Refused
        return put(self, path, content, before)

    monkeypatch.setattr(Dictionary, "put_if", late)
    mine = lease.Lease(Dictionary(), "a store")
    with pytest.raises(HeldError, match="another writer since just now"):
        mine.acquire()
    assert not mine.held
