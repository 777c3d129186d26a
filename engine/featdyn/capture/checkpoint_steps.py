"""Which step of training a checkpoint is of: read from its name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from featdyn.errors import FeatdynError

_NUMBER = re.compile(r"\d+")
_ADVICE = "give --step, a regular expression with one group"


def by_step(paths: Sequence[Path], pattern: str | None = None) -> dict[int, Path]:
    """Return checkpoints by their step, in order.

    The step is the number that differs from name to name: where several do, the one after ``step``, else the last
    that is another in each. ``pattern``, a regular expression whose first group is the step, says it for other names.

    Raises
    ------
    FeatdynError
        A name without a step, or two of the same.
    """
    found = [_matched(path, pattern) for path in paths] if pattern else _numbers([str(path) for path in paths])
    steps: dict[int, Path] = {}
    for step, path in sorted(zip(found, paths, strict=True)):
        if step in steps:
            raise FeatdynError(f"{steps[step]} and {path} are both of step {step}: {_ADVICE}")
        steps[step] = path
    return steps


def _matched(path: Path, pattern: str) -> int:
    try:
        found = re.search(pattern, str(path))
        return int(found[1]) if found else _nothing(path, pattern)
    except (re.error, IndexError, ValueError) as error:
        raise FeatdynError(f"--step {pattern!r}: {error or 'no number'}: {_ADVICE} such as 'step(\\d+)'") from error


def _nothing(path: Path, pattern: str) -> int:
    raise FeatdynError(f"{path}: --step {pattern!r} does not match")


def _numbers(names: Sequence[str]) -> list[int]:
    """Return the step in each name."""
    skeletons = {_NUMBER.sub("#", name): name for name in names}
    if len(skeletons) > 1:
        one, other, *_ = skeletons.values()
        raise FeatdynError(f"{one} and {other} differ in more than a number: {_ADVICE}")
    columns = list(zip(*([int(n) for n in _NUMBER.findall(name)] for name in names), strict=True))
    if len(names) == 1:  # nothing differs: what is in the last part of the path
        last = len(_NUMBER.findall(os.path.basename(names[0])))
        places = list(range(len(columns) - last, len(columns)))
    else:
        places = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    before = [text.rstrip("=_-. ").lower() for text in _NUMBER.split(names[0])] if names else []
    named = [i for i in places if before[i].endswith(("step", "iter"))]
    apart = [i for i in named or places if len(set(columns[i])) == len(names)]
    if not apart:
        raise FeatdynError(f"{names[0] if names else 'no name'}: no number in it tells its step: {_ADVICE}")
    return list(columns[apart[-1]])
