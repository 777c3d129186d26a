"""Checkpoints of a run by what its network can do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial

import numpy as np

from featdyn.across_runs.matching import before
from featdyn.analysis.inputs.class_labels import recorded_accuracy
from featdyn.reproduce.study import FIRST, LAST, Time
from featdyn.store import Run


class Times:
    """The named checkpoints of one run."""

    def __init__(self, run: Run, times: Mapping[str, Time]) -> None:
        self._run, self._times = run, times
        self._right = cache(partial(recorded_accuracy, run))

    def at(self, name: str) -> int | None:
        """Return the number of the checkpoint; None where there is none, such as a share that is never reached."""
        if name in (FIRST, LAST):
            return 0 if name == FIRST else self._run.checkpoints - 1
        time = self._times[name]
        if time.reaches is None:
            assert time.steps is not None  # one or the other
            assert time.of is not None
            last, steps = self.at(time.of), self._run.values("step")
            return None if last is None else before(steps, time.steps * steps[last])
        reached = np.flatnonzero(self._right(time.set) >= time.reaches)
        found = int(reached[0]) - time.before if len(reached) else -1
        return found if found >= 0 else None
