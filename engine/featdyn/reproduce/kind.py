"""What kinds of quantities have in common: options that know their axes, and the run that they are measured of."""

from __future__ import annotations

from dataclasses import dataclass

from featdyn.reproduce.times import Times
from featdyn.store import Run
from featdyn.validation import Options

NEVER = "no checkpoint is"


class Kind(Options):
    """The options of a kind of quantity."""

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """What it is over, whatever the run."""
        raise NotImplementedError

    @property
    def results(self) -> tuple[str, ...]:
        """The analyses whose results it reads."""
        raise NotImplementedError


@dataclass(frozen=True)
class Seen:
    """What functions of quantities are given of a run."""

    run: Run
    times: Times
