"""``featdyn compact``."""

from __future__ import annotations

import click

from featdyn.output import quoted


@click.command(epilog="Example: featdyn compact run.zarr")
@click.argument("store", type=click.Path())
def command(store: str) -> None:
    """Rewrite STORE, of an older format, with few files for what is small; every value stays as it is.

    Nobody else may write it meanwhile. The files that it no longer needs stay for those who have it open, until
    featdyn gc removes them.
    """
    from featdyn.store import compact

    if compact(store):
        click.echo(
            f"{store}: rewritten in the newest format; when nobody has it open any more: featdyn gc {quoted(store)}"
        )
    else:
        click.echo(f"{store}: nothing to do, what is small lies in few files already")
