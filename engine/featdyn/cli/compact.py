"""``featdyn compact``."""

from __future__ import annotations

import click


@click.command()
@click.argument("store", type=click.Path())
def command(store: str) -> None:
    """Rewrite STORE, of an older format, with few files for what is small; every value stays as it is.

    Nobody else may write it meanwhile. When it is done the files that it no longer needs are removed.
    """
    from featdyn.store import compact, gc

    if not compact(store):
        click.echo(f"{store}: nothing to do, it has the newest format")
        return
    found = gc(store)
    click.echo(f"{store}: rewritten in the newest format; {len(found.removed)} files were removed")
