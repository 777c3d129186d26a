"""From a question to a table: select, reduce, and one row per value that is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd

from featdyn.errors import FeatdynError
from featdyn.query.cells import Array, Cells
from featdyn.query.reduce import Reduction
from featdyn.query.reduce import reduce as reduce_cells
from featdyn.query.stored_array import StoredArray, find
from featdyn.query.where import coordinates_of, select
from featdyn.query.why_missing import why_missing
from featdyn.store import Run

ROWS = 10_000_000  # of one table, unless a limit says otherwise
# What a reader wants beside the name of a row; any other coordinate comes with a condition on it.
BESIDE = ("step", "epoch", "split", "label", "corruption", "severity", "step1", "step2")


def query(
    run: Run, variable: str, *, where: Sequence[str] = (), reduce: Sequence[str] = (), limit: int | None = None
) -> pd.DataFrame:
    """Select values of a variable by their coordinates and reduce them over axes.

    Only the checkpoints and samples that are selected are read, and reductions go cell by cell, so a store may be
    larger than memory.

    Parameters
    ----------
    variable
        A dotted name: ``cube.activation_norm``, ``layers.s1b1.activation``, ``outputs.loss``, ``train_loss``, or
        ``results.consistency.accuracy`` for the newest result of an analysis.
    where
        Conditions on coordinates, all of which must hold. Text takes patterns: ``layer=s3*``, ``split=train,test``,
        ``corruption!=``. Numbers take values, lists and ranges that include both ends: ``epoch=1,5``,
        ``step=100..500``, ``checkpoint=last``, ``train_loss<0.1``. An axis without coordinate is selected by its
        index.
    reduce
        Reductions, one after the other: ``mean:sample``, ``std:sample,layer``, or ``max`` over all axes. There are
        mean, sum, min, max, std (divided by n), count, median and quantiles (``q0.9``). NaN is skipped; where nothing
        is left, sum and count are 0 and everything else is NaN.
    limit
        At most so many rows, the first ones.

    Returns
    -------
    pandas.DataFrame
        One row per value: the axes that are left with their useful coordinates (``step`` and ``epoch`` beside
        ``checkpoint``; ``split``, ``label`` and corruption beside ``sample``; those named in ``where``), then the
        value, in a column named by the last part of ``variable``. Where a result says why values are missing, and some
        that were not reduced are, a column ``missing`` gives the reason.

    Raises
    ------
    FeatdynError
        An unknown name, a condition that selects nothing or cannot be read, or more than 10 million rows without a
        limit.
    """
    if limit is not None and limit < 1:
        raise FeatdynError(f"the limit must be at least 1, got {limit}")
    found = find(run, variable)
    reductions = [Reduction.parse(text) for text in reduce]
    dims = found.cells.dims
    for reduction in reductions:  # before anything is read
        for name in set(reduction.dims) & set(found.coordinates) - set(found.cells.dims):
            raise FeatdynError(f"{name} is a coordinate of {found.coordinates[name]}: reduce over that axis")
        axes = reduction.axes(dims)
        dims = tuple(d for axis, d in enumerate(dims) if axis not in axes)
    selected = select(found, where)
    cells = selected
    for reduction in reductions:
        cells = reduce_cells(cells, reduction)
    rows = math.prod(cells.shape)
    if limit is None and rows > ROWS:
        raise FeatdynError(f"{variable}: {rows:,} rows; select less with --where, use --reduce, or set --limit")
    if limit is not None:
        cells = _first(cells, limit)
    labels = {d: selected.positions[selected.dims.index(d)][: cells.shape[a]] for a, d in enumerate(dims)}
    table = _table(found, cells, labels, coordinates_of(where))
    reasons = why_missing(run, found, cells) if not reductions else None
    if reasons is not None:
        table["missing"] = reasons.reshape(-1)
    return table.head(limit if limit is not None else ROWS)


def _first(cells: Cells, rows: int) -> Cells:
    """Return cells cut to little more than the first rows, so that only these are read."""
    for axis, dim in enumerate(cells.dims):
        positions = cells.positions[axis]
        needed = -(-rows // math.prod(cells.shape[axis + 1 :]))
        cells = cells.select(dim, positions[:needed])
        if needed > 1:
            break
    return cells


def _table(variable: StoredArray, cells: Cells, labels: dict[str, Array], asked: set[str]) -> pd.DataFrame:
    columns: dict[str, Array] = {}
    for axis, (dim, positions) in enumerate(labels.items()):
        beside = [n for n, d in variable.coordinates.items() if d == dim and n != dim and n in {*BESIDE, *asked}]
        beside.sort(key=lambda name: BESIDE.index(name) if name in BESIDE else len(BESIDE))
        before, after = math.prod(cells.shape[:axis]), math.prod(cells.shape[axis + 1 :])
        for name in chain([dim], beside):
            values = variable.coordinate(name)[1][positions]
            columns[name] = np.tile(np.repeat(values, after), before)
    columns.pop(variable.name, None)  # a coordinate that was asked for itself: last, as any value
    return pd.DataFrame({**columns, variable.name: cells.load().reshape(-1)})
