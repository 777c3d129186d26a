"""From a question to an answer: select, reduce, and one row per value that is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial, wraps
from inspect import signature
from typing import Any, ParamSpec

import numpy as np
import pandas as pd

from featdyn.errors import FeatdynError
from featdyn.query.answer import Answer
from featdyn.query.cells import Array, Cells, Region
from featdyn.query.groups import Groups
from featdyn.query.like import DISTANCE, distances
from featdyn.query.reduce import Keep, Reduced, Reduction
from featdyn.query.reduce import reduce as reduce_cells
from featdyn.query.rows import rows
from featdyn.query.selection import Selection, select
from featdyn.query.why_missing import why_missing
from featdyn.store import Run

Asked = ParamSpec("Asked")
ROWS = 10_000_000  # of one table, unless a limit says otherwise
# What a reader wants beside the name of a row; any other coordinate comes with a condition on it.
BESIDE = ("step", "epoch", "split", "label", "class_name", "corruption", "severity", "step1", "step2")
CLASS_NUMBERS = ("label", "true_label", "target", "prediction")


def as_table(ask: Callable[Asked, Answer]) -> Callable[Asked, pd.DataFrame]:
    """Return the function that takes the same question and returns its answer as a table."""

    @wraps(ask)
    def query(*question: Asked.args, **asked: Asked.kwargs) -> pd.DataFrame:
        return ask(*question, **asked).frame()

    query.__name__ = query.__qualname__ = "query"
    vars(query)["__signature__"] = signature(ask).replace(return_annotation="pd.DataFrame")
    return query


def ask(
    run: Run,
    *variables: str,
    where: str | Sequence[str] = (),
    by: str | Sequence[str] = (),
    reduce: str | Sequence[str] = (),
    like: str | int | None = None,
    sort: str | Sequence[str] = (),
    top: int | None = None,
    limit: int | None = None,
) -> Answer:
    """Select values of variables, reduce them over axes, group and sort them.

    ``query`` takes the same and returns the table at once.

    Only the checkpoints and samples that are selected are read, and reductions go cell by cell, so a store may be
    larger than memory.

    Parameters
    ----------
    variables
        Dotted names: ``cube.activation_norm``, ``layers.s1b1.activation``, ``outputs.loss``, ``train_loss``, or
        ``results.consistency.accuracy`` for the newest result of an analysis; patterns such as ``cube.*_norm``, and
        regular expressions behind ``~``. ``outputs.prediction``, ``outputs.confidence`` and ``outputs.correct`` follow
        from the logits. Several variables become columns of one table: the one with most axes has those of all others.
    where
        Conditions, all of which must hold. Text takes patterns and regular expressions: ``layer=s3*``,
        ``layer~^s[23]``, ``split=train,test``, ``corruption!=``. Numbers take values, lists and ranges that include
        both ends: ``epoch=1,5``, ``step=100..500``, ``checkpoint=last``, ``train_loss<0.1``; of an axis ``-1`` is the
        last. An axis without coordinate is selected by its index, and one of names by index too where no name is spelt
        so: ``sample=17``, ``layer=-1``. In a result ``checkpoint`` is ``t``. A condition may be on a variable too, one
        that is asked for or another by its dotted name: ``loss>1``, ``outputs.correct=false``.
    by
        Coordinates whose groups are left of the axes that are reduced, such as ``label``, ``class_name`` or ``epoch``,
        or axes that stay. Without a reduction it is the mean, of class numbers the mode.
    reduce
        Reductions, one after the other: ``mean:sample``, ``std:sample,layer``, or ``max`` over all axes (but those in
        ``by``). There are mean, sum, min, max, std (divided by n), count, norm (Euclidean), mode (the most frequent),
        median and quantiles (``q0.9``). Class numbers have only mode and count. NaN is skipped; where nothing is left,
        sum and count are 0 and everything else is NaN; where nothing is left anywhere by conditions on values, that is
        an error but for sum, count and diff.
        ``argmax:checkpoint`` and ``argmin`` come last and tell where the extreme is, beside it; ``diff:checkpoint`` is
        the last selected one minus the first.
    like
        A sample, by its place or id: the table has the Euclidean distance of all others to it, nearest first, in the
        features of the variable, such as ``cube.sketch`` or ``layers.s1b1.gradient``; each checkpoint and layer for
        itself.
    sort
        Columns to sort by, ``-loss`` from the largest down. Missing values come last.
    top
        Only so many rows, those of the largest values; with ``sort`` the first by that, with ``like`` the nearest of
        each checkpoint and layer.
    limit
        At most so many rows, the first ones.

    Returns
    -------
    Answer
        Its ``frame()``, which is what ``query`` returns, has one row per value: the axes that are left with their
        useful coordinates (``step`` and ``epoch`` beside ``checkpoint``; ``split``, ``label`` and corruption beside
        ``sample``; those named in ``where`` and ``sort``), then the values, in columns named by the last part of their
        variables. Where a result says why values are missing, and some that were not reduced are, a column ``missing``
        gives the reason. Its ``dataset()`` has the values along their axes.

    Raises
    ------
    FeatdynError
        An unknown name, a condition that selects nothing or cannot be read, or more than 10 million rows without a
        limit.

    Examples
    --------
    >>> run = featdyn.open_run("run.zarr")
    >>> featdyn.query.query(run, "step", where=["checkpoint=-1"])["step"].tolist()
    [22]
    """
    for what, count in (("limit", limit), ("top", top)):
        if count is not None and count < 1:
            raise FeatdynError(f"the {what} must be at least 1, got {count}")
    if top is not None and limit is not None:
        raise FeatdynError("give --top or --limit, not both")
    if not variables:
        raise FeatdynError("name a variable, such as outputs.loss; featdyn query STORE lists what there is")
    reductions = [Reduction.parse(text) for text in _several(reduce)]
    selection = select(run, variables, _several(where))
    if like is not None:
        selection = distances(selection, like)
    reductions = [Reduction(of.function, tuple(map(selection.meaning, of.dims))) for of in reductions]
    first = next(iter(selection.cells))
    keys = tuple(text.strip() for name in _several(sort) for text in name.split(","))
    keys = tuple("-"[: key.startswith("-")] + selection.column(key.removeprefix("-")) for key in keys)
    within = _not_comparable(selection) if like is not None and not keys else ()
    keys = keys or ((DISTANCE,) if like is not None else (f"-{first}",) if top is not None else ())
    asked = {name.removeprefix("-") for name in keys} & set(selection.coordinates())
    limit = top if limit is None else limit
    groups, spared = _groups(selection, _several(by))
    if not reductions and not by:
        if within:
            answer = _selected(selection, keys, None, asked)
            return replace(answer, within=within, most=top, limit=None if top is not None else limit)
        return _selected(selection, keys, limit, asked)
    numbers = all(_class_number(selection, name) for name in selection.cells)
    reductions = reductions or [Reduction("mode" if numbers else "mean")]
    return _reduced(selection, reductions, groups, spared, keys, limit, asked)


query = as_table(ask)
"""Answer a question as a table, a ``pandas.DataFrame``: ``ask(...).frame()``, with the parameters of :func:`ask`."""


def _several(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _groups(selection: Selection, by: tuple[str, ...]) -> tuple[dict[str, Groups], frozenset[str]]:
    """Return the groups of each axis of which some are asked for, and the axes that stay as they are."""
    names = [selection.meaning(name.strip()) for text in by for name in text.split(",")]
    along: dict[str, dict[str, Array]] = {}
    for name in dict.fromkeys(names):
        dim, values = selection.selected(name)
        along.setdefault(dim, {})[name] = values
    spared = frozenset(dim for dim in along if dim in names)
    return {dim: Groups.of(columns) for dim, columns in along.items() if dim not in spared}, spared


def _not_comparable(selection: Selection) -> tuple[str, ...]:
    """Return the axes along which distances are not in one space, where several places of them are selected."""
    return tuple(dim for dim in ("checkpoint", "layer") if len(selection.positions.get(dim, ())) > 1)


def _selected(selection: Selection, sort: tuple[str, ...], limit: int | None, asked: set[str]) -> Answer:
    """Return values that are not reduced."""
    key = sort[0] if len(sort) == 1 and sort[0].removeprefix("-") in selection.cells else None
    prunes = limit is not None and (key is not None or not sort)
    axes = {dim: _columns(selection, dim, asked) for dim in selection.dims}
    attributes = {name: array.attributes for name, array in selection.arrays.items()}
    alone = next(iter(selection.arrays.values())) if len(selection.arrays) == 1 else None
    more: dict[str, Any] = {"attributes": attributes, "sort": sort, "limit": limit}
    if selection.filters or (prunes and sort):
        flat, held = rows(selection, key=key, limit=limit if prunes else None, most=ROWS)
        if not len(flat):
            raise selection.nothing()
        values: dict[str, tuple[tuple[str, ...], Array]] = {name: (("row",), found) for name, found in held.items()}
        reasons = why_missing(selection.catalogue.run, alone, next(iter(selection.cells.values()))) if alone else None
        if reasons is not None and (reasons.reshape(-1)[flat] != "").any():
            values["missing"] = (("row",), reasons.reshape(-1)[flat])
        return Answer(axes, values, rows=flat, **more)
    if not prunes and selection.rows > ROWS:
        raise FeatdynError(
            f"{selection.widest}: {selection.rows:,} rows; select less with --where, use --reduce, or set --limit"
        )
    cells = selection.cells
    if prunes and limit is not None:  # only what the first rows need is read
        needed = dict(zip(selection.dims, _first(cells[selection.widest], limit).shape, strict=True))
        cells = {name: _cut(found, needed) for name, found in cells.items()}
        axes = {dim: {n: values[: needed[dim]] for n, values in columns.items()} for dim, columns in axes.items()}
    found = {name: (held.dims, held.load()) for name, held in cells.items()}
    reasons = why_missing(selection.catalogue.run, alone, next(iter(cells.values()))) if alone else None
    if reasons is not None:
        found["missing"] = (selection.dims, reasons)
    return Answer(axes, found, **more)


def _first(cells: Cells, limit: int) -> Cells:
    """Return cells cut to little more than the first rows, so that only these are read."""
    for axis, dim in enumerate(cells.dims):
        needed = -(-limit // math.prod(cells.shape[axis + 1 :]))
        cells = cells.select(dim, cells.positions[axis][:needed])
        if needed > 1:
            break
    return cells


def _cut(cells: Cells, lengths: dict[str, int]) -> Cells:
    for axis, dim in enumerate(cells.dims):
        cells = cells.select(dim, cells.positions[axis][: lengths[dim]])
    return cells


def _reduced(
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
    some = reductions[0].function not in ("count", "sum", "diff")  # of nothing these are 0; diff reads the ends alone
    if met and not any(met) and some:
        raise selection.nothing()
    widest = max((dims for dims, _ in values.values()), key=len)
    axes = {dim: groups[dim].columns if dim in groups else _columns(selection, dim, asked) for dim in widest}
    attributes = {name: _named(array.attributes, reductions) for name, array in selection.arrays.items()}
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
        wrong = next((function for function in before if function != "mode" and _class_number(selection, name)), None)
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


def _class_number(selection: Selection, name: str) -> bool:
    """Whether a variable holds names of classes that are whole numbers."""
    array = selection.arrays[name]
    return array.name in CLASS_NUMBERS and array.cells.dtype.kind in "iu"


def _places(
    selection: Selection, dim: str, found: Reduced, asked: set[str]
) -> dict[str, tuple[tuple[str, ...], Array]]:
    """Return what stands along an axis at the places of extremes."""
    assert found.places is not None
    there, columns = found.places >= 0, {}
    for name, values in _columns(selection, dim, asked).items():
        at = values[np.maximum(found.places, 0)]
        if not there.all():
            at = np.where(there, at, np.array(np.nan if at.dtype.kind in "biuf" else None))
        columns[name] = (found.cells.dims, at)
    return columns


def _columns(selection: Selection, dim: str, asked: set[str]) -> dict[str, Array]:
    """Return an axis with the coordinates that a reader wants beside it."""
    wanted = {*BESIDE, *asked, *selection.named}
    along = selection.coordinates()
    names = [name for name, of in along.items() if of == dim and name != dim and name in wanted]
    names.sort(key=lambda name: BESIDE.index(name) if name in BESIDE else len(BESIDE))
    columns = {name: selection.selected(name)[1] for name in (dim, *names)}
    number = columns.get("label", columns.get("class"))
    spelled = columns.get("class_name")
    if spelled is not None and number is not None and "class_name" not in {*asked, *selection.named}:
        digits = (spelled.astype(str) == number.astype(str)).all()  # such names say nothing new
        columns = {name: values for name, values in columns.items() if not (digits and name == "class_name")}
    return columns


def _named(attributes: Any, reductions: Sequence[Reduction]) -> dict[str, Any]:
    """Return an array's attributes with what was done to it in its name."""
    said = ", ".join(map(str, reductions))
    name = attributes.get("long_name")
    units = {"units": attributes["units"]} if "units" in attributes and "count" not in said else {}
    return ({"long_name": f"{name} ({said})"} if name else {}) | units
