"""``featdyn compare``."""

from __future__ import annotations

import sys
from typing import Any

import click

from featdyn.cli.out import format_of, out_file, table_format
from featdyn.cli.workers import compute_flags, opened


@click.command(epilog="Example: featdyn compare grid/*.zarr --fit 0.99 -o compare.html")
@click.argument("stores", nargs=-1, required=True, type=click.Path())
@click.option(
    "--quantity",
    "quantities",
    multiple=True,
    metavar="VARIABLE",
    help="What to compare, a dotted path as for query; may be repeated. By default accuracy, agreement and retention "
    "of composites.",
)
@click.option("--where", multiple=True, metavar="COORD=PATTERN", help="Keep what matches: set=test, cut=s3*, ...")
@click.option("--reduce", multiple=True, metavar="HOW:DIM", help="Reduce over axes: mean:probe, max:cut, ...")
@click.option(
    "--t1",
    type=float,
    default=0.5,
    show_default=True,
    help="The last checkpoint at or before this fraction of t2's steps.",
)
@click.option(
    "--t2",
    type=float,
    default=1.0,
    show_default=True,
    help="The last checkpoint at or before this fraction of all steps.",
)
@click.option("--fit", type=float, help="t2: the first checkpoint that has this share of its training probes right.")
@table_format
@out_file("Write to this file; with the ending .html a page of figures, beside the table on standard output.")
def command(
    stores: tuple[str, ...],
    quantities: tuple[str, ...],
    where: tuple[str, ...],
    reduce: tuple[str, ...],
    t1: float,
    t2: float,
    fit: float | None,
    kind: str | None,
    raw: bool,
    out: str | None,
    **options: Any,
) -> None:
    """Put STORES side by side, in groups by what differs in their recipes; seeds are repeats.

    Values have 95 % intervals: low and high over the runs of a group, probes_low and probes_high over the probes of one
    run.
    """
    from featdyn.across_runs.compare import QUANTITIES, compare
    from featdyn.query import render
    from featdyn.report.comparison import write

    page, out = (out, None) if out is not None and out.lower().endswith((".html", ".htm")) else (None, out)
    form = format_of(kind, out)
    with opened(options) as workers:
        table = compare(
            stores, quantities or QUANTITIES, workers=workers, where=where, reduce=reduce, t1=t1, t2=t2, fit=fit
        )
    if page is not None:
        at = f"the first checkpoint with {fit:g} of its training probes right" if fit is not None else None
        at = at or ("the last checkpoint" if t2 == 1 else f"the last checkpoint at or before {t2:g} of all steps")
        compared = f"t2: {at}. t1: the last checkpoint at or before {t1:g} of t2's steps."
        write(table, page, where=compared)
    render(table, form, out or sys.stdout, raw=raw)


command.params += compute_flags()
