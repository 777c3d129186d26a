"""Flags of the command line that are made from options: one definition serves both."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo


def flags(options: type[BaseModel]) -> list[click.Parameter]:
    """Return a flag for each field."""
    return [_flag(name, field) for name, field in options.model_fields.items()]


def _flag(name: str, field: FieldInfo) -> click.Option:
    kind: Any = field.annotation
    default = field.get_default()
    if get_origin(kind) in (UnionType, Union):  # None is what leaving the flag out gives; of several, validation tells
        kinds = [one for one in get_args(kind) if one is not NoneType]
        kind = kinds[0] if len(kinds) == 1 else str
    kind = {Path: click.Path(path_type=Path), ByteSize: str}.get(kind, kind)  # validation understands units
    flag = f"--{name.replace('_', '-')}"
    shared: dict[str, Any] = {"help": field.description, "show_default": True}
    if get_origin(kind) is Literal:
        return click.Option([flag], type=click.Choice(list(get_args(kind))), default=default, **shared)
    if get_origin(kind) is tuple:

        def split(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in value.split(",") if part.strip())

        return click.Option([flag], default=",".join(map(str, default)), callback=split, metavar="A,B,...", **shared)
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=default, **shared)
    return click.Option([flag], type=kind, default=default, **shared)
