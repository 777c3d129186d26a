"""``featdyn report``."""

from __future__ import annotations

import click


@click.command()
@click.argument("store", type=click.Path())
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False), default="report.html", show_default=True, help="The file."
)
def command(store: str, out: str) -> None:
    """Write the report of STORE: one HTML file that works offline."""
    from featdyn.report import write_report
    from featdyn.store import Run

    click.echo(f"wrote {write_report(Run(store), out)}")
