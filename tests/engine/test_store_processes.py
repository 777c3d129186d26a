"""Several processes at one store, folders that cannot be written, and disks that are really full."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, gc, repair, verify
from tests.engine.forked import start
from tests.engine.runs import refused
from tests.engine.small_run import check, fill, record, record_patiently, record_until
from tests.engine.test_store_crash import committed

LONG = "ccr" * 8


def test_readers_while_another_process_writes(folder: Path) -> None:
    path, stop, seen, errors = folder / "run.zarr", folder / "stop", [set(), set()], []
    writer = start(record_until, path, stop)

    def read(number: int) -> None:
        try:
            kept: list[Run] = []
            while len(seen[number]) < 8 and writer.is_alive():
                if not (path / "zarr.json").exists():
                    time.sleep(0.01)
                    continue
                run = Run(path)
                check(run)
                assert verify(path).sound
                seen[number].add(len(run.commits))
                kept = [*kept[-3:], run]
                check(kept[0])  # opened a while ago
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.touch()
    writer.join()
    assert not errors
    assert writer.exitcode == 0
    assert [len(counts) for counts in seen] == [8, 8]
    check(Run(path))


def test_writers_in_several_processes_take_turns(folder: Path) -> None:
    path, log = folder / "run.zarr", folder / "log"
    log.mkdir()
    writers = [start(record_patiently, str(path), LONG, str(log)) for _ in range(3)]
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [0, 0, 0]
    record(folder / "alone.zarr", LONG)
    assert committed(path) == committed(folder / "alone.zarr")
    refusals = {line for file in log.iterdir() for line in file.read_text().splitlines()}
    known = ("is being written by", "was given up by another writer", "a store is there already", "not empty and not")
    assert not [line for line in refusals if not any(words in line for words in (*known, "no such folder"))]


def as_nobody(path: str, log: str) -> None:
    check(Run(path))  # imports what reading needs, from folders that nobody may not read
    os.setgid(65534)
    os.setuid(65534)
    store, lines = Path(path), []
    for call in (RunWriter.open, repair, gc):
        try:
            call(store)
        except StoreError as error:
            lines.append(str(error))
    try:
        record(store.with_name("new.zarr"))
    except StoreError as error:
        lines.append(str(error))
    check(Run(store))
    lines.append(f"sound: {verify(store).sound}")
    Path(log).write_text("\n".join(lines))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_somebody_else_may_read_and_is_refused_to_write(folder: Path) -> None:
    folder.chmod(0o755)
    record(folder / "run.zarr")
    log = folder / "log"
    log.touch()
    log.chmod(0o666)
    before = committed(folder / "run.zarr")
    child = start(as_nobody, str(folder / "run.zarr"), str(log))
    child.join()
    assert child.exitcode == 0
    denied = "Permission denied"
    cannot = f"{folder / 'run.zarr'} cannot be written: {denied}"
    assert log.read_text().splitlines() == [cannot] * 3 + [f"{folder / 'new.zarr'}: {denied}", "sound: True"]
    assert committed(folder / "run.zarr") == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 512 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=512k", "none", str(disk)], capture_output=True, check=False
    )
    if not done or done.returncode:
        pytest.skip("a small file system cannot be mounted here; test_store_crash simulates a full disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, tmp_path: Path) -> None:
    path, plan = small_disk / "run.zarr", "c" * 400
    refused(lambda: record(path, plan), "the disk is full; its [0-9]+ committed checkpoints are safe: free some room")
    run = Run(path)
    assert run.checkpoints > 3
    check(run)
    assert verify(path).sound
    assert not gc(path).removed  # what did not fit was given back
    kept = committed(path)
    refused(lambda: record(path, plan), "the disk is full")  # and again: nothing is lost by trying
    assert committed(path).items() >= {k: v for k, v in kept.items() if k != "zarr.json"}.items()
    (path / "checkpoints/000002/model.safetensors").unlink()
    with suppress(StoreError):  # there may be room for a smaller root, or not
        repair(path)
    assert Run(path).checkpoints > 1
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    repair(path)
    record(path, "c" * 30)
    record(tmp_path / "roomy.zarr", "c" * 30)
    assert committed(path) == committed(tmp_path / "roomy.zarr")


def test_a_full_disk_before_the_first_commit_leaves_nothing(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    path = small_disk / "run.zarr"
    refused(lambda: record(path), "disk is full|cannot be written: No space|No space")
    filler.unlink()
    assert not path.exists()
    record(path)
    with RunWriter.open(path) as writer, writer.checkpoint() as checkpoint:
        fill(checkpoint)
    assert verify(path).sound
