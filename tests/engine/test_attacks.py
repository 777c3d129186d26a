"""The table of attacks in SPEC.md is that of its script, some of each row are tried here, and it can fail."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from featdyn.store import files, lock
from featdyn.store.record import FileRecord, crc32c
from tests import attacks
from tests.engine.runs import encode_once

ROWS = list(attacks.rows())
FEW = 97  # calls to one that is tried
OFTEN = re.compile("a checkpoint|a repair, power|a collection.*killed|each request is")
TRIED = [pytest.param(row, marks=[] if OFTEN.match(row[1]) else pytest.mark.slow) for row in ROWS]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    encode_once(monkeypatch)


def test_the_table_of_the_specification_has_the_rows_of_the_script() -> None:
    text = attacks.SPEC.read_text()
    table = text.partition(attacks.MARKS[0])[2].partition(attacks.MARKS[1])[0]
    lines = [line for line in table.splitlines()[2:] if line.startswith("|")]
    rows = [tuple(map(str.strip, line.strip("|").split("|"))) for line in lines]
    assert [row[:2] for row in rows] == ROWS
    assert all(int(tries) > 0 and result == "kept" for _, _, tries, result in rows)


@pytest.mark.parametrize("row", TRIED, ids=[re.sub(r"\W+", "_", attack)[:60] for _, attack in ROWS])
def test_some_of_each_row(row: tuple[str, str]) -> None:
    outcomes = list(attacks.rows()[row](FEW))
    assert outcomes
    assert not [outcome for outcome in outcomes if outcome]


def broken(attack: str, every: int) -> str | None:
    """Return what is found broken of one row, the first of it."""
    (attempts,) = [attempts for (_, name), attempts in attacks.rows().items() if name.startswith(attack)]
    return next(filter(None, attempts(every)), None)


def test_a_root_that_is_published_before_its_data_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    write, publish, kept = files.Folder.write, files.Folder.publish, []

    def later(self: files.Folder, path: str, pieces: Iterable[bytes]) -> FileRecord:
        content = b"".join(pieces)
        kept.append((path, content))
        return FileRecord(path, len(content), crc32c(content))

    def first(self: files.Folder, path: str, *args: Any, **keywords: Any) -> Any:
        version = publish(self, path, *args, **keywords)
        while kept:
            name, content = kept.pop(0)
            write(self, name, [content])
        return version

    monkeypatch.setattr(files.Folder, "write", later)
    monkeypatch.setattr(files.Folder, "settle", lambda self, paths: None)
    monkeypatch.setattr(files.Folder, "publish", first)
    assert broken("a checkpoint, killed at each change of a folder", 3)


@pytest.mark.parametrize("left_out", ["the folders", "the files"])
def test_what_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch, left_out: str) -> None:
    if left_out == "the folders":
        monkeypatch.setattr(files, "sync_folder", lambda folder: None)
    else:
        write = files.Folder.write

        def unsynced(self: files.Folder, path: str, pieces: Iterable[bytes]) -> FileRecord:
            with monkeypatch.context() as patch:
                patch.setattr(files.os, "fsync", lambda descriptor: None)
                return write(self, path, pieces)

        monkeypatch.setattr(files.Folder, "write", unsynced)
    assert broken("a checkpoint, power lost", 5)


def test_a_lock_that_is_not_held_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", SimpleNamespace(**vars(fcntl) | {"flock": lambda descriptor, operation: None}))
    assert broken("a checkpoint, its process stopped", 20)


def test_the_script_ends_with_one_where_a_promise_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "SPEC.md"
    file.write_text(f"before\n{attacks.MARKS[0]}old\n{attacks.MARKS[1]}after\n")
    for outcomes, code, result in (([None, None], 0, "2 | kept"), ([None, "gone", "x"], 1, "3 | BROKEN 2 times: gone")):
        monkeypatch.setattr(attacks, "rows", lambda o=outcomes: {("all stays", "none"): lambda every: iter(o)})
        monkeypatch.setattr("sys.argv", ["attacks", str(file)])
        with pytest.raises(SystemExit) as end:
            attacks.main()
        assert end.value.code == code
        text = file.read_text()
        assert f"| all stays | none | {result} |" in text
        assert "old" not in text
        assert text.startswith("before\n")
        assert text.endswith("after\n")
