"""``featdyn query``."""

from __future__ import annotations

import sys

import click

from featdyn.cli.out import out_file, table_format


@click.command()
@click.argument("store", type=click.Path())
@click.argument("variable")
@click.option(
    "--where", multiple=True, metavar="COORD=PATTERN", help="Keep what matches: layer=s3*, step=100..500, ..."
)
@click.option("--reduce", multiple=True, metavar="HOW:DIM", help="Reduce over axes: mean:sample, std:sample,layer, ...")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
@table_format
@out_file("Write to this file instead of standard output.")
def command(
    store: str,
    variable: str,
    where: tuple[str, ...],
    reduce: tuple[str, ...],
    limit: int | None,
    kind: str,
    raw: bool,
    out: str | None,
) -> None:
    """Select VARIABLE of STORE by coordinates and reduce it over axes.

    VARIABLE is a dotted path: cube.activation_norm, layers.s1b1.activation, outputs.loss, test_accuracy, or
    results.ANALYSIS.VARIABLE for the newest result of an analysis.
    """
    from featdyn.query import query, render
    from featdyn.store import Run

    frame = query(Run(store), variable, where=where, reduce=reduce, limit=limit)
    render(frame, kind, out or sys.stdout, raw=raw)
