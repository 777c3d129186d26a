"""``featdyn report``."""

from __future__ import annotations

import click

from featdyn.cli.out import out_file


@click.command(epilog="Example: featdyn report run.zarr -o report.html")
@click.argument("store", type=click.Path())
@out_file("The file.", "report.html")
def command(store: str, out: str) -> None:
    """Write the report of STORE: one HTML file that works offline."""
    from featdyn.report import write_report
    from featdyn.store import Run

    click.echo(f"wrote {write_report(Run(store), out)}")
