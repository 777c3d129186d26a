"""Ask DuckDB: what a run holds as its tables, and its errors in one line."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pandas as pd

from featdyn.errors import FeatdynError
from featdyn.query.catalogue import Catalogue
from featdyn.query.sql.tables import Table
from featdyn.query.sql.tables import tables as tables_of
from featdyn.store import Run


def sql(run: Run, statement: str) -> pd.DataFrame:
    """Answer a statement of DuckDB's SQL over the tables of a run.

    What is stored is streamed through it: of each table the columns that the statement names, and of these the
    checkpoints, layers and blocks of samples where its conditions can hold. NaN is NULL. Nothing but the store is
    reached: no file, no network.

    Parameters
    ----------
    statement
        Such as ``select split, avg(loss) from outputs group by split``. :func:`tables` lists the tables.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    FeatdynError
        DuckDB is not installed, or the statement is wrong; the message has the nearest names.
    """
    duckdb = _duckdb()
    from featdyn.query.sql.scan import Scan

    connection = duckdb.connect(config={"enable_external_access": "false"})
    scans = []
    try:
        connection.execute("set python_enable_replacements = false")
        for number, table in enumerate(_asked(connection, list(tables_of(Catalogue(run))), statement)):
            scans.append(Scan(table))
            connection.register(f"scan_{number}", scans[-1])
            if table.schema:
                connection.execute(f"create schema if not exists {_quoted(table.schema)}")
            place = ".".join(map(_quoted, filter(None, (table.schema, table.name))))
            connection.execute(f"create view {place} as select * from scan_{number}")
        connection.register("known_analyses", _analyses(run))
        connection.execute("create view analyses as select * from known_analyses")
        found = connection.execute(statement)
        return found.df() if found.description else pd.DataFrame()
    except duckdb.Error as error:
        failed = next((scan.failed for scan in scans if isinstance(scan.failed, FeatdynError)), None)
        raise failed or FeatdynError(_line(str(error))) from error
    finally:
        connection.close()


def tables(run: Run) -> pd.DataFrame:
    """Return the tables of a run, each with its number of rows and its columns."""
    found = [
        {"table": table.title, "rows": _rows(table.shape), "columns": ", ".join([*table.coordinates, *table.arrays])}
        for table in tables_of(Catalogue(run))
    ]
    known = _analyses(run)
    return pd.DataFrame([*found, {"table": "analyses", "rows": len(known), "columns": ", ".join(known.columns)}])


def _asked(connection: Any, known: list[Table], statement: str) -> list[Table]:
    """Return the tables that a statement names; all where it names others, so that near names are offered."""
    names = {name.rpartition(".")[2].strip('"').lower() for name in connection.get_table_names(statement)}
    found = [table for table in known if table.name.rpartition(".")[2].lower() in names]
    return found if names <= {table.name.rpartition(".")[2].lower() for table in found} | {"analyses"} else known


def _rows(shape: tuple[int, ...]) -> int:
    rows = 1
    for length in shape:
        rows *= length
    return rows


def _analyses(run: Run) -> pd.DataFrame:
    """Return what was asked of a run: a row for each result, oldest first."""
    rows = []
    for commit in run.commits:
        if commit.kind == "result":
            attributes = run.nodes[commit.name].get("attributes", {})
            options = json.dumps(attributes.get("options", {}))
            rows.append((commit.name.split("/")[1], commit.name, str(attributes.get("question", "")), options))
    return pd.DataFrame(rows, columns=["name", "path", "question", "options"], dtype=object)


def _duckdb() -> Any:
    try:
        return importlib.import_module("duckdb")
    except ImportError:
        raise FeatdynError("SQL needs DuckDB: pip install 'featdyn[sql]'") from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _line(message: str) -> str:
    """Return what DuckDB says without the statement that it quotes."""
    return " ".join(message.partition("\nLINE ")[0].split())
