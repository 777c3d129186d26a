"""``featdyn sql``."""

from __future__ import annotations

import sys

import click

from featdyn.cli.out import format_of, out_file, table_format
from featdyn.errors import FeatdynError


@click.command(epilog='Example: featdyn sql run.zarr "select split, avg(loss) from outputs group by split"')
@click.argument("store", type=click.Path())
@click.argument("statement", required=False)
@table_format
@out_file("Write to this file instead of standard output; its ending tells the format.")
def command(store: str, statement: str | None, kind: str | None, raw: bool, out: str | None) -> None:
    """Answer STATEMENT, in DuckDB's SQL, over the tables of STORE; without one, list the tables.

    There are checkpoints, samples, outputs, cube, layers.NAME, results.ANALYSIS and analyses. Where no row meets the
    statement, the exit code is 1.
    """
    from featdyn.query import render
    from featdyn.query.sql import sql, tables
    from featdyn.store import Run

    run = Run(store)
    frame = tables(run) if statement is None else sql(run, statement)
    render(frame, format_of(kind, out), out or sys.stdout, raw=raw, whole=statement is None, missing="NULL")
    if frame.empty:  # as `query` does, but its columns are written
        raise FeatdynError("no row meets the statement")
