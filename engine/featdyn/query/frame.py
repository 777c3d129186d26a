"""From a question to an answer: select, reduce, and one row per value that is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import wraps
from inspect import signature
from typing import ParamSpec

import pandas as pd

from featdyn.errors import FeatdynError
from featdyn.query.answer import Answer
from featdyn.query.cells import Array
from featdyn.query.groups import Groups
from featdyn.query.like import DISTANCE, distances
from featdyn.query.reduce import Reduction
from featdyn.query.selection import Selection, select
from featdyn.query.summaries import class_number, summaries
from featdyn.query.values import values
from featdyn.store import Run

Asked = ParamSpec("Asked")


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
    *variables: str | Sequence[str],
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
        Dotted names, one by one or in a list: ``cube.activation_norm``, ``layers.s1b1.activation``, ``outputs.loss``,
        ``train_loss``, or ``results.consistency.accuracy`` for the newest result of an analysis; patterns such as
        ``cube.*_norm``, and regular expressions behind ``~``. ``outputs.prediction``, ``outputs.confidence`` and
        ``outputs.correct`` follow from the logits of classes; where a label is no class, ``correct`` is missing.
        Several variables become columns of one table: the one with most axes has those of all others.
    where
        Conditions, all of which must hold. Text takes patterns and regular expressions: ``layer=s3*``,
        ``layer~^s[23]``, ``split=train,test``, ``corruption!=``. Numbers take values, lists and ranges that include
        both ends: ``epoch=1,5``, ``step=100..500``, ``checkpoint=last``, ``train_loss<0.1``; of an axis ``-1`` is the
        last. An axis without coordinate is selected by its index, and one of names by index too where no name is spelt
        so: ``sample=17``, ``layer=-1``. In a result ``checkpoint`` is ``t``. A condition may be on a variable too, one
        that is asked for or another by its dotted name: ``loss>1``, ``outputs.correct=false``.
    by
        Coordinates whose groups are left of the axes that are reduced, such as ``label``, ``class_name`` or ``epoch``,
        or axes that stay. Without ``reduce`` all other axes are reduced to the mean, of class numbers to the mode; a
        ``reduce`` that names axes takes those alone away. The ``long_name`` in the answer says which.
    reduce
        Reductions, one after the other: ``mean:sample``, ``std:sample,layer``, or ``max`` over all axes (but those in
        ``by``). There are mean, sum, min, max, std (divided by n), count, norm (Euclidean), mode (the most frequent;
        of several the smallest, and a column ``NAME_tied`` marks it), median and quantiles (``q0.9``). Class numbers
        have only mode and count. NaN is skipped; where nothing is left, sum and count are 0 and everything else is NaN;
        where nothing is left anywhere by conditions on values, that is an error but for sum, count and diff.
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
    names = [name for given in variables for name in _several(given)]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise FeatdynError(f"name variables in text, such as 'outputs.loss', got {type(wrong[0]).__name__}")
    if not names:
        raise FeatdynError("name a variable, such as outputs.loss; featdyn query STORE lists what there is")
    reductions = [Reduction.parse(text) for text in _several(reduce)]
    selection = select(run, names, _several(where))
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
            answer = values(selection, keys, None, asked)
            return replace(answer, within=within, most=top, limit=None if top is not None else limit)
        return values(selection, keys, limit, asked)
    numbers = all(class_number(selection, name) for name in selection.cells)
    reductions = reductions or [Reduction("mode" if numbers else "mean")]
    return summaries(selection, reductions, groups, spared, keys, limit, asked)


query = as_table(ask)
"""Answer a question as a table, a ``pandas.DataFrame``: ``ask(...).frame()``, with the parameters of :func:`ask`."""


def _several(given: str | Sequence[str]) -> tuple[str, ...]:
    one = isinstance(given, str) or not isinstance(given, Iterable)
    return (given,) if one else tuple(given)  # type: ignore[return-value]


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
