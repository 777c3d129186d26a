"""A table as text for people, or as a file for programs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import pandas as pd

from featdyn.errors import FeatdynError
from featdyn.output import FORMATS, output_file, shown
from featdyn.plain import plain
from featdyn.query.answer import Answer
from featdyn.query.cells import Array

SHOWN = 60  # rows of a table for people
LISTED = 6  # values of a list in one of its cells
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes a cell that begins so for


def render(
    table: pd.DataFrame | Answer,
    format: str,
    out: TextIO | str | Path,
    *,
    raw: bool = False,
    whole: bool = False,
    missing: str | None = None,
) -> None:
    r"""Write a table, what :func:`featdyn.query.query` returned, or an answer, to a file or an open stream.

    Parameters
    ----------
    format
        ``table``: aligned, for people; numbers have 5 significant digits, and long tables are cut in the middle,
        lists behind six values. ``csv``: with a header; NaN is empty, a list is one of JSON. ``json``: a list of
        records; what is not finite is null. ``parquet``, ``arrow`` (an IPC file) and ``netcdf`` (version 3, of an
        answer along its axes) are binary. All but the first keep every digit.
    raw
        Texts in csv as they are in the store. Else one that a spreadsheet would run as a formula begins with ``'``,
        and control characters are written as ``\x1b``, as they always are in tables.
    whole
        Cut no table in the middle.
    missing
        What stands in tables for people where a value is missing, such as ``NULL``; by default as pandas writes it.

    Raises
    ------
    FeatdynError
        An unknown format, a file that cannot be written, or a binary format for a terminal.
    """
    if format not in FORMATS:
        raise FeatdynError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    if isinstance(out, (str, Path)):
        with output_file(out) as binary:
            stream = io.TextIOWrapper(binary, "utf-8", "backslashreplace", newline="")
            render(table, format, stream, raw=raw, whole=whole, missing=missing)
            stream.detach()
        return
    if format == "netcdf":
        _binary(out, format).write(_netcdf(table))
        return
    frame = table.frame() if isinstance(table, Answer) else table
    if format == "parquet":
        frame.to_parquet(_binary(out, format), index=False)
    elif format == "arrow":
        _arrow(frame, _binary(out, format))
    elif format == "csv":
        frame = _listed(frame)
        (frame if raw else _harmless(frame)).to_csv(out, index=False, lineterminator="\n")
    else:
        for line in _json(frame) if format == "json" else _lines(frame, whole, missing):
            out.write(line + "\n")


def _listed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with lists, and what else holds several values, as JSON."""

    def listed(cell: Any) -> Any:
        if not isinstance(cell, (np.ndarray, list, tuple, dict)):
            return cell
        return json.dumps(plain(cell, missing=True), ensure_ascii=False)

    found: pd.DataFrame = frame.apply(lambda column: column.map(listed) if column.dtype == object else column)
    return found


def _harmless(frame: pd.DataFrame) -> pd.DataFrame:
    def harmless(cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        return f"'{shown(cell)}" if cell.startswith(FORMULA) else shown(cell)

    texts = frame.select_dtypes(exclude="number")
    return frame.assign(**{str(name): texts[name].map(harmless) for name in texts}).rename(columns=harmless)


def _arrow(frame: pd.DataFrame, out: BinaryIO) -> None:
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)


def _netcdf(table: pd.DataFrame | Answer) -> bytes:
    """Return the bytes of a NetCDF file; of a table that is no answer its columns lie along ``row``.

    Values of lists lie along an axis of their own.
    """
    import xarray as xr

    if isinstance(table, Answer):
        found = table.dataset()
    else:
        found = xr.Dataset({str(name): _along(str(name), table[name]) for name in table})
    for name, variable in found.variables.items():
        if variable.dtype.kind in "OU":  # text; what is missing is empty
            words = ["" if pd.isna(word) else str(word) for word in variable.values.reshape(-1)]
            text = np.array(words, dtype=object).reshape(variable.shape)
            found = (
                found.assign_coords({name: variable.copy(data=text)})
                if name in found.coords
                else found.assign({name: variable.copy(data=text)})
            )
    for name, variable in found.variables.items():
        if variable.dtype.kind in "iu" and variable.size:
            for value in (variable.values.min(), variable.values.max()):
                if not -(2**31) <= value < 2**31:
                    raise FeatdynError(
                        f"netcdf holds whole numbers of 32 bits, and {name} has {value}: write parquet or arrow"
                    )
    try:
        return bytes(found.to_netcdf(format="NETCDF3_64BIT", engine="scipy"))
    except ValueError as error:  # names that NetCDF does not take
        raise FeatdynError(f"netcdf cannot hold this table ({error}): write parquet or arrow") from error


def _along(name: str, column: pd.Series) -> tuple[tuple[str, ...], Array]:
    """Return the axes of a table's column, and its values."""
    cells = column.tolist()
    lists = [cell for cell in cells if isinstance(cell, (np.ndarray, list))]
    if not lists:
        return ("row",), np.asarray(column)
    rows = [np.ma.filled(c.astype(float), np.nan) if np.ma.isMaskedArray(c) else np.asarray(c) for c in lists]
    if len(rows) == len(cells) and len({row.shape for row in rows}) == 1:
        values = np.stack(rows)
        inner = values.reshape(-1).tolist() if values.dtype == object else []
        if values.ndim == 2 and not any(isinstance(cell, (np.ndarray, list, dict)) for cell in inner):
            return ("row", f"{name}_value"), values
    raise FeatdynError(f"netcdf takes lists of one length, of single values; {name} has others: write parquet or arrow")


def _binary(out: TextIO, format: str) -> BinaryIO:
    raw: BinaryIO | None = getattr(out, "buffer", None)
    if raw is None or out.isatty():
        raise FeatdynError(f"{format} is binary: write it to a file with -o FILE, or send it on with > FILE")
    return raw


def _json(frame: pd.DataFrame) -> Iterator[str]:
    names = [str(name) for name in frame.columns]
    last = len(frame) - 1
    yield "[" if len(frame) else "[]"
    # Column by column through tolist: Python's own numbers, with every digit.
    for i, row in enumerate(zip(*(frame[name].tolist() for name in frame.columns), strict=True)):
        record = plain(dict(zip(names, row, strict=True)), missing=True)
        yield json.dumps(record, ensure_ascii=False) + ("," if i < last else "\n]")


def _lines(frame: pd.DataFrame, whole: bool, missing: str | None) -> Iterator[str]:
    cut = len(frame) > SHOWN and not whole
    half = SHOWN // 2
    columns = []
    for name in frame.columns:
        column = frame[name]
        values = [*column.iloc[:half].tolist(), *column.iloc[-half:].tolist()] if cut else column.tolist()
        cells = [shown(str(name)), *(_cell(value, missing) for value in values)]
        if cut:
            cells.insert(half + 1, "...")
        width = max(map(len, cells))
        text = all(isinstance(value, str) or value is None for value in values)
        columns.append([cell.ljust(width) if text else cell.rjust(width) for cell in cells])
    for row in zip(*columns, strict=True):
        yield "  ".join(row).rstrip()
    if cut:
        yield f"{len(frame):,} rows, the first and last {half} shown; --format csv writes all of them"


def _cell(value: Any, missing: str | None) -> str:
    """Return a cell for people, in one line."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, (list, tuple)):
        more = [f"... {len(value):,} values"] if len(value) > LISTED else []
        return f"[{', '.join([*(_cell(inner, missing) for inner in value[:LISTED]), *more])}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_cell(key, missing)}: {_cell(inner, missing)}' for key, inner in value.items())}}}"
    if missing is not None and pd.isna(value):
        return missing
    return f"{value + 0.0:.5g}" if isinstance(value, float) else shown(str(value))
