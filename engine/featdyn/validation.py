"""Options given by a person, checked: one line that names the field and says what it takes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from featdyn.errors import RecipeError
from featdyn.nearest import meant

Model = TypeVar("Model", bound=BaseModel)


Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Options(BaseModel):
    """The base of all options: unknown fields are refused, and numbers that are not finite or no 64 bits hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, bool) and bool not in kinds and {int, float} & kinds:  # true, for pydantic, is a 1
            raise ValueError("input should be a number")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"input should be {'less than 2^63' if value > 0 else 'at least -2^63'}")
        return value


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return the values of a TOML file, or raise a :class:`RecipeError` of one line that names it."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{source}: not valid TOML: {error}") from None


def validate(model: type[Model], values: Mapping[str, Any], what: str) -> Model:
    """Return ``model(**values)``, or raise a :class:`RecipeError` of one line about the first field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        every = error.errors()
        # A name that is not there comes before what its right name would have filled.
        first = next((each for each in every if each["type"] == "extra_forbidden"), every[0])
        # Where several types will do, pydantic says which of them it tried.
        field = ".".join(str(part) for part in first["loc"] if part not in ("int", "str"))
        if first["type"] == "extra_forbidden":
            raise _unknown(model, first["loc"], what) from None
        # What is lacking, or wrong of several fields together, comes with all of them.
        given = "" if isinstance(first["input"], Mapping) else f", got {first['input']!r}"
        text = first["msg"].lower().removeprefix("value error, ").replace("tuple", "list")
        raise RecipeError(": ".join(part for part in (what, field, text) if part) + given) from None


def _unknown(model: type[BaseModel], location: tuple[int | str, ...], what: str) -> RecipeError:
    table: Any = model
    for part in location[:-1]:
        table = _inside(table, part)
    known = list(table.model_fields) if hasattr(table, "model_fields") else []
    field = ".".join(str(part) for part in location)
    said = f"; {meant(str(location[-1]), known)}there are {', '.join(known)}" if known else ""
    return RecipeError(f"{what}: no field {field}{said}")


def _inside(table: Any, part: int | str) -> Any:
    """Return the type of a field, or of what a list or a mapping holds; None where there is none."""
    if hasattr(table, "model_fields"):
        return table.model_fields[str(part)].annotation
    held = [kind for kind in get_args(table) if hasattr(kind, "model_fields") or get_args(kind)]
    return held[-1] if held else None
