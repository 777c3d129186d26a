"""Values as JSON has them: what people hand over, and what programs print."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np


def plain(value: Any, *, missing: bool = False) -> Any:
    """Return a value as JSON has it: numpy's scalars and arrays, paths, tuples and mappings become Python's own.

    Parameters
    ----------
    missing
        Return None for numbers that are not finite, and text for dates, times, durations and what else a table may
        hold that JSON does not have (keys too); else they are refused.

    Raises
    ------
    ValueError
        A number that is not finite, or one thing inside itself.
    TypeError
        A value or key that JSON does not have.
    """
    try:
        return _plain(value, missing)
    except RecursionError:
        raise ValueError("it holds itself, or is nested too deeply") from None


def _plain(value: Any, missing: bool) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        if missing:
            return None
        raise ValueError(f"{value} is not a JSON number")
    if isinstance(value, PurePath):
        return str(value)
    if missing and isinstance(value, (date, time, timedelta)):
        return str(value) if value == value else None  # pandas' NaT is no date
    if missing and isinstance(value, (Decimal, UUID, bytes, bytearray)):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key, missing): _plain(inner, missing) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, missing) for inner in value]
    raise TypeError(f"{type(value).__name__} {value!r} has no JSON form")


def _key(key: Any, missing: bool) -> str:
    found = _plain(key, missing)
    if isinstance(found, str):
        return found
    if isinstance(found, int):  # as json.dumps writes them, True as true among them
        return str(found).lower()
    if missing:
        return str(key)
    raise TypeError(f"key {key!r} is not text")
