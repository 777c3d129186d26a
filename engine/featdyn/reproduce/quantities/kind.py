"""What kinds of quantities have in common: options that know their axes, and the run that they are measured of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from featdyn.reproduce.measured import Measured
from featdyn.reproduce.times import Times
from featdyn.store import Run
from featdyn.validation import Options

NEVER = "no checkpoint is"


@dataclass(frozen=True)
class Seen:
    """What quantities are given of a run."""

    run: Run
    times: Times


class Kind(Options):
    """A kind of quantity: its fields are its options."""

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """What it is over, whatever the run."""
        raise NotImplementedError

    @property
    def results(self) -> tuple[str, ...]:
        """The analyses whose results it reads."""
        raise NotImplementedError

    @property
    def asked_times(self) -> Iterator[str]:
        """The names of the times that it is asked at."""
        for name in ("t1", "t2"):
            given = getattr(self, name, ())
            yield from (given,) if isinstance(given, str) else given

    def measured(self, seen: Seen) -> Measured:
        """Return it of a run; its variance is that over choices of images, where the stored results tell it."""
        raise NotImplementedError
