"""What a question is about: variables that share axes, the selected places of these, and conditions on values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.names import NAMES
from featdyn.query.catalogue import Catalogue
from featdyn.query.cells import Array, Cells, Region
from featdyn.query.stored_array import StoredArray, find, unknown
from featdyn.query.where import Condition, Mask, summary
from featdyn.store import Run

IN_RESULTS = {"checkpoint": ("t", "t1", "t2"), "step": ("step1", "step2")}
"""What results call the checkpoints and steps that the rest of a run has."""


@dataclass(frozen=True)
class Selection:
    """Variables at the places where conditions on coordinates hold, not read yet."""

    catalogue: Catalogue
    arrays: dict[str, StoredArray]  # by the columns that they become
    cells: dict[str, Cells]  # of each the selected ones
    positions: dict[str, NDArray[np.intp]]  # that are selected of each axis
    filters: tuple[tuple[Condition, str, Cells], ...]  # conditions on values, each with its variable
    named: frozenset[str]  # coordinates that conditions are about

    @cached_property
    def widest(self) -> str:
        """The variable that has all axes."""
        return max(self.cells, key=lambda name: len(self.cells[name].dims))

    @property
    def dims(self) -> tuple[str, ...]:
        """All axes."""
        return self.cells[self.widest].dims

    @property
    def shape(self) -> tuple[int, ...]:
        """Their selected lengths."""
        return self.cells[self.widest].shape

    @property
    def rows(self) -> int:
        """How many values the widest variable has here."""
        return math.prod(self.shape)

    def coordinates(self) -> dict[str, str]:
        """Return the axis of each coordinate."""
        arrays = (*self.arrays.values(), self.arrays[self.widest])
        return {name: dim for array in arrays for name, dim in array.coordinates.items()}

    def coordinate(self, name: str) -> tuple[str, Array]:
        """Return the axis of a coordinate and all its values, selected or not."""
        for array in (self.arrays[self.widest], *self.arrays.values()):
            if name in array.coordinates:
                return array.coordinate(name)
        if name in self.dims:
            return self.arrays[self.widest].coordinate(name)
        raise FeatdynError(f"{', '.join(self.arrays)} has no coordinate {name!r}{unknown(name, self.known)}")

    @property
    def known(self) -> list[str]:
        """Axes, coordinates and columns."""
        return list(dict.fromkeys([*self.dims, *self.coordinates(), *self.arrays]))

    def meaning(self, name: str) -> str:
        """Return the coordinate that ``checkpoint`` or ``step`` stands for in a result; any other name is its own."""
        here = [other for other in IN_RESULTS.get(name, ()) if other in self.known] if name not in self.known else []
        if len(here) > 1:
            meanings = " or ".join(f"{other} ({NAMES[other][0]})" for other in here)
            raise FeatdynError(f"{name} of {', '.join(self.arrays)}: say {meanings}")
        return here[0] if here else name

    def column(self, name: str) -> str:
        """Return the column that a variable became, by its dotted name; any other name is its own."""
        path = self.catalogue.paths.get(name.replace("/", "."))
        of = {array.path: column for column, array in self.arrays.items()}
        return self.meaning(name if name in self.known or path is None else of.get(path, name))

    def selected(self, name: str) -> tuple[str, Array]:
        """Return the axis of a coordinate and its values at the selected places."""
        dim, values = self.coordinate(name)
        return dim, values[self.positions[dim]]

    def holds(self, region: Region) -> Mask:
        """Return where in a region of all axes the conditions on values hold."""
        shape = tuple(run.stop - run.start for run in region)
        mask = np.ones(shape, bool)
        for condition, _, cells in self.filters:
            mask &= condition.holds(cells.at(self.dims, region))
        return mask

    def keep(self, dims: tuple[str, ...], region: Region, values: Array, met: list[bool]) -> Array:
        """Return values at a region of some axes, NaN where a condition on values does not hold.

        Whether all hold anywhere here is added to ``met``.
        """
        mask = np.ones(values.shape, bool)
        for condition, name, cells in self.filters:
            if not set(cells.dims) <= set(dims):
                lacking = ", ".join(dim for dim in cells.dims if dim not in dims)
                raise FeatdynError(f"--where {condition.text!r}: {name} goes along {lacking}, what is reduced does not")
            mask &= condition.holds(cells.at(dims, region))
        met.append(bool(mask.any()))
        return np.where(mask, values, np.asarray(np.nan, np.result_type(values, np.float32)))

    def nothing(self) -> FeatdynError:
        """Say that no value meets the conditions, and what there is."""
        parts = []
        for condition, name, cells in self.filters:
            parts.append(f"--where {condition.text!r} selects nothing; {name} is {summary(cells.load().reshape(-1))}")
        both = "all conditions together select nothing; " if len(parts) > 1 else ""
        return FeatdynError(both + "; ".join(parts))


def select(run: Run, names: Sequence[str], where: Sequence[str]) -> Selection:
    """Return variables at the places where all conditions on coordinates hold; only coordinates are read.

    Raises :class:`FeatdynError` for an unknown variable or coordinate, variables that do not share their axes, a
    condition that cannot be read, or no place where all hold.
    """
    catalogue = Catalogue(run)
    arrays = [find(catalogue, name) for name in catalogue.matching(names)]
    last = [array.name for array in arrays]
    columns = {a.name if last.count(a.name) == 1 else a.path.replace("/", "."): a for a in arrays}
    found = Selection(catalogue, columns, {n: a.cells for n, a in columns.items()}, {}, (), frozenset())
    for name, array in columns.items():
        _share(found.arrays[found.widest], array, found.widest, name)
    kept: dict[str, Mask] = {}
    filters: list[tuple[Condition, StoredArray]] = []
    named: set[str] = set()
    for condition in [Condition.parse(text) for text in where]:
        condition = replace(condition, name=found.meaning(condition.name))
        other = _variable(found, catalogue, condition.name)
        if other is not None and set(other.cells.dims) & set(found.dims):
            _share(found.arrays[found.widest], other, found.widest, condition.name)
            filters.append((condition, other))
            continue
        if other is not None and not other.cells.dims:
            raise FeatdynError(f"--where {condition.text!r}: {condition.name} is one value, along no axis")
        if condition.name not in found.known and (near := catalogue.near(condition.name, found.dims)):
            raise FeatdynError(f"--where {condition.text!r}: no {condition.name!r} here; did you mean {near}?")
        dim, values = found.coordinate(condition.name)
        mask = condition.holds(values, values, counted=condition.name == dim)
        if not mask.any():
            raise condition.nothing(values, counted=condition.name == dim)
        kept[dim] = mask & kept.get(dim, True)
        named.add(condition.name)
    for dim, mask in kept.items():
        if not mask.any():
            raise FeatdynError(f"no {dim} of {found.widest} meets all of: {', '.join(where)}")
    cells = {name: _at(array.cells, kept) for name, array in columns.items()}
    return replace(
        found,
        cells=cells,
        positions=dict(zip(found.dims, cells[found.widest].positions, strict=True)),
        filters=tuple((condition, array.name, _at(array.cells, kept)) for condition, array in filters),
        named=frozenset(named),
    )


def _at(cells: Cells, kept: dict[str, Mask]) -> Cells:
    for dim, mask in kept.items():
        if dim in cells.dims:
            cells = cells.select(dim, cells.positions[cells.dims.index(dim)][mask])
    return cells


def _variable(found: Selection, catalogue: Catalogue, name: str) -> StoredArray | None:
    """Return the variable that a condition is about: one that is asked for, or another by its dotted name."""
    if name in found.coordinates() or name in found.dims:
        return None
    if name in found.arrays:
        return found.arrays[name]
    return find(catalogue, name) if name.replace("/", ".") in catalogue.paths else None


def _share(widest: StoredArray, other: StoredArray, name: str, other_name: str) -> None:
    """Refuse what does not lie along the axes of the widest variable."""
    lacking = [dim for dim in other.cells.dims if dim not in widest.cells.dims]
    if lacking:
        raise FeatdynError(
            f"{other_name} goes along {', '.join(lacking)} and {name} does not: reduce it in a question of its own"
        )
    for dim in other.cells.dims:
        ours, theirs = widest.coordinate(dim)[1], other.coordinate(dim)[1]
        if ours is not theirs and (len(ours) != len(theirs) or not (ours == theirs).all()):
            raise FeatdynError(f"{other_name} and {name} have another {dim}: ask for them one by one")
