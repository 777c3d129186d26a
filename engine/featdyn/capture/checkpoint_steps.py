"""Which step of training a checkpoint is of: read from its name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from featdyn.errors import FeatdynError

_NUMBER = re.compile(r"(?:\d+(?:\.\d+)?(?:e\d\d?|[km])(?![a-z0-9]))|(?:(?<![\d.])\d+\.\d+(?!\.?\d))|\d+", re.IGNORECASE)
"""A number, also as 1e3, 10k or 1.5M; 1.5 is one, which is no step, 1.2.3 are three."""
_FACTORS = {"k": 10**3, "m": 10**6}
_NAMED = re.compile(r"(step|iter|iteration)s?$|(^|[^a-z])(it|its)$")
"""What stands before a step, in lower case."""
_ENDING = re.compile(r"\.(pt|pth|ckpt|bin|safetensors)$")
"""Of a file in another format: what is left says the step."""
_ADVICE = "give --step, a regular expression with one group"


def by_step(paths: Sequence[Path], pattern: str | None = None) -> dict[int, Path]:
    """Return checkpoints by their step, in order.

    The step is the number that differs from name to name: where several do, the one after ``step``, ``iter`` or ``it``,
    else the last whole one that is another in each. It may be written as 1e3, 10k or 1.5M, and formats may be mixed.
    ``pattern``, a regular expression whose first group is the step, says it for other names.

    Raises
    ------
    FeatdynError
        A name without a step, or two of the same.
    """
    found = [_matched(path, pattern) for path in paths] if pattern else _numbers([str(path) for path in paths])
    steps: dict[int, Path] = {}
    for step, path in sorted(zip(found, paths, strict=True)):
        if step in steps:
            raise FeatdynError(f"{steps[step]} and {path} are both of step {step}: leave one out, or {_ADVICE}")
        steps[step] = path
    return steps


def _matched(path: Path, pattern: str) -> int:
    try:
        found = re.search(pattern, str(path))
        return _step(_value(found[1] or "")) if found else _nothing(path, pattern)
    except (re.error, IndexError, ValueError) as error:
        raise FeatdynError(f"--step {pattern!r}: {error or 'no number'}: {_ADVICE} such as 'step(\\d+)'") from error


def _nothing(path: Path, pattern: str) -> int:
    raise FeatdynError(f"{path}: --step {pattern!r} does not match")


def _value(text: str) -> Decimal:
    """Return a number as it stands in a name; ValueError where there is none."""
    factor = _FACTORS.get(text[-1:].lower(), 1)
    try:
        return Decimal(text[:-1] if factor > 1 else text) * factor
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is no number") from error


def _step(value: Decimal) -> int:
    """Return a number as a step; ValueError where it is none."""
    if not 0 <= value < 2**63 or value != int(value):
        raise ValueError(f"{value} is no whole number from 0 to 2**63")
    return int(value)


def _numbers(names: Sequence[str]) -> list[int]:
    """Return the step in each name."""
    skeletons = {_NUMBER.sub("#", _ENDING.sub("", name)): name for name in names}
    if len(skeletons) > 1:
        one, other, *_ = skeletons.values()
        raise FeatdynError(f"{one} and {other} differ in more than a number: {_ADVICE}")
    rows = [tuple(_value(n) for n in _NUMBER.findall(name)) for name in names]
    first: dict[tuple[Decimal, ...], str] = {}
    for row, name in zip(rows, names, strict=True):
        if row and first.setdefault(row, name) != name:
            raise FeatdynError(
                f"{first[row]} and {name} have the same numbers, and would be of one step: leave one out"
            )
    columns = list(zip(*rows, strict=True))
    if len(names) == 1:  # nothing differs: what is in the last part of the path
        last = len(_NUMBER.findall(os.path.basename(names[0])))
        places = list(range(len(columns) - last, len(columns)))
    else:
        places = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    before = [text.rstrip("=_-. ").lower() for text in _NUMBER.split(names[0])] if names else []
    named = [i for i in places if _NAMED.search(before[i])]
    whole = [i for i in places if all(value == int(value) for value in columns[i])]
    apart = [i for i in named or whole or places if len(set(columns[i])) == len(names)]
    if not apart:
        raise FeatdynError(f"{names[0] if names else 'no name'}: no number in it tells its step: {_ADVICE}")
    try:
        return [_step(value) for value in columns[apart[-1]]]
    except ValueError as error:
        raise FeatdynError(f"{names[0]}: {error}: {_ADVICE}") from error
