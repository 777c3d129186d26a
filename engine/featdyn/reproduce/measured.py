"""What was measured of one run: numbers over named axes, each with the variance that another choice of images has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.plain import plain
from featdyn.statistics.resampling import Z95

Cell = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Measured:
    """A number of each cell of some axes, of one run.

    Attributes
    ----------
    axes : dict
        Name of the axis to its labels; none for a single number.
    value : float64 array over the axes
        NaN where it could not be measured; ``missing`` says why.
    variance : float64 array over the axes
        Of the value over choices of images (the unit that probes share), NaN where that is not known.
    """

    axes: Mapping[str, Sequence[str]]
    value: NDArray[np.float64]
    variance: NDArray[np.float64]
    missing: str = ""

    @classmethod
    def of(
        cls, axes: Mapping[str, Sequence[str]], value: ArrayLike, variance: ArrayLike, missing: str = ""
    ) -> Measured:
        """Return it with arrays of the axes' shape, into which one number is broadcast."""
        shape = tuple(map(len, axes.values()))
        of, spread = (np.broadcast_to(np.asarray(x, np.float64), shape).copy() for x in (value, variance))
        return cls({name: [str(label) for label in labels] for name, labels in axes.items()}, of, spread, missing)

    def cells(self) -> list[Cell]:
        """Return the labels of each cell, the last axis fastest."""
        return list(product(*self.axes.values()))

    def at(self, labels: Mapping[str, str]) -> tuple[float, float]:
        """Return (value, variance) of the cell with these labels; those of axes that it has not are left aside."""
        place = tuple(list(known).index(labels[name]) for name, known in self.axes.items())
        return float(self.value[place]), float(self.variance[place])

    def json(self) -> dict[str, Any]:
        """Return it as JSON has it, with every bit of its numbers."""
        said: dict[str, Any] = plain(
            {"axes": dict(self.axes), "value": self.value, "variance": self.variance, "missing": self.missing},
            missing=True,
        )
        return said

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Measured:
        """Return what :meth:`json` wrote."""
        value, variance = (np.array(said[name], np.float64) for name in ("value", "variance"))  # None is NaN
        return cls(said["axes"], value, variance, said["missing"])


def variance_of(low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """Return the variance that a 95 % interval of images says, as of a normal law."""
    return np.asarray(np.square((np.asarray(high, np.float64) - np.asarray(low, np.float64)) / (2 * Z95)))
