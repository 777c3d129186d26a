"""``featdyn analyze``: one subcommand for each analysis, its flags made from the analysis's options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featdyn.cli.flags import flags
from featdyn.cli.progress import bar

if TYPE_CHECKING:
    from featdyn.analysis import Analysis


class Analyses(click.Group):
    """The analyses as subcommands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the analyses."""
        from featdyn.analysis import analyses

        return list(analyses())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build the command of one analysis."""
        from featdyn.analysis import analyses

        found = analyses().get(cmd_name)
        return None if found is None else _command(found)


@click.group(cls=Analyses, subcommand_metavar="ANALYSIS [OPTIONS]")
@click.argument("store", type=click.Path())
@click.pass_context
def command(ctx: click.Context, store: str) -> None:
    """Run an analysis on STORE and commit its result there."""
    ctx.obj = store


def _command(analysis: Analysis) -> click.Command:
    def run(**options: Any) -> None:
        from featdyn.analysis.record import record

        store = click.get_current_context().obj
        with bar(analysis.name) as update:
            path = record(store, analysis, options, update)
        click.echo(f"{store}: {path} committed; look at it with: featdyn report {store} -o report.html")

    return click.Command(analysis.name, callback=run, params=flags(analysis.options), help=analysis.text)
