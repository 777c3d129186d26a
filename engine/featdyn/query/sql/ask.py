"""Ask DuckDB: what a run holds as its tables, and its errors in one line."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd

from featdyn.errors import FeatdynError
from featdyn.extras import asked_for
from featdyn.output import quoted
from featdyn.query.catalogue import Catalogue
from featdyn.query.sql.tables import Table
from featdyn.query.sql.tables import tables as tables_of
from featdyn.store import Run

_LIST = re.compile(r"\s*(show(\s+all)?\s+tables|show|describe)\s*;?\s*", re.IGNORECASE)
_NO_TABLE = re.compile(r'Table with name "?([^"!]+?)"? does not exist')
ANALYSES = ("name", "path", "question", "options", "missing")  # columns of the table of that name


def sql(run: Run, statement: str) -> pd.DataFrame:
    """Answer a statement of DuckDB's SQL over the tables of a run.

    What is stored is streamed through it: of each table the columns that the statement names, and of these the
    checkpoints, layers and blocks of samples where its conditions can hold. NaN is NULL. Nothing but the store is
    reached: no file, no network.

    Parameters
    ----------
    statement
        Such as ``select split, avg(loss) from outputs group by split``. ``show tables`` lists the tables, as
        :func:`tables` does.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    FeatdynError
        DuckDB is not installed, or the statement is wrong, or there are several; the message has the nearest names.
    """
    if _LIST.fullmatch(statement):
        return tables(run)
    with asked_for():
        import duckdb
    from featdyn.query.sql.scan import Scan

    catalogue = Catalogue(run)
    known = list(tables_of(catalogue))
    connection = duckdb.connect(config={"enable_external_access": "false"})
    scans = []
    try:
        asked = connection.extract_statements(statement)
        if not asked:
            raise FeatdynError("write a statement, such as: select split, avg(loss) from outputs group by split")
        if len(asked) > 1:  # only the last one's answer would be seen
            raise FeatdynError(f"these are {len(asked)} statements: give one")
        connection.execute("set python_enable_replacements = false")
        for number, table in enumerate(_asked(duckdb, connection, known, statement)):
            scans.append(Scan(table))
            connection.register(f"scan_{number}", scans[-1])
            if table.schema:
                connection.execute(f"create schema if not exists {_quoted(table.schema)}")
            place = ".".join(map(_quoted, filter(None, (table.schema, table.name))))
            connection.execute(f"create view {place} as select * from scan_{number}")
        if "analyses" in statement.lower():
            connection.register("known_analyses", _analyses(run))
            connection.execute("create view analyses as select * from known_analyses")
        found = connection.execute(statement)
        return found.df() if found.description else pd.DataFrame()
    except duckdb.Error as error:
        if any(isinstance(scan.failed, KeyboardInterrupt) for scan in scans):
            raise KeyboardInterrupt from error
        failed = next((scan.failed for scan in scans if isinstance(scan.failed, FeatdynError)), None)
        message = _no_table(str(error), statement, catalogue, known) or _line(str(error))
        raise failed or FeatdynError(message) from error
    except RuntimeError as error:  # what DuckDB's Python makes of Ctrl-C
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
    finally:
        connection.close()


def tables(run: Run) -> pd.DataFrame:
    """Return the tables of a run, each with its number of rows and its columns."""
    found = [
        (table.title, math.prod(table.shape), ", ".join([*table.coordinates, *table.arrays]))
        for table in tables_of(Catalogue(run))
    ]
    found.append(("analyses", len(run.analyses), ", ".join(ANALYSES)))
    return pd.DataFrame(found, columns=["table", "rows", "columns"])


def _asked(duckdb: Any, connection: Any, known: list[Table], statement: str) -> list[Table]:
    """Return the tables that a statement names; all where it names others, so that near names are offered."""
    try:
        named = connection.get_table_names(statement)
    except duckdb.Error:  # wrong, or several statements in one, such as PIVOT: asking will tell
        return known
    names = {name.rpartition(".")[2].strip('"').lower() for name in named}
    found = [table for table in known if table.name.rpartition(".")[2].lower() in names]
    return found if names <= {table.name.rpartition(".")[2].lower() for table in found} | {"analyses"} else known


def _analyses(run: Run) -> pd.DataFrame:
    from featdyn.query.answered import answered  # all analyses, with what checks their options

    return pd.DataFrame(answered(run), columns=list(ANALYSES), dtype=object)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _no_table(message: str, statement: str, catalogue: Catalogue, known: list[Table]) -> str:
    """Say how to get a table that is not there; nothing of other errors, nor where DuckDB offers one of the run's."""
    missing = _NO_TABLE.search(message)
    if missing is None:
        return ""
    name = missing[1].rpartition(".")[2]
    if re.search(rf'\bresults"?\s*\.\s*"?{re.escape(name)}\b', statement, re.IGNORECASE):
        never_asked = catalogue.no_result(f"results.{name.lower()}")
        if never_asked:
            return f"{catalogue.run.path}: {never_asked}"
    offered = re.findall('"([^"]+)"', message.partition("Did you mean")[2].partition("\nLINE ")[0])
    own = {"analyses", *(form for table in known for form in (table.name, f"{table.schema}.{table.name}"))}
    if offered and set(offered) <= own:  # its own, such as pg_catalog's, hold nothing of a run
        return ""
    return f"no table {missing[1]}: featdyn sql {quoted(catalogue.run.path)} lists what there is"


def _line(message: str) -> str:
    """Return what DuckDB says, without the statement that it quotes and the types that a function would take."""
    return " ".join(message.partition("\nLINE ")[0].partition("Candidate functions:")[0].split())
