"""Values that are not reduced: one row each."""

from __future__ import annotations

import math
from typing import Any

from featdyn.errors import FeatdynError
from featdyn.query.answer import Answer
from featdyn.query.cells import Array, Cells
from featdyn.query.columns import columns
from featdyn.query.rows import rows
from featdyn.query.selection import Selection
from featdyn.query.why_missing import why_missing

ROWS = 10_000_000  # of one table, unless a limit says otherwise


def values(selection: Selection, sort: tuple[str, ...], limit: int | None, asked: set[str]) -> Answer:
    """Return values that are not reduced."""
    key = sort[0] if len(sort) == 1 and sort[0].removeprefix("-") in selection.cells else None
    prunes = limit is not None and (key is not None or not sort) and bool(selection.dims)
    axes = {dim: columns(selection, dim, asked) for dim in selection.dims}
    attributes = {name: array.attributes for name, array in selection.arrays.items()}
    alone = next(iter(selection.arrays.values())) if len(selection.arrays) == 1 else None
    more: dict[str, Any] = {"attributes": attributes, "sort": sort, "limit": limit}
    if selection.filters or (prunes and sort):
        flat, held = rows(selection, key=key, limit=limit if prunes else None, most=ROWS)
        if selection.filters and not len(flat):
            raise selection.nothing()
        found: dict[str, tuple[tuple[str, ...], Array]] = {name: (("row",), each) for name, each in held.items()}
        reasons = why_missing(selection.catalogue.run, alone, next(iter(selection.cells.values()))) if alone else None
        if reasons is not None and (reasons.reshape(-1)[flat] != "").any():
            found["missing"] = (("row",), reasons.reshape(-1)[flat])
        return Answer(axes, found, rows=flat, **more)
    if not prunes and selection.rows > ROWS:
        raise FeatdynError(
            f"{selection.widest}: {selection.rows:,} rows; select less with --where, use --reduce, or set --limit"
        )
    cells = selection.cells
    if prunes and limit is not None:  # only what the first rows need is read
        needed = dict(zip(selection.dims, _first(cells[selection.widest], limit).shape, strict=True))
        cells = {name: _cut(found, needed) for name, found in cells.items()}
        axes = {dim: {n: column[: needed[dim]] for n, column in along.items()} for dim, along in axes.items()}
    found = {name: (held.dims, held.load()) for name, held in cells.items()}
    reasons = why_missing(selection.catalogue.run, alone, next(iter(cells.values()))) if alone else None
    if reasons is not None:
        found["missing"] = (selection.dims, reasons)
    return Answer(axes, found, **more)


def _first(cells: Cells, limit: int) -> Cells:
    """Return cells cut to little more than the first rows, so that only these are read."""
    for axis, dim in enumerate(cells.dims):
        needed = -(-limit // max(1, math.prod(cells.shape[axis + 1 :])))
        cells = cells.select(dim, cells.positions[axis][:needed])
        if needed > 1:
            break
    return cells


def _cut(cells: Cells, lengths: dict[str, int]) -> Cells:
    for axis, dim in enumerate(cells.dims):
        cells = cells.select(dim, cells.positions[axis][: lengths[dim]])
    return cells
