"""Output files are replaced whole or written through; what a store says reaches terminals and spreadsheets as text."""

from __future__ import annotations

import io
import os
import shlex
import threading
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featdyn.errors import FeatdynError
from featdyn.output import output_file, quoted, shown
from featdyn.query import render


def write(path: Path, content: bytes = b"new") -> None:
    with output_file(path) as stream:
        stream.write(content)


def test_a_regular_file_is_whole_old_or_whole_new(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with suppress(KeyboardInterrupt), output_file(target) as stream:
        stream.write(b"half")
        stream.flush()
        assert target.read_bytes() == b"old"
        raise KeyboardInterrupt
    assert (target.read_bytes(), os.listdir(tmp_path)) == (b"old", ["f"])
    write(target)
    assert (target.read_bytes(), os.listdir(tmp_path)) == (b"new", ["f"])
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_and_leads_to_the_new_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "link").symlink_to("f")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_pipe_and_a_device_are_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join()
    assert got == [b"new"]
    assert pipe.is_fifo()
    write(Path(os.devnull))
    assert Path(os.devnull).is_char_device()
    if Path("/dev/full").exists():
        with pytest.raises(FeatdynError, match="/dev/full: cannot be written: No space left"):
            write(Path("/dev/full"))


def test_a_link_to_a_pipe_is_written_through() -> None:
    """As /dev/stdout is one where another command reads."""
    read, written = os.pipe()
    try:
        write(Path(f"/dev/fd/{written}"))
        os.close(written)
        assert os.read(read, 9) == b"new"
    finally:
        os.close(read)


def test_zero_has_no_sign_in_a_table() -> None:
    table = io.StringIO()
    render(pd.DataFrame({"loss": [-0.0, 0.0, -1e-9]}), "table", table)
    assert table.getvalue().split() == ["loss", "0", "0", "-1e-09"]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatdynError, match=f"^{tmp_path}: cannot be written: is a folder, give a file$"):
        write(tmp_path)


def test_folders_that_lead_to_a_file_are_made_where_that_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "a/b/f"
    with pytest.raises(FeatdynError, match="No such file or directory"):
        write(target)
    assert not (tmp_path / "a").exists()
    for content in (b"one", b"two"):
        with output_file(target, parents=True) as stream:
            stream.write(content)
        assert target.read_bytes() == content
    with output_file(os.devnull, parents=True) as stream:  # which leads nowhere
        stream.write(b"gone")


@pytest.mark.parametrize("path", ["plain.zarr", "/a b/run.zarr", "it's", "a;b", "~", ""])
def test_a_path_in_a_command_is_one_word(path: str) -> None:
    assert shlex.split(quoted(path)) == [path]
    assert (quoted(path) == path) == (path == "plain.zarr")


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    found = shown(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in found)
    if text.isascii() and text.isprintable():
        assert found == text


ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def test_tables_show_escapes_and_csv_runs_no_formula(tmp_path: Path) -> None:
    values = ["=HYPERLINK(1)", "+1", "@a", "-2", ESCAPE, "plain", "a=b", None]
    frame = pd.DataFrame({"label": values, "=loss": [-1.5] * len(values)})
    table = io.StringIO()
    render(frame, "table", table)
    assert "\x1b" not in table.getvalue()
    assert r"\x1b]0;owned\x07\x1b[2J" in table.getvalue()
    safe, raw = tmp_path / "safe.csv", tmp_path / "raw.csv"
    render(frame, "csv", safe)
    render(frame, "csv", raw, raw=True)
    read = pd.read_csv(safe, keep_default_na=False)
    assert list(read.columns) == ["label", "'=loss"]
    assert read["label"].tolist() == ["'=HYPERLINK(1)", "'+1", "'@a", "'-2", shown(ESCAPE), "plain", "a=b", ""]
    assert (read["'=loss"] == -1.5).all()  # numbers are no texts
    assert pd.read_csv(raw, keep_default_na=False)["label"].tolist() == [*values[:-1], ""]


def test_a_failed_table_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "t.csv"
    target.write_text("old")
    monkeypatch.setattr(
        pd.DataFrame, "to_csv", lambda *a, **k: a[1].write("half") and (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(FeatdynError, match="full"):
        render(pd.DataFrame({"a": [1.0]}), "csv", target)
    assert (target.read_text(), os.listdir(tmp_path)) == ("old", ["t.csv"])


def test_a_page_is_html_by_its_name(tmp_path: Path) -> None:
    from featdyn.report.document import check_ending

    for name in ("r.html", "R.HTM", "pipe", "/dev/stdout", "a.b/r"):
        check_ending(name)
    for name in ("r.xml", "r.pdf", "run.html.gz"):
        with pytest.raises(FeatdynError, match=f"{name}: a page is HTML, and no "):
            check_ending(tmp_path / name)
