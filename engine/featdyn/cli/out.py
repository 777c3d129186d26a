"""``-o``: the file that a command writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from featdyn.errors import FeatdynError

table_format = click.option(
    "--format", "kind", type=click.Choice(["table", "csv", "json", "parquet"]), default="table", show_default=True
)


def out_file(says: str, default: str | None = None) -> Callable[[Any], Any]:
    """Return the option."""
    kind = click.Path(dir_okay=False)
    return click.option("-o", "--out", type=kind, default=default, show_default=True, callback=_here, help=says)


def _here(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and "://" in value:  # else it would become a folder of that name
        raise FeatdynError(f"{value}: stores may lie in a bucket, what -o names is a file of this machine")
    return None if value is None else os.path.expanduser(value)  # no shell does, behind --out=
