"""How much of a run's time goes to recording: said as it goes, and kept for ``featdyn info``."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

from featdyn.store.cost import Cost, cost_of, keep
from featdyn.store.place import Place

SECONDS = 60.0
"""Between two lines about it, and before the first."""


class Meter:
    """Times what is done within it, also within itself; goes on from what the store has of earlier parts of the run."""

    def __init__(self) -> None:
        self._began = self._said = perf_counter()
        self._depth, self._entered = 0, 0.0
        self._recording = 0.0
        self._earlier = Cost()
        self.quiet = False

    def follow(self, place: Place) -> None:
        """Count what it took so far as recording, and what the store that is gone on with has cost."""
        self._recording += perf_counter() - self._began
        self._earlier = cost_of(place) or self._earlier

    @property
    def cost(self) -> Cost:
        """What there is so far."""
        run = perf_counter() - self._began
        return Cost(self._earlier.recording + self._recording, self._earlier.run + run)

    def tell(self, place: Place) -> None:
        """Say and keep the cost, at most once a minute."""
        if self.quiet or perf_counter() - self._said < SECONDS:
            return
        self._said = perf_counter()
        cost = self.cost
        print(f"{place}: {cost}", file=sys.stderr)
        keep(cost, place)

    def __enter__(self) -> Meter:
        if not self._depth:
            self._entered = perf_counter()
        self._depth += 1
        return self

    def __exit__(self, *_: Any) -> None:
        self._depth -= 1
        if not self._depth:
            self._recording += perf_counter() - self._entered
