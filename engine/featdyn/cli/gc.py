"""``featdyn gc``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from featdyn.cli.out import text_format


@click.command(epilog="Example: featdyn gc run.zarr --dry-run")
@click.argument("store", type=click.Path())
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@text_format
def command(store: str, dry_run: bool, kind: str | None) -> None:
    """Remove what no commit of STORE names: left by killed writers, or dropped by verify --repair.

    Files that are not of the store's making are listed and never touched.
    """
    from featdyn.store import gc

    found = gc(store, dry_run=dry_run)
    if kind == "json":
        click.echo(json.dumps(asdict(found), indent=1))
        return
    verb = "would remove" if dry_run else "removed"
    for path in found.removed:
        click.echo(f"{verb} {path}")
    for path in found.foreign:
        click.echo(f"not ours, left alone: {path}")
    click.echo(f"{store}: {verb} {len(found.removed)} files, {found.bytes} bytes ({found.bytes / 2**20:.1f} MiB)")
