"""Options given by a person, checked: one line that names the field and says what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from featdyn.errors import RecipeError

Model = TypeVar("Model", bound=BaseModel)


class Options(BaseModel):
    """The base of all options: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(model: type[Model], values: Mapping[str, Any], what: str) -> Model:
    """Return ``model(**values)``, or raise a :class:`RecipeError` of one line about the first field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise _unknown(model, first["loc"], what) from None
        given = "" if first["type"] == "missing" else f", got {first['input']!r}"
        text = first["msg"].lower().removeprefix("value error, ").replace("tuple", "list")
        raise RecipeError(f"{what}: {field}: {text}{given}") from None


def _unknown(model: type[BaseModel], location: tuple[int | str, ...], what: str) -> RecipeError:
    table: Any = model
    for part in location[:-1]:
        table = table.model_fields[str(part)].annotation if hasattr(table, "model_fields") else None
    known = ", ".join(table.model_fields) if hasattr(table, "model_fields") else ""
    field = ".".join(str(part) for part in location)
    return RecipeError(f"{what}: no field {field}" + (f"; there are {known}" if known else ""))
