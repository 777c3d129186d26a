"""``featdyn query``."""

from __future__ import annotations

import sys

import click

from featdyn.cli.complete import completing
from featdyn.cli.out import format_of, out_file, table_format
from featdyn.output import shown


def _variables(ctx: click.Context, incomplete: str) -> list[str]:
    from featdyn.query.catalogue import Catalogue
    from featdyn.store import Run

    return list(Catalogue(Run(ctx.params["store"])).names)


@click.command(epilog="Example: featdyn query run.zarr outputs.loss --where checkpoint=-1 --by class_name")
@click.argument("store", type=click.Path())
@click.argument("variables", nargs=-1, metavar="[VARIABLE]...", shell_complete=completing(_variables))
@click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUE",
    help="Keep what matches: layer=s3*, layer~^s[23], step=100..500, checkpoint=-1, loss>1, ...",
)
@click.option(
    "--by",
    multiple=True,
    metavar="COORD,...",
    help="Leave groups, by label, class_name, epoch, layer, ...: the mean of each (of class numbers the mode), or what "
    "--reduce says.",
)
@click.option(
    "--reduce", multiple=True, metavar="HOW:DIM", help="Reduce over axes: mean:sample, argmax:checkpoint, ..."
)
@click.option("--like", metavar="SAMPLE", help="Distance of each sample to this one in VARIABLE, by checkpoint.")
@click.option("--sort", multiple=True, metavar="COLUMN,...", help="Sort by columns; -COLUMN from the largest down.")
@click.option(
    "--top", type=click.IntRange(min=1), help="So many rows: the largest, first by --sort, nearest by --like."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
@click.option(
    "--list",
    "listing",
    is_flag=True,
    help="List the variables, all or those that VARIABLES match.",
)
@table_format
@out_file("Write to this file instead of standard output; its ending tells the format.")
def command(
    store: str,
    variables: tuple[str, ...],
    where: tuple[str, ...],
    by: tuple[str, ...],
    reduce: tuple[str, ...],
    like: str | None,
    sort: tuple[str, ...],
    top: int | None,
    limit: int | None,
    listing: bool,
    kind: str | None,
    raw: bool,
    out: str | None,
) -> None:
    """Select VARIABLES of STORE by coordinates and values, reduce, group and sort them.

    A variable is a dotted path: cube.activation_norm, layers.s1b1.activation, outputs.loss, test_accuracy, or
    results.ANALYSIS.VARIABLE for the newest result of an analysis. Patterns such as 'cube.*_norm' stand for several.
    """
    from featdyn import query
    from featdyn.store import Run

    run, form = Run(store), format_of(kind, out)
    if listing or not (variables or where or by or reduce or like or sort or top or limit):
        query.render(query.variables(run, *variables), form, out or sys.stdout, raw=raw, whole=True)
        return
    answer = query.ask(run, *variables, where=where, by=by, reduce=reduce, like=like, sort=sort, top=top, limit=limit)
    for warning in query.warnings(run, *variables):
        click.echo(shown(f"featdyn: {warning}"), err=True)
    query.render(answer, form, out or sys.stdout, raw=raw)
