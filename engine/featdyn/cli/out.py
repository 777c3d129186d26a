"""``--format`` and ``-o``: how a command writes, and the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from featdyn.errors import FeatdynError
from featdyn.output import FORMATS

ENDINGS = {"nc": "netcdf", "feather": "arrow", "ipc": "arrow"}
"""Endings of files that are not the name of their format."""
_JSON = click.option("--json", "kind", flag_value="json", help="Short for --format json.")


def table_format(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of how a table is written, ``kind`` and ``raw``."""
    raw = click.option("--raw", is_flag=True, help="CSV: texts as they are, also what a spreadsheet would run.")
    kind = click.option("--format", "kind", type=click.Choice(FORMATS), help="By default as -o ends, else table.")
    return kind(_JSON(raw(command)))


def text_format(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that tells people and programs the same, ``kind``."""
    kind = click.option(
        "--format", "kind", type=click.Choice(["text", "json"]), help="What is printed; text is for people."
    )
    return kind(_JSON(command))


def format_of(kind: str | None, out: str | None) -> str:
    """Return the format that was asked for, or that the ending of a file's name tells."""
    if kind is not None:
        return kind
    ending = os.path.splitext(out or "")[1].lower().removeprefix(".")
    ending = {"": "table", "txt": "table", **ENDINGS}.get(ending, ending)
    if ending not in FORMATS:
        known = ", ".join(f".{name}" for name in (*FORMATS[1:], *ENDINGS, "txt"))
        raise FeatdynError(
            f"-o {out}: no format ends in .{ending}; there are {known}, and --format says it of any name"
        )
    return ending


def out_file(says: str, default: str | None = None) -> Callable[[Any], Any]:
    """Return the option."""
    kind = click.Path(dir_okay=False)
    return click.option("-o", "--out", type=kind, default=default, show_default=True, callback=_here, help=says)


def _here(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise FeatdynError("-o '': give the name of a file")
    if value is not None and "://" in value:  # else it would become a folder of that name
        raise FeatdynError(f"{value}: stores may lie in a bucket, what -o names is a file of this machine")
    if value is None:
        return None
    path = os.path.expanduser(value)  # no shell does, behind --out=
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):  # said before anything is computed
        raise FeatdynError(f"{value}: there is no folder {folder}")
    return path
