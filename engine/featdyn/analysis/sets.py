"""The sets that probes fall into: train, test, corrupted, shifted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featdyn.store import Run


@dataclass(frozen=True, eq=False)
class Sets:
    """The sets of a run's probes, in the order in which they were recorded.

    Attributes
    ----------
    names
        Of the sets.
    members
        ``(probe,)`` for each set, which probes belong to it.
    """

    names: list[str]
    members: list[NDArray[np.bool_]]

    @classmethod
    def of(cls, run: Run) -> Sets:
        """Return the splits of a run; one set, "probes", where its probes are not told apart."""
        coords = run.coords
        if "split" not in coords:
            return cls(["probes"], [np.ones(run.schema.samples, bool)])
        splits = coords["split"].values
        names = list(dict.fromkeys(splits.tolist()))
        return cls(names, [splits == name for name in names])

    @property
    def sizes(self) -> list[int]:
        """Number of probes in each set."""
        return [int(m.sum()) for m in self.members]

    @property
    def weights(self) -> NDArray[np.float64]:
        """``(probe, set)``, the weight of each probe in each set's mean."""
        return np.stack([m / m.sum() for m in self.members], axis=1)
