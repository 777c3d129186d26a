"""The sets that probes fall into: train, test, corrupted, shifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def spread(run: Run, sets: Sets, samples: int) -> list[NDArray[np.intp]]:
    """Return for each set at most so many of its probes: the first of each corruption and severity, where known."""
    return [_spread(run, member, samples) for member in sets.members]


def _spread(run: Run, member: NDArray[np.bool_], samples: int) -> NDArray[np.intp]:
    places = np.flatnonzero(member)
    if len(places) <= samples:
        return places
    coords = run.coords
    kinds = [coords[name].values[places].tolist() for name in ("corruption", "severity") if name in coords]
    rank: dict[tuple[Any, ...], int] = {}
    order = []  # how many of its kind came before
    for kind in zip(*kinds, strict=True) if kinds else [()] * len(places):
        order.append(rank.setdefault(kind, 0))
        rank[kind] += 1
    return np.sort(places[np.argsort(order, kind="stable")[:samples]])
