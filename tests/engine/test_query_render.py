from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.errors import FeatdynError
from featdyn.query import render

FRAME = pd.DataFrame(
    {
        "checkpoint": np.array([0, 1, 2]),
        "layer": np.array(["stem", "s1.b1", "fc, last"], dtype=object),
        "norm": np.array([np.nan, 0.1, 123456.789], np.float32),
        "right": np.array([True, False, True]),
    }
)


def text(frame: pd.DataFrame, form: str) -> str:
    out = io.StringIO()
    render(frame, form, out)
    return out.getvalue()


def test_a_table_is_aligned_numbers_to_the_right() -> None:
    assert text(FRAME, "table").splitlines() == [
        "checkpoint  layer           norm  right",
        "         0  stem             nan   True",
        "         1  s1.b1            0.1  False",
        "         2  fc, last  1.2346e+05   True",
    ]


def test_a_long_table_is_cut_in_the_middle() -> None:
    lines = text(pd.DataFrame({"sample": np.arange(12345), "loss": np.arange(12345) / 7}), "table").splitlines()
    assert len(lines) == 1 + 60 + 1 + 1
    assert lines[31].split() == ["...", "..."]
    assert lines[-2].split() == ["12344", "1763.4"]
    assert lines[-1] == "12,345 rows, the first and last 30 shown; --format csv writes all of them"


@pytest.mark.parametrize("rows", [59, 60, 61])
@pytest.mark.parametrize("whole", [False, True])
def test_sixty_rows_are_shown_and_of_more_the_ends(rows: int, whole: bool) -> None:
    out = io.StringIO()
    render(pd.DataFrame({"a": np.arange(rows)}), "table", out, whole=whole)
    shown = [line.strip() for line in out.getvalue().splitlines()[1:]]
    everything = [str(i) for i in range(rows)]
    cut = [
        *everything[:30],
        "...",
        *everything[-30:],
        "61 rows, the first and last 30 shown; --format csv writes all of them",
    ]
    assert shown == (cut if rows > 60 and not whole else everything)


@pytest.mark.parametrize("length", [5, 6, 7])
def test_six_values_of_a_list_are_shown(length: int) -> None:
    cell = text(pd.DataFrame({"a": [list(range(length))]}), "table").splitlines()[1]
    more = ", ... 7 values" if length > 6 else ""
    assert cell == f"[{', '.join(map(str, range(min(length, 6))))}{more}]"


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
def test_the_number_of_a_row_is_no_column(tmp_path: Path, kind: str) -> None:
    render(FRAME.iloc[[2, 0]], kind, tmp_path / "a")
    if kind == "arrow":
        with pa.ipc.open_file(tmp_path / "a") as file:
            names = file.schema.names
    else:
        names = list(pd.read_csv(tmp_path / "a")) if kind == "csv" else pq.read_schema(tmp_path / "a").names
    assert names == list(FRAME)


def test_missing_values_in_a_table_are_as_one_asks() -> None:
    frame = pd.DataFrame({"a": [0.5, np.nan], "b": [None, "x"], "c": [pd.NaT, pd.Timestamp("2020-01-02")]})
    out = io.StringIO()
    render(frame, "table", out, missing="NULL")
    assert [line.split()[:3] for line in out.getvalue().splitlines()[1:]] == [
        ["0.5", "NULL", "NULL"], ["NULL", "x", "2020-01-02"],
    ]  # fmt: skip
    assert text(frame, "table").splitlines()[2].split()[0] == "nan"


def test_netcdf_takes_a_table_without_rows_and_text_that_is_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": np.array([1, 2, 3]), "word": np.array(["a", None, "c"], object), "x": [0.5, np.nan, 1]})
    for rows in (0, 3):
        render(frame.head(rows), "netcdf", tmp_path / f"{rows}.nc")
        back = xr.load_dataset(tmp_path / f"{rows}.nc", engine="scipy")
        assert back["n"].values.tolist() == [1, 2, 3][:rows]
        assert back["word"].values.astype(str).tolist() == ["a", "", "c"][:rows]


def test_csv_reads_back() -> None:
    assert text(FRAME, "csv").splitlines()[:2] == ["checkpoint,layer,norm,right", "0,stem,,True"]
    back = pd.read_csv(io.StringIO(text(FRAME, "csv")))
    np.testing.assert_array_equal(back["norm"].to_numpy(np.float32), FRAME["norm"])
    assert back["layer"].tolist() == FRAME["layer"].tolist()


def test_json_is_a_list_of_records_with_null_for_nan() -> None:
    assert json.loads(text(FRAME, "json")) == [
        {"checkpoint": 0, "layer": "stem", "norm": None, "right": True},
        {"checkpoint": 1, "layer": "s1.b1", "norm": float(np.float32(0.1)), "right": False},
        {"checkpoint": 2, "layer": "fc, last", "norm": float(np.float32(123456.789)), "right": True},
    ]
    assert json.loads(text(FRAME.head(0), "json")) == []


def test_dates_are_text_in_json() -> None:
    day = pd.Timestamp("2020-01-02")
    frame = pd.DataFrame({"day": [day, pd.NaT], "since": [day - day, pd.NaT], "list": [[day.date()], []]})
    assert json.loads(text(frame, "json")) == [
        {"day": "2020-01-02 00:00:00", "since": "0 days 00:00:00", "list": ["2020-01-02"]},
        {"day": None, "since": None, "list": []},
    ]


@settings(deadline=None, max_examples=25)
@given(
    numbers=st.lists(st.floats(), max_size=6),
    texts=st.lists(st.text("aé,\"' "), min_size=6, max_size=6),
)
def test_no_digit_is_lost(numbers: list[float], texts: list[str]) -> None:
    frame = pd.DataFrame({"a": np.array(numbers, float), "b": np.array(texts[: len(numbers)], dtype=object)})
    written = text(frame, "json")
    records = json.loads(written)
    assert written.count("é") == "".join(texts[: len(numbers)]).count("é")  # not as an escape
    assert [r["a"] for r in records] == [v if np.isfinite(v) else None for v in numbers]
    assert [r["b"] for r in records] == texts[: len(numbers)]
    back = list(csv.DictReader(io.StringIO(text(frame, "csv"))))
    np.testing.assert_array_equal([float(r["a"] or "nan") for r in back], numbers)
    assert [r["b"] for r in back] == texts[: len(numbers)]


LISTS = pd.DataFrame(
    {
        "long": [np.arange(2000) / 8, np.ma.masked_invalid([0.5, np.nan, 2.0])],
        "deep": [[np.array([1, 2]), None], {"a": np.array(["oné\ntwo"]), "b": -0.0}],
        "text": np.array(["=1+1", None], dtype=object),
    }
)


@pytest.mark.parametrize("raw", [False, True])
def test_lists_in_csv_are_json_in_one_line(raw: bool) -> None:
    out = io.StringIO()
    render(LISTS, "csv", out, raw=raw)
    assert len(out.getvalue().splitlines()) == 3
    first, second = csv.DictReader(io.StringIO(out.getvalue()))
    assert json.loads(first["long"]) == [i / 8 for i in range(2000)]
    assert json.loads(second["long"]) == [0.5, None, 2.0]
    assert json.loads(first["deep"]) == [[1, 2], None]
    assert json.loads(second["deep"]) == {"a": ["oné\ntwo"], "b": 0.0}
    assert "oné" in second["deep"]
    assert (first["text"], second["text"]) == ("=1+1" if raw else "'=1+1", "")


@pytest.mark.parametrize("form", ["csv", "json"])
def test_what_json_does_not_have_is_text_in_lists(form: str) -> None:
    number = UUID(int=7)
    out = text(pd.DataFrame({"a": [[number, Decimal("1.50")], {1.5: b"x"}]}), form)
    found = json.loads(out) if form == "json" else list(csv.DictReader(io.StringIO(out)))
    values = [record["a"] if form == "json" else json.loads(record["a"]) for record in found]
    assert values == [[str(number), "1.50"], {"1.5": "b'x'"}]


def test_lists_in_a_table_are_short_and_in_one_line() -> None:
    lines = [line.split("  ") for line in text(LISTS, "table").splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["long", "deep", "text"],
        ["[0, 0.125, 0.25, 0.375, 0.5, 0.625, ... 2,000 values]", "[[1, 2], None]", "=1+1"],
        ["[0.5, None, 2]", "{a: [oné\\ntwo], b: 0}", "nan"],
    ]


def test_lists_of_one_length_are_an_axis_in_netcdf(tmp_path: Path) -> None:
    held = np.arange(12, dtype=np.float32).reshape(3, 4)
    holes = [np.ma.masked_equal([i, 1], 1) for i in range(3)]
    words = [["a", "b"]] * 3
    frame = pd.DataFrame({"t": [0, 1, 2], "logits": list(held), "holes": holes, "words": words})
    render(frame, "netcdf", tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc", engine="scipy") as back:
        assert back["logits"].dims == ("row", "logits_value")
        assert back["logits"].dtype == np.float32
        np.testing.assert_array_equal(back["logits"], held)
        np.testing.assert_array_equal(back["holes"], [[0, np.nan], [np.nan, np.nan], [2, np.nan]])
        np.testing.assert_array_equal(back["t"], [0, 1, 2])
        assert back["words"].values.astype(str).tolist() == words


@pytest.mark.parametrize(
    "cells",
    [[[1], [1, 2]], [[1], None], [[[1], [2]], [[1], [2]]], [[[1], [2, 3]]] * 2, [[{"a": 1}]] * 2, [[1, [2]]] * 2],
)
def test_other_lists_are_none_of_netcdf(tmp_path: Path, cells: list[object]) -> None:
    frame = pd.DataFrame({"odd": pd.Series([c if c is None else _ragged(c) for c in cells], dtype=object)})
    with pytest.raises(FeatdynError, match=r"^netcdf takes lists of one length, of single values; odd has others"):
        render(frame, "netcdf", tmp_path / "a.nc")
    assert not list(tmp_path.iterdir())


def _ragged(values: object) -> np.ndarray[Any, Any]:
    """Return a list as DuckDB hands it over: lists in it are objects."""
    assert isinstance(values, list)
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, bool])
def test_parquet_reads_back_with_its_types(tmp_path: Path, dtype: type) -> None:
    frame = FRAME.assign(norm=np.array([0, 1, 3]).astype(dtype))
    render(frame, "parquet", tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), frame)


def test_parquet_goes_down_a_pipe_but_not_to_a_terminal(tmp_path: Path) -> None:
    code = (
        "import sys, pandas as pd; from featdyn.query import render;"
        "render(pd.DataFrame({'a': [1]}), 'parquet', sys.stdout)"
    )
    piped = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    (tmp_path / "piped").write_bytes(piped)
    assert pd.read_parquet(tmp_path / "piped")["a"].tolist() == [1]

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    for out in (Terminal(io.BytesIO()), io.StringIO()):
        with pytest.raises(FeatdynError, match="parquet is binary: write it to a file"):
            render(FRAME, "parquet", out)


@pytest.mark.parametrize(
    "values", [[3_000_000_000], [-(2**31) - 1], [2**31], np.array([2**63], np.uint64), np.array([2**31], np.uint32)]
)
def test_whole_numbers_that_netcdf_does_not_hold_get_one_line(tmp_path: Path, values: Any) -> None:
    frame = pd.DataFrame({"small": [1], "big": values})
    said = f"^netcdf holds whole numbers of 32 bits, and big has {int(values[0])}: write parquet or arrow$"
    with pytest.raises(FeatdynError, match=said):
        render(frame, "netcdf", tmp_path / "a.nc")
    assert not list(tmp_path.iterdir())
    for kind in ("parquet", "arrow"):
        render(frame, kind, tmp_path / f"a.{kind}")
    assert pd.read_parquet(tmp_path / "a.parquet")["big"].tolist() == [int(values[0])]


def test_whole_numbers_of_32_bits_read_back(tmp_path: Path) -> None:
    ends = [-(2**31), 2**31 - 1]
    render(pd.DataFrame({"a": ends}), "netcdf", tmp_path / "a.nc")
    assert xr.load_dataset(tmp_path / "a.nc", engine="scipy")["a"].values.tolist() == ends


def test_a_file_that_cannot_be_written_gets_one_line(tmp_path: Path) -> None:
    for out in (tmp_path / "no/such/folder.csv", str(tmp_path)):
        with pytest.raises(FeatdynError, match=r"No such file|is a folder"):
            render(FRAME, "csv", out)
    with pytest.raises(FeatdynError, match="no format 'xml'; there are table, csv, json, parquet, arrow, netcdf"):
        render(FRAME, "xml", tmp_path / "out.xml")
    assert not list(tmp_path.iterdir())
