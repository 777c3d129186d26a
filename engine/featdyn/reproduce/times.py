"""Checkpoints of a run by what its network can do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from featdyn.across_runs.matching import before
from featdyn.analysis.inputs.class_labels import predictions_labelled, recorded_classes
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.reproduce.study import FIRST, LAST, Time
from featdyn.store import Run


class Times:
    """The named checkpoints of one run."""

    def __init__(self, run: Run, times: Mapping[str, Time]) -> None:
        self._run, self._times = run, times
        self._right = cache(self._share_right)

    def at(self, name: str) -> int | None:
        """Return the number of the checkpoint; None where there is none, such as a share that is never reached."""
        if name in (FIRST, LAST):
            return 0 if name == FIRST else self._run.checkpoints - 1
        time = self._times[name]
        if time.reaches is None:
            assert time.steps is not None  # one or the other
            last, steps = self.at(time.of or LAST), self._run.values("step")
            return None if last is None else before(steps, time.steps * steps[last])
        reached = np.flatnonzero(self._right(time.set) >= time.reaches)
        found = int(reached[0]) - time.before if len(reached) else -1
        return found if found >= 0 else None

    def _share_right(self, name: str) -> NDArray[np.float64]:
        """Return the share of a set's probes that each checkpoint's own network has right, ``(checkpoint,)``."""
        sets, labels = predictions_labelled(self._run, ProbeSets.of(self._run))
        member = sets.member(name)
        if not member.any():
            return np.full(self._run.checkpoints, np.nan)
        return np.array(
            [(recorded_classes(self._run, t) == labels)[member].mean() for t in range(self._run.checkpoints)]
        )
