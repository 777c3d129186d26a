"""``featdyn serve``."""

from __future__ import annotations

import signal
from typing import Any

import click

from featdyn.output import shown


@click.command(epilog="Example: featdyn serve run.zarr")
@click.argument("store", type=click.Path())
@click.option("--host", default="127.0.0.1", show_default=True, help="Whose address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default one that is free.")
def command(store: str, host: str, port: int) -> None:
    """Show STORE in a browser while it is written: the report, with new checkpoints and results as they are committed.

    Nothing is written. Ctrl-C ends it.
    """
    from featdyn.report.server import Server

    with Server(store, host, port) as server:
        if not server.is_local:
            click.echo(f"featdyn: everybody who reaches {host} can read this store: there is no password", err=True)
        click.echo(shown(f"{store} is shown at {server.url} (Ctrl-C ends it)"))
        before = signal.signal(signal.SIGTERM, _end)
        try:
            server.serve_forever(0.2)
        except KeyboardInterrupt:
            click.echo("ended")
        finally:
            signal.signal(signal.SIGTERM, before)


def _end(*_: Any) -> None:
    raise KeyboardInterrupt
