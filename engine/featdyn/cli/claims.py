"""``featdyn claims``."""

from __future__ import annotations

import sys
from typing import Any

import click

from featdyn.across_runs.options import ClaimOptions
from featdyn.cli.flags import flags
from featdyn.cli.out import format_of, out_file, table_format
from featdyn.cli.workers import compute_flags, opened


@click.command(epilog="Example: featdyn claims clean*.zarr random*.zarr frozen*.zarr")
@click.argument("stores", nargs=-1, required=True, type=click.Path())
@table_format
@out_file("Write to this file instead of standard output.")
def command(stores: tuple[str, ...], kind: str | None, raw: bool, out: str | None, **options: Any) -> None:
    """Test the five claims of arXiv 2509.20334 on STORES.

    Give runs with clean labels, with random ones and with a frozen part, of some seeds each.
    """
    from featdyn.across_runs.claims import claims
    from featdyn.query import render

    with opened(options) as workers:
        table = claims(stores, workers=workers, **options)
    render(table, format_of(kind, out), out or sys.stdout, raw=raw)


command.params += flags(ClaimOptions) + compute_flags()
