"""At which training steps a checkpoint is due."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from fractions import Fraction

from featdyn.capture.values import whole

_SHARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+) ?%")
_LOG = re.compile(r"(\d+) per decade")


@dataclass(frozen=True)
class Cadence:
    """When to record, as ``every=`` says it.

    A whole number k: each k-th step. ``"1%"``: that share of all steps, evenly (each 100th). ``"doubling"``: steps 1,
    2, 4, 8, ... ``"10 per decade"``: so many steps from each power of ten to the next, evenly on a logarithmic scale
    and rounded, where they differ. What is due follows from the step alone, so a run that goes on has the same.

    Raises
    ------
    ValueError
        Anything else, a share of 0 or above 100 %, or no step in a decade.
    """

    every: int | str

    def __post_init__(self) -> None:
        if isinstance(self.every, str):
            _read(self.every)
        else:
            object.__setattr__(self, "every", whole("every", self.every, 1))

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps; never after none."""
        if step < 1:
            return False
        if not isinstance(self.every, str):
            return step % self.every == 0
        share, per_decade = _read(self.every)
        if share:
            return step * share // 1 > (step - 1) * share // 1
        if per_decade is None:
            return step & (step - 1) == 0
        first = max(0, math.floor(per_decade * math.log10(step - 0.5)))
        last = math.ceil(per_decade * math.log10(step + 0.5))
        return any(round(10 ** (i / per_decade)) == step for i in range(first, last + 1))


@functools.cache
def _read(text: str) -> tuple[Fraction | None, int | None]:
    """Return the share, or the steps in a decade; neither where steps double."""
    if text == "doubling":
        return None, None
    if found := _SHARE.fullmatch(text):
        share = Fraction(found[1]) / 100
        if 0 < share <= 1:
            return share, None
    elif (found := _LOG.fullmatch(text)) and int(found[1]) > 0:
        return None, int(found[1])
    raise ValueError(
        f'every must be a number of steps, a share of them ("1%"), "doubling" or "10 per decade", got {text!r}'
    )
