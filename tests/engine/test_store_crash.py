"""A writer that dies or fails at any file operation leaves a store of whole commits, and can be continued."""

from __future__ import annotations

import builtins
import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr

from featdyn.errors import StoreError
from featdyn.store import ArraySpec, CheckpointWriter, Run, RunWriter, Schema, datasets, exists, files, verify
from tests.engine.spec_reader import SpecReader

SAMPLES, CHECKPOINTS = 3, 2
SCHEMA = Schema(
    (
        ArraySpec("checkpoint", (), (), "int64"),
        ArraySpec("layers/a/activation", ("sample", "feature"), (SAMPLES, 2), "float32"),
    ),
    SAMPLES,
    2,
)
NAMES = np.array([f"s{i}" for i in range(SAMPLES)], dtype=object)
STATIC = {"": xr.Dataset(coords={"sample": NAMES})}
RESULT = xr.Dataset({"value": ("probe", np.arange(3.0))})


class Killed(BaseException):
    """The process is gone: not an Exception, so that nothing handles it."""


class Faults:
    """Counts changes to the file system and lets the chosen one fail: by an error, or with the process.

    After a kill nothing changes the disk any more, whatever the code still tries.
    """

    def __init__(self, at: int = 0, *, kill: bool = False, code: int = errno.EIO) -> None:
        self.at, self.kill, self.code = at, kill, code
        self.count, self.dead = 0, False

    def change(self, partly: Callable[[], object] | None = None) -> None:
        """Be called before each change; ``partly`` does some of it, which a fault may leave behind."""
        if self.dead:
            raise Killed
        self.count += 1
        if self.count == self.at:
            if partly is not None:
                partly()
            self.dead = self.kill
            raise Killed if self.kill else OSError(self.code, os.strerror(self.code))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand between the store and the operating system."""
        names = ("fsync", "rename", "mkdir", "unlink", "rmdir")
        with (
            mock.patch.object(files, "open", self.open, create=True),
            mock.patch.multiple(os, **{name: self.guarded(getattr(os, name)) for name in names}),
        ):
            yield

    def guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*args: Any, **kwargs: Any) -> Any:
            self.change()
            return call(*args, **kwargs)

        return guard

    def open(self, path: Path, mode: str, buffering: int = -1) -> Any:
        if mode != "wb":
            return builtins.open(path, mode, buffering)
        self.change()
        return FaultyFile(self, path)


class FaultyFile:
    """A file whose writes may fail half-way; unbuffered, as what a dead process has buffered is lost."""

    def __init__(self, faults: Faults, path: Path) -> None:
        self.faults = faults
        self.file = builtins.open(path, "wb", buffering=0)  # noqa: SIM115

    def write(self, content: bytes) -> int:
        self.faults.change(lambda: self.file.write(bytes(content)[: len(content) // 2]))
        return self.file.write(content)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self.file.fileno()

    def __enter__(self) -> FaultyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def fill(checkpoint: CheckpointWriter) -> None:
    """Write one checkpoint: five files."""
    t = checkpoint.index
    checkpoint.write("checkpoint", np.array(t))
    for block in range(SCHEMA.blocks):
        rows = range(SAMPLES)[SCHEMA.block_slice(block)]
        checkpoint.write("layers/a/activation", np.array([[t, row] for row in rows], np.float32), block)
    checkpoint.put(f"checkpoints/{t:06d}/model.safetensors", [b"weights", b" %d" % t])


def record(path: str | Path, at_most: int = CHECKPOINTS) -> None:
    """Record, or go on recording: the whole life of a small run."""
    begun = exists(path)
    with (
        RunWriter.open(path) if begun else RunWriter.create(path, SCHEMA, static=STATIC, attributes={"n": 1}) as writer
    ):
        while writer.checkpoints < at_most:
            with writer.checkpoint() as checkpoint:
                fill(checkpoint)
        if at_most == CHECKPOINTS and not Run(path).results("r"):
            writer.result("r", RESULT)


def committed(path: Path) -> dict[str, bytes]:
    """Return all that counts of a store: the root, and every file that follows from it."""
    reader = SpecReader(path)
    listed = [*reader.check(), "zarr.json", *(c["manifest"]["path"] for c in reader.state["commits"])]
    return {name: (path / name).read_bytes() for name in listed}


def is_a_prefix(path: Path, whole: dict[str, bytes]) -> bool:
    """Whether a folder holds exactly some commits of the whole run, or is no store yet."""
    if not (path / "zarr.json").exists():
        with pytest.raises(StoreError, match=r"no such folder|first checkpoint never came"):
            Run(path)
        return True
    run, found = Run(path), committed(path)
    for t in range(run.checkpoints):
        np.testing.assert_array_equal(run.block("layers/a/activation", t, 1), [[t, 2]])
    np.testing.assert_array_equal(run.values("checkpoint"), np.arange(run.checkpoints))
    return verify(path).sound and all(whole[name] == content for name, content in found.items() if name != "zarr.json")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where there is one: thousands of small files come and go here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """The files of a run that nothing disturbed, and how many changes to the file system it takes."""
    path, faults = tmp_path_factory.mktemp("whole") / "run.zarr", Faults()
    with faults.installed():
        record(path)
    return committed(path), faults.count


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing, and let zarr encode each dataset once: hundreds of runs are written here."""
    encode, known = datasets.encode, {}

    def encoded(dataset: xr.Dataset, path: str) -> Any:
        if path not in known:
            known[path] = encode(dataset, path)
        return known[path]

    monkeypatch.setattr(datasets, "encode", encoded)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("fault", ["kill", "error", "full disk"])
def test_a_fault_at_every_single_operation(folder: Path, whole: tuple[dict[str, bytes], int], fault: str) -> None:
    expected, operations = whole
    assert operations > 100
    ends = set()
    for at in range(1, operations + 1, 7 if fault == "full disk" else 1):  # to the store it is an error like another
        path = folder / f"{at}" / "run.zarr"
        faults = Faults(at, kill=fault == "kill", code=errno.ENOSPC if fault == "full disk" else errno.EIO)
        message = ""  # stays so where the fault hits what may fail
        try:
            with faults.installed():
                record(path)
        except (Killed, StoreError) as error:
            message = str(error)
            ends.add(type(error))
        assert not message or {"full disk": "disk is full", "error": "Input/output error"}[fault] in message
        assert "\n" not in message
        assert is_a_prefix(path, expected), at
        if fault != "kill" and not (path / "zarr.json").exists():
            assert not path.exists() or faults.count == at  # nothing is left, unless cleaning up was what failed
        record(path)
        assert committed(path) == expected, at
        assert not list(path.rglob("*.new")), at
    assert ends == {Killed if fault == "kill" else StoreError}


def test_two_faults_in_a_row(folder: Path, whole: tuple[dict[str, bytes], int]) -> None:
    expected, operations = whole
    generator = random.Random(0)
    for trial in range(40):
        path = folder / f"{trial}" / "run.zarr"
        for _ in range(3):
            try:
                with Faults(generator.randint(1, operations), kill=generator.random() < 0.7).installed():
                    record(path)
            except (Killed, StoreError):
                pass
            assert is_a_prefix(path, expected)
        record(path)
        assert committed(path) == expected


def test_a_full_disk_keeps_what_is_committed_and_gives_back_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    record(path, 1)
    before = {p for p in path.rglob("*") if p.is_file()}
    with RunWriter.open(path) as writer:
        line = "disk is full; its 1 committed checkpoints are safe: free some room"
        with (
            pytest.raises(StoreError, match=line),
            writer.checkpoint() as checkpoint,
            Faults(9, code=errno.ENOSPC).installed(),
        ):
            fill(checkpoint)
        assert {p for p in path.rglob("*") if p.is_file()} == before
        assert writer.checkpoints == 1  # and it can go on
    record(path)
    assert Run(path).checkpoints == CHECKPOINTS


def test_after_a_commit_that_failed_the_writer_goes_no_further(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    record(path, 1)
    with RunWriter.open(path) as writer:
        broken = mock.patch.object(files.Folder, "replace", side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
        with broken, pytest.raises(StoreError, match="Input/output error"), writer.checkpoint() as checkpoint:
            fill(checkpoint)
        with pytest.raises(StoreError, match="open the store again"):
            writer.result("r", RESULT)
        with pytest.raises(StoreError, match="its commit failed"):
            writer.checkpoint().write("checkpoint", np.array(1))
    assert Run(path).checkpoints == 1


LOOP = """
import sys
from pathlib import Path
from tests.engine import test_store_crash as crash
crash.CHECKPOINTS = int(sys.argv[2])
print("ready", flush=True)
crash.record(Path(sys.argv[1]), crash.CHECKPOINTS)
"""


def killed_at_random(path: Path, checkpoints: int, kills: int, seed: int) -> None:
    """Record in child processes that are killed at random moments, and check the store after each."""
    generator = random.Random(seed)
    command = [sys.executable, "-c", textwrap.dedent(LOOP), str(path), str(checkpoints)]
    seen = 0
    for _ in range(kills):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(generator.uniform(0, 0.4))
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        if (path / "zarr.json").exists():
            assert verify(path).sound
            run = Run(path)
            assert run.checkpoints >= seen
            seen = run.checkpoints
            np.testing.assert_array_equal(run.tree["checkpoint"].values, np.arange(seen))
            np.testing.assert_array_equal(run.tree["layers/a/activation"][:, 2], [[t, 2] for t in range(seen)])
    record(path, seen + 1)
    record(path.with_name("undisturbed.zarr"), seen + 1)
    assert committed(path) == committed(path.with_name("undisturbed.zarr"))


def test_killed_processes(tmp_path: Path) -> None:
    killed_at_random(tmp_path / "run.zarr", 10_000, kills=3, seed=1)


@pytest.mark.slow
def test_many_killed_processes(tmp_path: Path) -> None:
    for trial in range(10):
        killed_at_random(tmp_path / f"{trial}" / "run.zarr", 10_000, kills=5, seed=trial)
