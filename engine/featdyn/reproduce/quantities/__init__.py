"""What a study measures of a run: functions of its stored results and coordinates, and of nothing else.

A quantity of a study names one of :data:`KINDS` and gives its options, which are the fields declared there.
What is missing in a result is missing here, with a word on why.
"""

from __future__ import annotations

from collections.abc import Mapping

from featdyn.errors import FeatdynError
from featdyn.nearest import meant
from featdyn.reproduce.measured import Measured
from featdyn.reproduce.quantities.composite import Composite
from featdyn.reproduce.quantities.control_advantage import ControlAdvantage
from featdyn.reproduce.quantities.distance import Distance
from featdyn.reproduce.quantities.kind import Kind, Seen
from featdyn.reproduce.quantities.stored import Stored
from featdyn.reproduce.quantities.survivors import Survivors
from featdyn.reproduce.quantities.turn import Turn
from featdyn.reproduce.study import FIRST, LAST, Quantity, Time
from featdyn.reproduce.times import Times
from featdyn.store import Run
from featdyn.validation import validate

KINDS: dict[str, type[Kind]] = {
    "stored": Stored,
    "composite": Composite,
    "control_advantage": ControlAdvantage,
    "distance": Distance,
    "survivors": Survivors,
    "turn": Turn,
}


def options_of(quantity: Quantity) -> Kind:
    """Return a quantity's options, which know its axes and the results that it reads."""
    return validate(KINDS[quantity.kind], quantity.options, quantity.kind)


def measure(run: Run, quantity: Quantity, times: Mapping[str, Time]) -> Measured:
    """Return a quantity of a run.

    Raises
    ------
    FeatdynError
        A result or coordinate that the run does not hold.
    """
    options = options_of(quantity)
    try:
        return options.measured(Seen(run, Times(run, times)))
    except KeyError:  # of xarray, in words about its own indexes
        asked = "; ".join(f"{axis} {', '.join(labels)}" for axis, labels in options.axes.items())
        held_by = " and ".join(options.results)
        raise FeatdynError(f"{run.path}: {quantity.kind}: results of {held_by} do not hold all of {asked}") from None


def check(quantity: Quantity, times: Mapping[str, Time], where: str) -> None:
    """Raise where a quantity has no such kind, options or times."""
    if quantity.kind not in KINDS:
        raise ValueError(f"{where}.kind {quantity.kind!r} is not there; {meant(quantity.kind, KINDS)}"
                         f"there are {', '.join(KINDS)}")  # fmt: skip
    options = validate(KINDS[quantity.kind], quantity.options, f"{where}.options")
    known = [FIRST, LAST, *times]
    for time in options.asked_times:
        if time not in known:
            raise ValueError(f"{where}: time {time!r} is not there; {meant(time, known)}there are {', '.join(known)}")
