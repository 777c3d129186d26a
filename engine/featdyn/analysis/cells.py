"""A result that is filled cell by cell: numbers over one grid, with the reasons of those that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.status import Status


class Cells:
    """Variables over ``dims`` and status variables; ``arrays`` have an axis more, of this name and length."""

    def __init__(
        self,
        dims: Sequence[str],
        shape: Sequence[int],
        numbers: Sequence[str],
        statuses: Sequence[str],
        arrays: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        self._dims = {name: tuple(dims) for name in numbers}
        self._values: dict[str, NDArray[np.float64]] = {name: np.full(tuple(shape), np.nan) for name in numbers}
        for name, (dim, length) in (arrays or {}).items():
            self._dims[name], self._values[name] = (*dims, dim), np.full((*shape, length), np.nan)
        self._status = {name: Status(dims, shape) for name in statuses}

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return sum(values.nbytes for values in self._values.values())

    def put(self, at: tuple[int, ...], values: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
        """Fill a cell: its values, of which arrays may be shorter than their axis, and why others are missing."""
        for name, value in values.items():
            if np.ndim(value):
                self._values[name][at][: len(value)] = value
            else:
                self._values[name][at] = value
        for name, reason in reasons.items():
            if reason:
                self._status[name].mark(reason, at)

    def fail(self, at: tuple[int, ...], reason: str) -> None:
        """Give all of a cell the same reason."""
        self.put(at, {}, dict.fromkeys(self._status, reason))

    def dataset(self) -> xr.Dataset:
        """Return the result."""
        found = {name: (self._dims[name], values) for name, values in self._values.items()}
        return xr.Dataset(found).assign({name: status.variable() for name, status in self._status.items()})
