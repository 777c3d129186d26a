"""Figures of results: lines with their stored intervals, and maps, over checkpoints, layers or what else there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from featdyn.report.figure import Axis, Figure, Lines, Map, Series, numbers


def checkpoint_axis(checkpoints: ArrayLike, steps: ArrayLike, title: str = "checkpoint / step") -> Axis:
    """Return an axis over checkpoints by position, since steps need not be even."""
    found = (tuple(int(v) for v in np.asarray(values).tolist()) for values in (checkpoints, steps))
    return Axis(title, "checkpoint", checkpoints=next(found), steps=next(found))


def time_axis(data: xr.Dataset, end: str = "", title: str = "checkpoint / step") -> Axis:
    """Return the axis over ``t``, or over ``t1`` or ``t2`` by ``end``, of a result."""
    return checkpoint_axis(data[f"t{end}"].values, data[f"step{end}"].values, title)


def line(name: str, y: ArrayLike, order: int | None = None, **more: Any) -> Series:
    """Return a line in the colour of a kind, grey without ``order``; more is as of :class:`Series`."""
    return Series(name, numbers(y), order=order, **more)


def lines(names: Iterable[Any], values: Iterable[ArrayLike], *, deep: bool = False, **more: Any) -> list[Series]:
    """Return a line for each name and row of values, coloured by kind or, where ``deep``, by depth."""
    rows = [(str(name), numbers(y)) for name, y in zip(names, values, strict=False)]
    depths = _depths(len(rows))
    return [Series(name, y, order=i, depth=depths[i] if deep else None, **more) for i, (name, y) in enumerate(rows)]


def _depths(count: int) -> list[float]:
    """Return the depths of so many lines, from 0 for the first to 1 for the last."""
    return [i / max(1, count - 1) for i in range(count)]


def curves(
    data: xr.Dataset,
    name: str,
    over: str,
    of: str,
    *,
    deep: bool = True,
    words: Callable[[str], str] = str,
    **more: Any,
) -> list[Series]:
    """Return a line over ``over`` for each label of the dimension ``of``, with the intervals that are stored."""
    rows = data[name].transpose(of, over).values
    ends: dict[str, Any] = {
        end: data[f"{name}_{end}"].transpose(of, over).values for end in ("low", "high") if f"{name}_{end}" in data
    }
    depths = _depths(len(rows))
    return [
        Series(
            words(str(label)),
            numbers(rows[i]),
            order=i,
            depth=depths[i] if deep else None,
            low=numbers(ends["low"][i]) if "low" in ends else None,
            high=numbers(ends["high"][i]) if "high" in ends else None,
            **more,
        )
        for i, label in enumerate(data[of].values.tolist())
    ]


def by_layer(figure: Figure, layers: Sequence[str]) -> Figure:
    """Return a figure whose lines of some of these layers, or of cuts behind them, have the colours of all of them."""
    places = dict(zip(layers, _depths(len(layers)), strict=True))

    def depth(one: Series) -> float | None:
        return places.get(one.name, places.get(one.name.rpartition(", ")[0]))  # as in "s1b3, shallow half"

    if isinstance(figure, Map) or any(one.depth is not None and depth(one) is None for one in figure.series):
        return figure
    each = (one if one.depth is None else replace(one, depth=depth(one)) for one in figure.series)
    return replace(figure, series=tuple(each))


def curve(data: xr.Dataset, name: str, over: str, label: str, order: int | None = None, **more: Any) -> Series:
    """Return one line over ``over``, with its stored interval."""
    ends: dict[str, Any] = {
        end: numbers(data[f"{name}_{end}"].transpose(over)) for end in ("low", "high") if f"{name}_{end}" in data
    }
    return Series(label, numbers(data[name].transpose(over)), order=order, **ends, **more)


def chart(series: Sequence[Series], y: str | Axis, x: Axis, **more: Any) -> Lines:
    """Return a figure of lines; ``y`` is its axis, or the title of a linear one."""
    return Lines(x, Axis(y) if isinstance(y, str) else y, tuple(series), **more)


def time_map(data: xr.Dataset, name: str, rows: str = "t1", columns: str = "t2") -> Map:
    """Return a map of a variable over two checkpoints, with the intervals that are stored."""
    ends: dict[str, Any] = {
        e: data[f"{name}_{e}"].transpose(rows, columns).values for e in ("low", "high") if f"{name}_{e}" in data
    }
    axes = {dim: time_axis(data, dim.removeprefix("t"), f"{dim}: checkpoint / step") for dim in (rows, columns)}
    return Map(axes[columns], axes[rows], data[name].transpose(rows, columns).values, **ends)


def layer_map(z: NDArray[Any], layers: Iterable[Any], columns: Axis | None = None, **more: Any) -> Map:
    """Return a map of layers by checkpoints, or by layers where there is no axis of ``columns``."""
    names = [str(layer) for layer in layers]
    category = Axis(scale="category")
    return Map(columns or category, category, z, (names, () if columns else names), **more)
