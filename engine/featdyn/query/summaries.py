"""Values that are reduced, one reduction after the other, and refused before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from featdyn.errors import FeatdynError
from featdyn.query.answer import Answer
from featdyn.query.cells import Array, Cells, Region
from featdyn.query.columns import columns
from featdyn.query.groups import Groups
from featdyn.query.reduce import Keep, Reduced, Reduction
from featdyn.query.reduce import reduce as reduce_cells
from featdyn.query.selection import Selection

CLASS_NUMBERS = ("label", "true_label", "target", "prediction")


def summaries(
    selection: Selection,
    reductions: Sequence[Reduction],
    groups: dict[str, Groups],
    spared: frozenset[str],
    sort: tuple[str, ...],
    limit: int | None,
    asked: set[str],
) -> Answer:
    """Return values that are reduced."""
    _check(selection, reductions, groups, spared)
    values: dict[str, tuple[tuple[str, ...], Array]] = {}
    met: list[bool] = []
    keep = partial(selection.keep, met=met) if selection.filters else None
    for name, cells in selection.cells.items():
        found = Reduced(cells)
        for own, found in _steps(cells, reductions, groups, spared, keep):
            if own.dims and found.places is not None:
                values |= _places(selection, own.dims[0], found, asked)
        values[name] = (found.cells.dims, found.cells.load())
        if found.tied is not None and found.tied.any():
            values[f"{name}_tied"] = (found.cells.dims, found.tied)
    some = reductions[0].function not in ("count", "sum", "diff")  # of nothing these are 0; diff reads the ends alone
    if met and not any(met) and some:
        raise selection.nothing()
    widest = max((dims for dims, _ in values.values()), key=len)
    axes = {dim: groups[dim].columns if dim in groups else columns(selection, dim, asked) for dim in widest}
    attributes = {name: _named(array.attributes, reductions) for name, array in selection.arrays.items()}
    attributes |= {f"{name}_tied": {"long_name": f"whether others are as frequent as {name}"} for name in attributes}
    answer = Answer(axes, values, attributes, sort=sort, limit=limit)
    if not (met and some and (groups or spared) and any(pd.isna(values[name][1]).any() for name in selection.cells)):
        return answer
    cells = next(cells for name, cells in selection.cells.items() if values[name][0] == widest)
    held = _rows_met(selection, cells, reductions, groups, spared) > 0
    return answer if held.all() else answer.at(np.flatnonzero(held))


def _steps(
    cells: Cells,
    reductions: Sequence[Reduction],
    groups: dict[str, Groups],
    spared: frozenset[str],
    keep: Keep | None,
) -> Iterator[tuple[Reduction, Reduced]]:
    """Yield each reduction with the axes that it takes of a variable, and what it leaves."""
    left = dict(groups)
    for number, reduction in enumerate(reductions):
        own = Reduction(reduction.function, tuple(dim for dim in reduction.dims if dim in cells.dims))
        if reduction.dims and not own.dims:
            continue  # a value that does not go along these axes stays
        taken = {cells.dims[axis] for axis in own.axes(cells.dims, spared)}
        found = reduce_cells(cells, own, spared=spared, groups=left, keep=None if number else keep)
        yield own, found
        cells, left = found.cells, {dim: of for dim, of in left.items() if dim not in taken}


def _rows_met(
    selection: Selection,
    cells: Cells,
    reductions: Sequence[Reduction],
    groups: dict[str, Groups],
    spared: frozenset[str],
) -> Array:
    """Return of how many rows that meet the conditions on values each reduced value is, missing ones among them."""

    def ones(dims: tuple[str, ...], region: Region, values: Array) -> Array:
        return selection.keep(dims, region, np.ones(values.shape), [])

    counted = [Reduction("sum" if number else "count", of.dims) for number, of in enumerate(reductions)]
    for _, found in _steps(cells, counted, groups, spared, ones):
        cells = found.cells
    return cells.load()


def _check(
    selection: Selection, reductions: Sequence[Reduction], groups: dict[str, Groups], spared: frozenset[str]
) -> None:
    """Refuse axes that are not there, before anything is read."""
    functions = [reduction.function for reduction in reductions]
    before = functions[: functions.index("count")] if "count" in functions else functions  # of counts there are means
    for name in selection.cells:
        wrong = next((function for function in before if function != "mode" and class_number(selection, name)), None)
        if wrong is not None:
            raise FeatdynError(
                f"{name} holds class numbers, which have no {wrong}: --reduce mode, the most frequent, or count"
            )
    dims, left = selection.dims, set(groups)
    for number, reduction in enumerate(reductions):
        for name in set(reduction.dims) & set(selection.coordinates()) - set(selection.dims):
            raise FeatdynError(f"{name} is a coordinate of {selection.coordinates()[name]}: reduce over that axis")
        axes = reduction.axes(dims, spared)
        if reduction.function in ("argmax", "argmin") and (number < len(reductions) - 1 or len(selection.cells) > 1):
            raise FeatdynError(f"--reduce {reduction} is for one variable, and the last reduction")
        taken = {dims[axis] for axis in axes}
        dims = tuple(dim for dim in dims if dim not in taken or dim in left)
        left -= taken
    for dim in left:
        names = ",".join(groups[dim].columns)
        raise FeatdynError(f"--by {names}: no reduction takes {dim} away; add it, as in mean:{dim}, or name no axes")


def class_number(selection: Selection, name: str) -> bool:
    """Whether a variable holds names of classes that are whole numbers."""
    array = selection.arrays[name]
    return array.name in CLASS_NUMBERS and array.cells.dtype.kind in "iu"


def _places(
    selection: Selection, dim: str, found: Reduced, asked: set[str]
) -> dict[str, tuple[tuple[str, ...], Array]]:
    """Return what stands along an axis at the places of extremes."""
    assert found.places is not None
    there, beside = found.places >= 0, dict[str, tuple[tuple[str, ...], Array]]()
    for name, values in columns(selection, dim, asked).items():
        at = values[np.maximum(found.places, 0)] if len(values) else np.empty(found.places.shape, values.dtype)
        if not there.all():
            at = np.where(there, at, np.array(np.nan if at.dtype.kind in "biuf" else None))
        beside[name] = (found.cells.dims, at)
    return beside


def _named(attributes: Any, reductions: Sequence[Reduction]) -> dict[str, Any]:
    """Return an array's attributes with what was done to it in its name."""
    said = ", ".join(map(str, reductions))
    name = attributes.get("long_name")
    units = {"units": attributes["units"]} if "units" in attributes and "count" not in said else {}
    return ({"long_name": f"{name} ({said})"} if name else {}) | units
