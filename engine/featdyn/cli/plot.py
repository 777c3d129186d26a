"""``featdyn plot``."""

from __future__ import annotations

import json

import click

from featdyn.cli.complete import completing
from featdyn.cli.out import out_file, text_format
from featdyn.errors import FeatdynError
from featdyn.output import quoted, shown


def _figures(ctx: click.Context, incomplete: str) -> list[str]:
    """Return the figures of an analysis that is named, else the analyses: a name behind it is asked of the result."""
    from featdyn.report.named import figures_of, groups
    from featdyn.store import Run

    run = Run(ctx.params["store"])
    group, dot, _ = incomplete.partition(".")
    return [f.name for f in figures_of(run, group).values()] if dot else [f"{name}." for name in groups(run)]


@click.command(epilog="Example: featdyn plot run.zarr layers --width page -o layers.pdf")
@click.argument("store", type=click.Path())
@click.argument("figure", required=False, shell_complete=completing(_figures))
@click.option("--where", multiple=True, metavar="NAME=VALUE", help="Which of them: set=test, cut=s2b3, t=-1, ...")
@click.option("--width", type=click.Choice(["column", "page"]), default="column", show_default=True, help="Of paper.")
@text_format
@out_file("The file; it ends with .pdf, .svg or .png. By default the figure's name, as PDF.")
def command(
    store: str, figure: str | None, where: tuple[str, ...], width: str, kind: str | None, out: str | None
) -> None:
    """Draw FIGURE of STORE for paper; without one list the figures that there are.

    Figures are those of the report, of stored results: name one as the list does, or an analysis for its first.
    """
    from featdyn.report.named import all_figures, find
    from featdyn.store import Run

    run = Run(store)
    if figure is None:
        if out is not None or where:
            raise FeatdynError(f"name a figure after {store}; featdyn plot {quoted(store)} lists them")
        found = all_figures(run)
        if kind == "json":
            click.echo(
                json.dumps([{"figure": f.name, "shows": f.caption, "choices": f.choices} for f in found], indent=1)
            )
            return
        for one in found:
            click.echo(shown(f"{one.name:<32} {one.caption}"))
            for name, values in one.choices.items():
                click.echo(shown(f"{'':<32}   {name}: {', '.join(values)}"))
        return
    pairs = [_pair(words) for words in where]
    chosen = dict(pairs)
    if len(chosen) < len(pairs):
        raise FeatdynError(f"--where {' --where '.join(where)}: give each name once")
    drawn = find(run, figure)
    figures = drawn.figures(chosen)
    from featdyn.report.paper import save  # after what may be wrong with names: it needs Matplotlib

    if drawn.warning:
        click.echo(shown(f"featdyn: {drawn.warning}"), err=True)
    path = save(figures, out or f"{drawn.name}.pdf", width=width, source=drawn.source)
    written = {"wrote": str(path), "figure": drawn.name, "shows": [one.title for _, one in figures]}
    shows = figures[0][1].title
    if len(figures) > 1:  # of each cut, say, whose places stand in front of their titles
        shows = f"{'; '.join(place for place, _ in figures)}{shows.removeprefix(figures[0][0])}"
    click.echo(json.dumps(written) if kind == "json" else shown(f"wrote {path}: {shows}"))


def _pair(words: str) -> tuple[str, str]:
    name, sign, value = words.partition("=")
    if not sign:
        raise FeatdynError(f"--where {words}: write NAME=VALUE, such as set=test")
    return name, value
