"""Conditions on coordinates: ``split=test``, ``layer=s3*``, ``step=100..500``, ``label!=3,5``, ``train_loss<0.1``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.query.cells import Array, Cells
from featdyn.query.stored_array import StoredArray

_CONDITION = re.compile(r"\s*([^=!<>]+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_ORDER = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}

Mask = NDArray[np.bool_]


def select(variable: StoredArray, where: Sequence[str]) -> Cells:
    """Return the cells of a variable at the positions where all conditions hold; only coordinates are read.

    Raises :class:`FeatdynError` for a condition that cannot be read, an unknown coordinate, or no position where all
    hold.
    """
    kept: dict[str, Mask] = {}
    for text in where:
        name, operator, pattern = _parse(text)
        dim, values = variable.coordinate(name)
        mask = _matches(text, values, operator, pattern)
        if not mask.any():
            raise FeatdynError(f"--where {text!r} selects nothing; {name} is {_summary(values)}")
        kept[dim] = mask & kept.get(dim, True)
    cells = variable.cells
    for dim, mask in kept.items():
        if not mask.any():
            raise FeatdynError(f"no {dim} of {variable.name} meets all of: {', '.join(where)}")
        cells = cells.select(dim, cells.positions[cells.dims.index(dim)][mask])
    return cells


def coordinates_of(where: Sequence[str]) -> set[str]:
    """Return the coordinates that conditions name."""
    return {_parse(text)[0] for text in where}


def _parse(text: str) -> tuple[str, str, str]:
    parsed = _CONDITION.fullmatch(text)
    if parsed is None:
        raise FeatdynError(f"--where {text!r}: write it as coordinate=value, such as split=test or step>=100")
    name, operator, pattern = parsed.groups()
    return name, operator, pattern


def _matches(text: str, values: Array, operator: str, pattern: str) -> Mask:
    if values.dtype.kind in "iuf":
        if operator in _ORDER:
            return np.asarray(_ORDER[operator](values, _number(text, pattern, values)))
        mask = np.zeros(values.shape, bool)
        for part in pattern.split(","):
            mask |= _among(text, values, part.strip())
        return ~mask if operator == "!=" else mask
    if operator in _ORDER:
        raise FeatdynError(f"--where {text!r}: {operator} is for numbers, and this coordinate holds text")
    patterns = {pattern, *(part.strip() for part in pattern.split(","))}
    words = [str(value) for value in values]
    found = {word: any(fnmatchcase(word, p) for p in patterns) for word in set(words)}
    mask = np.array([found[word] for word in words], bool)
    return ~mask if operator == "!=" else mask


def _among(text: str, values: Array, part: str) -> Mask:
    low, dots, high = part.partition("..")
    if not dots:
        return np.asarray(values == _number(text, part, values))
    mask = np.ones(values.shape, bool)
    if low:
        mask &= values >= _number(text, low, values)
    if high:
        mask &= values <= _number(text, high, values)
    return mask


def _number(text: str, word: str, values: Array) -> Any:
    """Return the number that a word stands for; ``first`` and ``last`` are the smallest and the largest there is."""
    if word.strip() in ("first", "last"):
        return np.fmin.reduce(values) if word.strip() == "first" else np.fmax.reduce(values)
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    raise FeatdynError(f"--where {text!r}: {word!r} is not a number, a range such as 10..50, or a list such as 1,2,5")


def _summary(values: Array) -> str:
    if values.dtype.kind in "iuf":
        return f"{np.fmin.reduce(values):g} to {np.fmax.reduce(values):g}"
    words = list(dict.fromkeys(str(v) or "''" for v in values))
    return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")
