"""``featdyn verify``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from featdyn.cli.progress import bar


@click.command()
@click.argument("store", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(store: str, as_json: bool) -> None:
    """Check every committed byte of STORE against its commit records; exit code 1 when something is wrong."""
    from featdyn.store import verify

    with bar("verifying", "B") as update:
        verdict = verify(store, update)
    if as_json:
        click.echo(json.dumps(asdict(verdict), indent=1))
    else:
        for problem in verdict.problems:
            click.echo(problem)
        state = "sound" if verdict.sound else f"{len(verdict.problems)} problems"
        click.echo(
            f"{store}: {verdict.commits} commits, {verdict.files} files, {verdict.bytes / 2**20:.1f} MiB: {state}"
        )
    if not verdict.sound:
        sys.exit(1)
