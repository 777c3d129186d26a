"""A recipe: everything that determines a run, as a validated TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from featdyn.capture.options import CaptureOptions
from featdyn.data.options import DataOptions, LabelOptions, ProbeOptions
from featdyn.errors import RecipeError
from featdyn.nearest import meant
from featdyn.training.options import CheckpointOptions, InterventionOptions, NetworkOptions, TrainingOptions
from featdyn.validation import Options, parse_toml, validate

LARGEST = 10**6


class Recipe(Options):
    """Everything that determines a run; each field is a table of the TOML file."""

    description: str = Field("", description="one line about the run")
    data: DataOptions = Field(default_factory=DataOptions)
    labels: LabelOptions = Field(default_factory=LabelOptions)
    network: NetworkOptions
    training: TrainingOptions = Field(default_factory=TrainingOptions)
    intervention: InterventionOptions = Field(default_factory=InterventionOptions)
    checkpoints: CheckpointOptions = Field(default_factory=CheckpointOptions)
    probes: ProbeOptions = Field(default_factory=ProbeOptions)
    capture: CaptureOptions = Field(default_factory=CaptureOptions)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.training.split == "test" and (self.labels.noise or self.probes.corrupted):
            raise ValueError("training.split = test makes a baseline: labels.noise and probes.corrupted must be 0")
        if self.training.suppress and self.intervention.cut:
            raise ValueError("training.suppress is of the whole network: leave intervention.cut out")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """The recipe as JSON-like values, without what may differ between a run and its continuation."""
        values = self.model_dump(mode="json")
        for field in ("data_dir", "download"):
            values["data"].pop(field)
        return values


def shipped() -> dict[str, str]:
    """Return the recipes that come with featdyn: name to description."""
    return {name: load(name).description for name in _names()}


def _names() -> list[str]:
    folder = resources.files("featdyn.training") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load(source: str, changes: Sequence[str] = ()) -> Recipe:
    """Return a recipe: of the name of a shipped one, or of the path of a TOML file.

    ``changes`` are ``field=value`` with a dotted field, such as ``training.epochs=3``; values as in TOML, quotes may be
    left out. Raises :class:`RecipeError` for no such recipe, no TOML, or a field that is unknown or wrong.
    """
    built_in = resources.files("featdyn.training") / "recipes" / f"{source}.toml"
    try:
        named = "/" not in source and built_in.is_file()
        text = (built_in if named else Path(source)).read_text()
        if len(text) > LARGEST:
            raise RecipeError(f"{source}: more than {LARGEST:,} characters, which no recipe has")
    except (OSError, UnicodeDecodeError, ValueError):  # ValueError: of a name with a zero byte
        name = source if len(source) <= 100 else f"{source[:100]}..."
        shown = f"{meant(source, _names())}give a TOML file or a name that 'featdyn train --list' shows"
        raise RecipeError(f"no recipe {name!r}: {shown}") from None
    values = parse_toml(text, source)
    said = values.get("description")
    for change in changes:
        _apply(values, change)
    if said and changes and values.get("description") == said:  # else it would say what is no longer true
        values["description"] = f"{said}; changed: {', '.join(changes)}"
    return validate(Recipe, values, source)


def _apply(values: dict[str, Any], change: str) -> None:
    field, equals, text = change.partition("=")
    if not equals or not field:
        raise RecipeError(f"--set {change}: write field=value, such as training.epochs=3")
    *tables, name = field.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {change}: {table} is not a table")
    try:
        values[name] = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        values[name] = text.strip()  # a word without quotes


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the fields in which a stored recipe differs from this one, as ``field: 6 there, 12 here``."""
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from differences(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}: {a!r} there, {b!r} here"


def fields(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (field, default, description) for each field of a recipe."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from fields(annotation, f"{prefix}{name}.")
        else:
            default = "" if field.is_required() else repr(field.get_default(call_default_factory=True))
            yield f"{prefix}{name}", default, field.description or ""
