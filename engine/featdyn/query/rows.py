"""The rows of a table that conditions on values and a limit leave, collected cell by cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.query.cells import Array
from featdyn.query.selection import Selection

KEPT = 65_536  # rows beyond a limit that are held before those that are not wanted are let go
Rows = tuple[NDArray[np.intp], dict[str, Array]]


def rows(selection: Selection, *, key: str | None, limit: int | None, most: int) -> Rows:
    """Return the places of the rows that are left, ascending, and their values.

    Parameters
    ----------
    key
        The variable by which they will be sorted, ``-`` before it where it descends; None for their own order.
    limit
        At most so many, the first ones by that; others are let go while it reads. Of equal ones those that come first.
    most
        Refuse more than this.
    """
    shape, dims = selection.shape, selection.dims
    parts: list[Rows] = [(np.empty(0, np.intp), {n: np.empty(0, c.dtype) for n, c in selection.cells.items()})]
    count, last = 0, -1
    for region in selection.cells[selection.widest].regions():
        full = key is None and limit is not None and count >= limit
        if full and region and region[0].start * _below(shape) > last:
            break  # what comes now lies behind all that is wanted
        mask = selection.holds(region)
        if not mask.any():
            continue
        found = np.nonzero(mask)
        places = np.ravel_multi_index(tuple(f + run.start for f, run in zip(found, region, strict=True)), shape)
        values = {n: np.broadcast_to(c.at(dims, region), mask.shape)[found] for n, c in selection.cells.items()}
        parts.append((np.asarray(places, np.intp), values))
        count, last = count + len(places), max(last, int(places.max()))
        if limit is None and count > most:
            raise FeatdynError(f"more than {most:,} rows; select less with --where, use --reduce, or set --limit")
        if limit is not None and count > 2 * limit + KEPT:
            parts = [_first(parts, key, limit)]
            count, last = limit, int(parts[0][0][-1])
    return _first(parts, key, count if limit is None else limit)


def _below(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64))


def _first(parts: list[Rows], key: str | None, count: int) -> Rows:
    """Return the first rows by a key, in the order of their places."""
    flat = np.concatenate([places for places, _ in parts])
    held = {name: np.concatenate([values[name] for _, values in parts]) for name in parts[0][1]}
    order: NDArray[np.intp] = np.argsort(flat, kind="stable")
    if key is not None and count < len(flat):
        values = held[key.removeprefix("-")][order]
        order = order[_sorter(values, descends=key.startswith("-"))]
    order = order[:count]
    order = order[np.argsort(flat[order], kind="stable")]
    return flat[order], {name: values[order] for name, values in held.items()}


def _sorter(values: Array, *, descends: bool) -> NDArray[np.intp]:
    """Return the order that :func:`featdyn.query.answer.ordered` gives: missing last, equal ones as they were."""
    import pandas as pd

    series = pd.Series(values).sort_values(ascending=not descends, kind="stable", na_position="last")
    return np.asarray(series.index, np.intp)
