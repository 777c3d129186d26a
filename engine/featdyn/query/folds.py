"""Reductions that grow piece by piece, so that no more than a cell is held.

NaN is skipped, as a value that was not measured (the cosine to the checkpoint before, at the first one); where nothing
is left, sum and count are 0 and everything else is NaN. Sums of floats are in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featdyn.query.cells import Array

Place = tuple[slice | int, ...]
"""Where a piece goes in the result: a run of places, or one of which the axis is taken away."""


class Fold(Protocol):
    """Something that grows piece by piece."""

    def add(self, region: Place, piece: Array, axes: tuple[int, ...]) -> None:
        """Fold one piece over its axes into a region of the result."""

    def result(self) -> Array:
        """Return the values in the end."""


class _Sum:
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.total = np.zeros(shape, np.float64 if dtype.kind == "f" else np.int64)
        self.count = np.zeros(shape, np.int64)

    def add(self, region: Place, piece: Array, axes: tuple[int, ...]) -> None:
        total, count = _sum(piece, axes)
        self.total[region] += total
        self.count[region] += count

    def result(self) -> Array:
        return self.total


class _Count(_Sum):
    def result(self) -> Array:
        return self.count


class _Mean(_Sum):
    def result(self) -> Array:
        return np.divide(self.total, self.count)


class _Norm(_Sum):
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(shape, np.dtype(np.float64))

    def add(self, region: Place, piece: Array, axes: tuple[int, ...]) -> None:
        super().add(region, piece.astype(np.float64) ** 2, axes)

    def result(self) -> Array:
        return np.where(self.count > 0, np.sqrt(self.total), np.nan)


class _Deviation:
    """Standard deviation of a population (divided by n), merged from pieces as by Chan, Golub and LeVeque."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.count, self.mean, self.squares = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)

    def add(self, region: Place, piece: Array, axes: tuple[int, ...]) -> None:
        total, count = _sum(piece, axes)
        there = np.maximum(count, 1)
        mean = total / there
        squares, _ = _sum((piece - np.expand_dims(mean, axes)) ** 2, axes)
        before = self.count[region]
        both = before + count
        gap = mean - self.mean[region]
        self.squares[region] += squares + gap**2 * before * count / np.maximum(both, 1)
        self.mean[region] += gap * count / np.maximum(both, 1)
        self.count[region] = both

    def result(self) -> Array:
        deviation = np.sqrt(np.divide(self.squares, self.count))
        return np.where(np.isfinite(self.mean), deviation, np.nan)  # undefined among infinities, however they were cut


class _Extreme:
    def __init__(self, pick: np.ufunc, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.pick = pick  # fmin or fmax: of a number and NaN they take the number
        self.kind = np.dtype(np.int8) if dtype.kind == "b" else dtype
        if dtype.kind == "f":
            self.values = np.full(shape, np.nan, self.kind)
        else:
            limits = np.iinfo(self.kind)
            self.values = np.full(shape, limits.max if pick is np.fmin else limits.min, self.kind)

    def add(self, region: Place, piece: Array, axes: tuple[int, ...]) -> None:
        self.values[region] = self.pick(self.values[region], self.pick.reduce(piece, axis=axes))

    def result(self) -> Array:
        return self.values


class Arg:
    """The first place of an extreme along one axis, -1 where there is none, and the extreme."""

    def __init__(self, pick: np.ufunc, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.best = _Extreme(pick, shape, dtype)
        self.places: NDArray[np.intp] = np.full(shape, -1, np.intp)

    def add_at(self, region: Place, piece: Array, axis: int, start: int) -> None:
        """Fold one piece that begins at a place along the axis; pieces come in its order."""
        best = self.best.pick.reduce(piece, axis=axis)
        here = np.expand_dims(best, axis) == piece
        found = np.where(here.any(axis), start + here.argmax(axis), -1)
        before, places = self.best.values[region], self.places[region]
        better = (found >= 0) & ((places < 0) | ((best > before) if self.best.pick is np.fmax else (best < before)))
        self.places[region] = np.where(better, found, places)
        self.best.values[region] = np.where(better, best, before)


FOLDS: dict[str, Callable[[tuple[int, ...], np.dtype[Any]], Fold]] = {
    "mean": _Mean,
    "sum": _Sum,
    "min": lambda shape, dtype: _Extreme(np.fmin, shape, dtype),
    "max": lambda shape, dtype: _Extreme(np.fmax, shape, dtype),
    "std": _Deviation,
    "count": _Count,
    "norm": _Norm,
}


def _sum(values: Array, axes: tuple[int, ...]) -> tuple[Array, Array | int]:
    """Return sum and number of the values that are not NaN."""
    wide = np.float64 if values.dtype.kind == "f" else np.int64
    total = np.asarray(values.sum(axes, dtype=wide))
    if not np.isnan(total).any():  # the usual case, in one pass
        return total, math.prod(values.shape[axis] for axis in axes)
    there = ~np.isnan(values)
    return np.asarray(values.sum(axes, dtype=wide, where=there)), np.asarray(there.sum(axes))


def quantile_of(function: str) -> float | None:
    """Return the share that ``median`` or ``q0.9`` names, None for another function."""
    try:
        q = 0.5 if function == "median" else float(function.removeprefix("q")) if function[:1] == "q" else math.nan
    except ValueError:
        return None
    return q if 0 <= q <= 1 else None


def quantiles(values: Array, axes: tuple[int, ...], q: float) -> Array:
    """Return a quantile over the axes, linear between neighbours (numpy's default), skipping NaN."""
    rows = _rows(values, axes)
    last = np.maximum(rows.shape[-1] - np.isnan(rows).sum(-1, keepdims=True) - 1, 0)
    place = q * last
    low = np.floor(place).astype(np.intp)
    a, b = (np.take_along_axis(rows, i, -1)[..., 0].astype(np.float64) for i in (low, np.minimum(low + 1, last)))
    weight = (place - low)[..., 0]
    return np.where((a == b) | (weight == 0), a, a + (b - a) * weight)  # so that infinities stay


def most_frequent(values: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the value that is most often there over the axes, skipping NaN, and whether others are there as often.

    Of several it is the smallest.
    """
    rows = _rows(values, axes)
    places = np.arange(rows.shape[-1])
    begins = np.concatenate([np.ones_like(rows[..., :1], bool), rows[..., 1:] != rows[..., :-1]], axis=-1)
    so_often = places - np.maximum.accumulate(np.where(begins, places, 0), axis=-1)  # times before, so far
    so_often = np.where(np.isnan(rows), -1, so_often)
    best = so_often.argmax(-1)[..., None]
    most = np.take_along_axis(so_often, best, -1)
    tied = (most >= 0) & ((so_often == most).sum(-1, keepdims=True) > 1)  # each that is so frequent gets there once
    return np.asarray(np.take_along_axis(rows, best, -1)[..., 0], np.float64), np.asarray(tied[..., 0])


def _rows(values: Array, axes: tuple[int, ...]) -> Array:
    """Return a copy, the axes in one row, sorted."""
    rows = np.moveaxis(values, axes, range(-len(axes), 0)) if axes else values[..., None]
    left = rows.shape[: rows.ndim - max(1, len(axes))]
    rows = rows.reshape(*left, -1) if rows.size else np.full((*left, 1), np.nan)  # of an empty axis nothing is there
    rows = np.array(rows, np.result_type(rows, np.float32), order="C")  # each row in one piece
    rows.sort(axis=-1)  # NaN goes last; with AVX-512 faster than a partition at two places
    return rows
