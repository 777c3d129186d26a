"""A lazy array: positions selected from storage cells, read one cell at a time.

A cell is what the store reads in one piece (one checkpoint of one block of samples, or one chunk of a result), so
whatever is done cell by cell needs the memory of one cell, however large the array is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Region = tuple[slice, ...]
Read = Callable[[tuple[int, ...]], Array]


@dataclass(frozen=True)
class Cells:
    """Selected positions of an array that is stored in cells."""

    dims: tuple[str, ...]  # names of the axes
    positions: tuple[NDArray[np.intp], ...]  # for each axis the selected indices, ascending
    cell: tuple[int, ...]  # for each axis the length of a cell
    dtype: np.dtype[Any]  # of the values that `read` returns
    read: Read  # from the index of a cell to its values
    read_part: Callable[[tuple[int, ...], Region], Array] | None = None
    """Likewise, to some of its values in a row along each axis, where that is less than to read all."""

    @classmethod
    def held(cls, values: Array, dims: tuple[str, ...]) -> Cells:
        """Return an array in memory as one cell."""
        everything = tuple(np.arange(n) for n in values.shape)
        return cls(dims, everything, tuple(max(1, n) for n in values.shape), values.dtype, lambda index: values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes of the selection."""
        return tuple(len(p) for p in self.positions)

    def select(self, dim: str, positions: NDArray[np.intp]) -> Cells:
        """Return the same array with other positions along one axis."""
        axis = self.dims.index(dim)
        return replace(self, positions=(*self.positions[:axis], positions, *self.positions[axis + 1 :]))

    def pieces(self) -> Iterator[tuple[Region, Array]]:
        """Yield the selection cell by cell: where it lies in the selection, and its values."""
        axes = [list(_runs(p, n)) for p, n in zip(self.positions, self.cell, strict=True)]
        for parts in product(*axes):
            cell = tuple(index for index, _, _ in parts)
            first = tuple(int(local[0]) for _, _, local in parts)
            span = tuple(slice(f, int(local[-1]) + 1) for f, (_, _, local) in zip(first, parts, strict=True))
            values = self.read(cell)[span] if self.read_part is None else self.read_part(cell, span)
            for axis, (_, _, local) in enumerate(parts):
                values = values[(slice(None),) * axis + (_as_slice(local - first[axis]),)]
            yield tuple(region for _, region, _ in parts), values

    def regions(self) -> Iterator[Region]:
        """Yield where each cell lies in the selection, in the order of :meth:`pieces`, without reading it."""
        axes = [[run for _, run, _ in _runs(p, n)] for p, n in zip(self.positions, self.cell, strict=True)]
        yield from product(*axes)

    def groups(self, dims: tuple[str, ...]) -> Iterator[tuple[Region, Cells]]:
        """Split along some axes at the borders of cells; yield where along them, and the part."""
        axes = [list(_runs(self.positions[a], self.cell[a])) for a in map(self.dims.index, dims)]
        for parts in product(*axes):
            found = self
            for dim, (_, region, _) in zip(dims, parts, strict=True):
                found = found.select(dim, self.positions[self.dims.index(dim)][region])
            yield tuple(region for _, region, _ in parts), found

    def at(self, dims: tuple[str, ...], region: Region) -> Array:
        """Return the values at a region of a selection with these axes, of length 1 along those that these lack."""
        found = self
        for axis, dim in enumerate(self.dims):
            found = found.select(dim, self.positions[axis][region[dims.index(dim)]])
        values = found.load().transpose([self.dims.index(dim) for dim in dims if dim in self.dims])
        return np.expand_dims(values, tuple(axis for axis, dim in enumerate(dims) if dim not in self.dims))

    def load(self) -> Array:
        """Return all selected values."""
        whole = np.empty(self.shape, self.dtype)
        for region, values in self.pieces():
            whole[region] = values
        return whole


def _runs(positions: NDArray[np.intp], length: int) -> Iterator[tuple[int, slice, NDArray[np.intp]]]:
    """Yield each cell that holds some positions: its index, where they lie in the selection, and where in the cell."""
    cells = positions // length
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
        index = int(cells[start])
        yield index, slice(int(start), int(stop)), positions[start:stop] - index * length


def _as_slice(positions: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return positions without gaps as a slice, which takes a view instead of a copy."""
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == len(positions) else positions
