"""Which tables a run has: arrays that share their axes are columns of one, coordinates stand beside them.

A row is a place along axes. Of layers, outputs and the cube these are checkpoint, layer and sample, and what else an
array goes along lies in lists: ``logits`` is ``FLOAT[10]``. A result has one table for each set of axes among its
variables: the one that most of them share, of two axes or more where there are such, is named as the analysis, the
others have their axes behind that name (``scalars`` where there are none).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from featdyn.query.catalogue import Catalogue, dims_of
from featdyn.query.stored_array import StoredArray, find

GRID = ("checkpoint", "layer", "sample", "probe")


@dataclass(frozen=True)
class Table:
    """One table, of which nothing is read yet."""

    schema: str  # "" for the main one
    name: str
    dims: tuple[str, ...]  # a row is a place along these
    arrays: dict[str, StoredArray]  # columns of values, by their names
    coordinates: dict[str, str]  # the other columns, each with its axis

    @property
    def title(self) -> str:
        """As it is written in SQL."""
        name = self.name if self.name.isidentifier() else f'"{self.name}"'
        return f"{self.schema}.{name}" if self.schema else name

    @property
    def widest(self) -> StoredArray:
        """An array that has all axes."""
        return next(iter(self.arrays.values()))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        cells = self.widest.cells
        return tuple(cells.shape[cells.dims.index(dim)] for dim in self.dims)


def tables(catalogue: Catalogue) -> Iterator[Table]:
    """Yield the tables of a run: coordinates, outputs, cube, layers, newest results, other groups by their names."""
    groups: dict[str, list[str]] = {}
    for name in catalogue.names:  # a layer's or a result's name may hold dots, paths are split at slashes
        groups.setdefault(catalogue.paths[name].rpartition("/")[0], []).append(name)
    for group, names in groups.items():
        along = {name: dims_of(catalogue.document(catalogue.paths[name])) for name in names}
        if not group:
            for dim in ("checkpoint", "sample"):
                yield from _table(catalogue, "", f"{dim}s", (dim,), [name for name in names if along[name] == (dim,)])
            continue
        first, _, rest = group.partition("/")
        if first in ("cube", "outputs", "layers", "inputs"):
            rows = {name: tuple(dim for dim in GRID if dim in dims) for name, dims in along.items()}
            schema, title = (first, rest) if rest else ("", first)
        else:
            rows, title = along, rest.partition("/")[0] or first
            schema = first if rest else ""
        beside = {path for name in names for path in catalogue.coordinates(catalogue.paths[name]).values()}
        sets = Counter(rows[name] for name in names if catalogue.paths[name] not in beside)
        sets = sets or Counter(rows.values())
        order = sorted(sets, key=lambda dims: (len(dims) < 2, -sets[dims], -len(dims), dims))
        for number, dims in enumerate(order):
            own = [name for name in names if rows[name] == dims]
            name = "_".join((title, *(dims or ("scalars",)))) if number else title
            yield from _table(catalogue, schema, name, dims, own)


def _table(catalogue: Catalogue, schema: str, title: str, dims: tuple[str, ...], names: list[str]) -> Iterator[Table]:
    if not names:
        return
    arrays = {array.name: array for array in (find(catalogue, name) for name in names)}
    # The axis itself is a column beside, and no value of its table; of one that is alone there is nothing else.
    coordinates: dict[str, str] = {}
    for array in arrays.values():
        coordinates |= {dim: dim for dim in dims}
        coordinates |= {name: dim for name, dim in array.coordinates.items() if dim in dims}
    values = {name: array for name, array in arrays.items() if name not in coordinates}
    if not values:  # each is a coordinate of the others: one has to be the value
        last = next((name for name in arrays if name not in dims), names[-1].rpartition(".")[2])
        values = {last: arrays[last]}
    ordered = [(name, dim) for dim in dims for name, of in coordinates.items() if of == dim]
    ordered.sort(key=lambda item: (dims.index(item[1]), item[0] != item[1]))
    coordinates = {name: dim for name, dim in ordered if name not in values}
    yield Table(schema, title, dims, values, coordinates)
