"""An answer: values along axes, or some rows of them, as a table or as an xarray dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.names import described
from featdyn.query.cells import Array
from featdyn.query.stored_array import unknown

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Answer:
    """Values with what stands beside them.

    Attributes
    ----------
    axes : each axis with the columns that tell its places apart
    values
        Columns with the axes that they have; with ``rows`` each has one value a row.
    attributes : of columns, as they are stored
    rows : the places in the product of all axes that are left; None for all
    sort : columns to sort by, ``-`` before those that descend
    limit : at most so many rows
    within : columns of which each combination of values is sorted for itself
    most : at most so many rows of each of these
    """

    axes: dict[str, dict[str, Array]]
    values: dict[str, tuple[tuple[str, ...], Array]]
    attributes: Mapping[str, Mapping[str, Any]]
    rows: NDArray[np.intp] | None = None
    sort: tuple[str, ...] = ()
    limit: int | None = None
    within: tuple[str, ...] = ()
    most: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(next(iter(columns.values()))) for columns in self.axes.values())

    def frame(self) -> pd.DataFrame:
        """Return one row for each value that is left."""
        shape, columns = self.shape, {}
        index = None if self.rows is None else np.unravel_index(self.rows, shape)
        for axis, beside in enumerate(self.axes.values()):
            for name, values in beside.items():
                if index is not None:
                    columns[name] = values[index[axis]]
                else:
                    along = values.reshape([-1 if a == axis else 1 for a in range(len(shape))])
                    columns[name] = np.broadcast_to(along, shape).reshape(-1)
        for name, (dims, values) in self.values.items():
            columns.pop(name, None)  # a coordinate that was asked for itself: last, as any value
            columns[name] = self._flat(dims, values) if self.rows is None else values
        table = pd.DataFrame(columns)
        if self.within:
            parts = [part for _, part in table.groupby(list(self.within), sort=False, dropna=False)]
            table = pd.concat([ordered(part, self.sort).iloc[: self.most] for part in parts], ignore_index=True)
        elif self.sort:
            table = ordered(table, self.sort)
        return table if self.limit is None else table.head(self.limit)

    def at(self, rows: NDArray[np.intp]) -> Answer:
        """Return what stands at some places in the product of all axes, of an answer that has all of them."""
        values: dict[str, tuple[tuple[str, ...], Array]] = {
            name: (("row",), self._flat(dims, held)[rows]) for name, (dims, held) in self.values.items()
        }
        return replace(self, values=values, rows=rows)

    def _flat(self, dims: tuple[str, ...], values: Array) -> Array:
        """Return values at each place in the product of all axes."""
        missing = tuple(axis for axis, dim in enumerate(self.axes) if dim not in dims)
        order = [dims.index(dim) for dim in self.axes if dim in dims]
        found: Array = np.broadcast_to(np.expand_dims(values.transpose(order), missing), self.shape).reshape(-1)
        return found

    def dataset(self) -> xr.Dataset:
        """Return values along their axes; of an answer that was sorted or cut, along ``row``."""
        import xarray as xr

        if self.rows is not None or self.sort or self.limit is not None:
            table = self.frame()
            found = xr.Dataset({str(name): ("row", np.asarray(table[name])) for name in table})
            found = found.set_coords([str(name) for name in table if name not in self.values])
        else:
            beside = {name: (dim, v) for dim, columns in self.axes.items() for name, v in columns.items()}
            coords = {name: values for name, values in beside.items() if name not in self.values}
            found = xr.Dataset({name: (dims, values) for name, (dims, values) in self.values.items()}, coords)
        for name in map(str, found.variables):
            attributes = self.attributes.get(name, described(name, {}))
            found[name].attrs = {k: attributes[k] for k in ("long_name", "units") if k in attributes}
        return found


def ordered(table: pd.DataFrame, sort: Sequence[str]) -> pd.DataFrame:
    """Return a table sorted by columns; what is missing comes last, and equal rows stay as they were."""
    names = [name.removeprefix("-") for name in sort]
    for name in names:
        if name not in table:
            raise FeatdynError(f"--sort {name}: no such column{unknown(name, [str(c) for c in table.columns])}")
    ascending = [not name.startswith("-") for name in sort]
    return table.sort_values(names, ascending=ascending, kind="stable", na_position="last", ignore_index=True)
