"""A writer that dies or fails at any file operation leaves a store of whole commits, and can be continued."""

from __future__ import annotations

import errno
import os
import random
import re
from contextlib import suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, files, repair, verify
from tests.engine.faults import LEAST, TORN, Choose, Disk, Faults, Killed
from tests.engine.runs import encode_once
from tests.engine.small_run import CHECKPOINTS, RESULT, check, fill, record
from tests.engine.spec_reader import SpecReader


def committed(path: Path) -> dict[str, bytes]:
    """Return all that counts of a store: the root, and every file that follows from it."""
    reader = SpecReader(path)
    listed = [*reader.check(), "zarr.json", *(c["manifest"]["path"] for c in reader.commits)]
    return {name: (path / name).read_bytes() for name in listed}


def is_a_prefix(path: Path, whole: dict[str, bytes]) -> bool:
    """Whether a folder holds exactly some commits of the whole run, or is no store yet."""
    if not (path / "zarr.json").exists():
        with pytest.raises(StoreError, match=r"no such folder|first checkpoint never came"):
            Run(path)
        return True
    run, found = Run(path), committed(path)
    check(run)
    # The manifests, which are equal, hold what counts of a chunk of several checkpoints.
    same = [whole[n] == content for n, content in found.items() if n != "zarr.json" and not n.startswith("norm/")]
    return verify(path).sound and all(same)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Faults]:
    """The files of a run that nothing disturbed, and which changes to the file system it took."""
    path, faults = tmp_path_factory.mktemp("whole") / "run.zarr", Faults()
    with faults.installed():
        record(path)
    return committed(path), faults


@pytest.fixture
def whole(undisturbed: tuple[dict[str, bytes], Faults]) -> tuple[dict[str, bytes], int]:
    """The files of a run that nothing disturbed, and how many changes to the file system it takes."""
    expected, faults = undisturbed
    return expected, faults.count


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let zarr encode each dataset once: hundreds of runs are written here."""
    encode_once(monkeypatch)


SLOW = pytest.mark.slow  # the other kinds go the same ways through the code


@pytest.mark.parametrize(
    ("fault", "every"),  # a power cut is a kill too, and a full disk is to the store an error like another
    [("kill", 5), ("full disk", 7), pytest.param("kill", 1, marks=SLOW), pytest.param("error", 1, marks=SLOW)],
)
def test_a_fault_at_operations(folder: Path, whole: tuple[dict[str, bytes], int], fault: str, every: int) -> None:
    expected, operations = whole
    assert operations > 100
    ends = set()
    for at in range(1, operations + 1, every):
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


@pytest.mark.parametrize("dies_after", [1, 6, 10_000])
def test_a_write_that_stops_half_way_in_silence(
    folder: Path, undisturbed: tuple[dict[str, bytes], Faults], dies_after: int
) -> None:
    expected, faults = undisturbed
    assert len(faults.writes) > 20
    seen = set()
    for cut in faults.writes:
        path = folder / f"{cut}.zarr"
        with suppress(Killed, StoreError), Faults(cut + dies_after, kill=True, cut=cut).installed():
            record(path)
        try:
            problems = verify(path).problems
        except StoreError:  # no store yet, or a root that was cut
            problems = ("the root",) if (path / "zarr.json").exists() else ()
        assert len(problems) <= 1
        seen.add(len(problems))
        message = ""
        try:
            if problems:
                repair(path)
        except StoreError as error:
            message = str(error)
        if message:
            assert re.search("reaches the first commit|no whole copy", message)
            continue
        assert is_a_prefix(path, expected), cut
        record(path)
        assert committed(path) == expected, cut
    assert seen == ({0, 1} if dies_after > 1 else {0})


@pytest.mark.parametrize(
    "choose",
    [pytest.param(LEAST, marks=SLOW), pytest.param(TORN, marks=SLOW), random.Random(0).choice],
    ids=["least", "torn", "any"],
)
def test_a_power_cut_at_every_single_operation(
    folder: Path, whole: tuple[dict[str, bytes], int], choose: Choose
) -> None:
    expected, operations = whole
    known = 0
    for at in range(1, operations + 2):
        (folder / f"{at}").mkdir()
        path, disk = folder / f"{at}" / "run.zarr", Disk(at)
        with suppress(Killed), disk.installed():
            record(path)
        before = len(Run(path).commits) if (path / "zarr.json").exists() else 0
        disk.lose_power(folder / f"{at}", choose)
        assert is_a_prefix(path, expected), at
        after = len(Run(path).commits) if (path / "zarr.json").exists() else 0
        assert before - 1 <= after <= before  # only the commit whose publication was not synced yet may be lost
        assert known <= after, at  # what had returned earlier is there
        known = after
        record(path)
        assert committed(path) == expected, at
    assert known == CHECKPOINTS + 1


def test_two_faults_in_a_row(folder: Path, whole: tuple[dict[str, bytes], int]) -> None:
    expected, operations = whole
    generator = random.Random(0)
    for trial in range(20):
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
    record(path, "c")
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
    record(path, "c")
    with RunWriter.open(path) as writer:
        broken = mock.patch.object(files.Folder, "replace", side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
        with broken, pytest.raises(StoreError, match="Input/output error"), writer.checkpoint() as checkpoint:
            fill(checkpoint)
        with pytest.raises(StoreError, match="open the store again"):
            writer.result("r", RESULT)
        with pytest.raises(StoreError, match="its commit failed"):
            writer.checkpoint().write("checkpoint", np.array(1))
    assert Run(path).checkpoints == 1
