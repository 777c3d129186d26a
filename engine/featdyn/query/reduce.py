"""Reductions over axes, cell by cell: ``mean:sample``, ``std:sample,layer``, ``q0.9:sample``.

NaN is skipped, as a value that was not measured (the cosine to the checkpoint before, at the first one); where nothing
is left, sum and count are 0 and everything else is NaN. Sums of floats are in float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from featdyn.errors import FeatdynError
from featdyn.query.cells import Array, Cells, Region

HELD = 2**28  # numbers held at once, 2 GiB: what a reduction leaves, or what a quantile sorts
_REDUCTION = re.compile(r"\s*([a-z]+|q[0-9.]+)\s*(?::(.*))?")


@dataclass(frozen=True)
class Reduction:
    """One reduction: a function, and the axes that it takes away (all when empty)."""

    function: str
    dims: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Reduction:
        """Return what ``function:axis,axis`` says."""
        parsed = _REDUCTION.fullmatch(text)
        function, dims = parsed.groups() if parsed else (text, None)
        if function not in (*_FOLDS, "median") and _quantile(function) is None:
            known = ", ".join([*_FOLDS, "median"])
            raise FeatdynError(f"--reduce {text!r}: there are {known} and quantiles such as q0.9, as in mean:sample")
        names = tuple(dict.fromkeys(part.strip() for part in dims.split(","))) if dims is not None else ()
        return cls(function, names)

    def axes(self, dims: tuple[str, ...]) -> tuple[int, ...]:
        """Return the positions of the axes among these."""
        for dim in self.dims:
            if dim not in dims:
                left = f"the axes here are {', '.join(dims)}" if dims else "no axis is left"
                raise FeatdynError(f"--reduce {self.function}:{','.join(self.dims)}: no axis {dim!r}; {left}")
        return tuple(map(dims.index, self.dims)) or tuple(range(len(dims)))


def reduce(cells: Cells, reduction: Reduction) -> Cells:
    """Return what a reduction leaves, in memory."""
    axes = reduction.axes(cells.dims)
    kept = [axis for axis in range(len(cells.dims)) if axis not in axes]
    if cells.dtype.kind not in "biuf":
        raise FeatdynError(f"--reduce {reduction.function}: these values are text; reduce numbers")
    shape = tuple(cells.shape[axis] for axis in kept)
    _affordable(math.prod(shape), "leaves", reduction)
    dims = tuple(cells.dims[axis] for axis in kept)
    quantile = 0.5 if reduction.function == "median" else _quantile(reduction.function)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities, their sums, and means of nothing
        if quantile is not None:
            values = np.empty(shape)
            for region, part in cells.groups(dims):
                _affordable(math.prod(part.shape), "sorts", reduction)
                values[region] = _quantiles(part.load(), axes, quantile)
            return Cells.held(values, dims)
        fold = _FOLDS[reduction.function](shape, cells.dtype)
        for region, piece in cells.pieces():
            numbers = piece.astype(np.int8) if piece.dtype.kind == "b" else piece
            fold.add(tuple(region[axis] for axis in kept), numbers, axes)
        return Cells.held(np.asarray(fold.result()), dims)


class _Fold(Protocol):
    """Something that grows piece by piece."""

    def add(self, region: Region, piece: Array, axes: tuple[int, ...]) -> None:
        """Fold one piece over its axes into a region of the result."""

    def result(self) -> Array:
        """Return the values in the end."""


class _Sum:
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.total = np.zeros(shape, np.float64 if dtype.kind == "f" else np.int64)
        self.count = np.zeros(shape, np.int64)

    def add(self, region: Region, piece: Array, axes: tuple[int, ...]) -> None:
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


class _Deviation:
    """Standard deviation of a population (divided by n), merged from pieces as by Chan, Golub and LeVeque."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.count, self.mean, self.squares = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)

    def add(self, region: Region, piece: Array, axes: tuple[int, ...]) -> None:
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

    def add(self, region: Region, piece: Array, axes: tuple[int, ...]) -> None:
        self.values[region] = self.pick(self.values[region], self.pick.reduce(piece, axis=axes))

    def result(self) -> Array:
        return self.values


_FOLDS: dict[str, Callable[[tuple[int, ...], np.dtype[Any]], _Fold]] = {
    "mean": _Mean,
    "sum": _Sum,
    "min": lambda shape, dtype: _Extreme(np.fmin, shape, dtype),
    "max": lambda shape, dtype: _Extreme(np.fmax, shape, dtype),
    "std": _Deviation,
    "count": _Count,
}


def _sum(values: Array, axes: tuple[int, ...]) -> tuple[Array, Array | int]:
    """Return sum and number of the values that are not NaN."""
    wide = np.float64 if values.dtype.kind == "f" else np.int64
    total = np.asarray(values.sum(axes, dtype=wide))
    if not np.isnan(total).any():  # the usual case, in one pass
        return total, math.prod(values.shape[axis] for axis in axes)
    there = ~np.isnan(values)
    return np.asarray(values.sum(axes, dtype=wide, where=there)), np.asarray(there.sum(axes))


def _quantile(function: str) -> float | None:
    try:
        q = float(function.removeprefix("q")) if function.startswith("q") else math.nan
    except ValueError:
        return None
    return q if 0 <= q <= 1 else None


def _quantiles(values: Array, axes: tuple[int, ...], q: float) -> Array:
    """Return a quantile over the axes, linear between neighbours (numpy's default), skipping NaN."""
    rows = np.moveaxis(values, axes, range(-len(axes), 0)) if axes else values[..., None]
    rows = rows.reshape(*rows.shape[: rows.ndim - max(1, len(axes))], -1)
    rows = np.array(rows, np.result_type(rows, np.float32), order="C")  # a copy, each row in one piece
    rows.sort(axis=-1)  # NaN goes last; with AVX-512 faster than a partition at two places
    last = np.maximum(rows.shape[-1] - np.isnan(rows).sum(-1, keepdims=True) - 1, 0)
    place = q * last
    low = np.floor(place).astype(np.intp)
    a, b = (np.take_along_axis(rows, i, -1)[..., 0].astype(np.float64) for i in (low, np.minimum(low + 1, last)))
    weight = (place - low)[..., 0]
    return np.where((a == b) | (weight == 0), a, a + (b - a) * weight)  # so that infinities stay


def _affordable(count: int, verb: str, reduction: Reduction) -> None:
    if count > HELD:
        raise FeatdynError(
            f"--reduce {reduction.function} {verb} {count:,} numbers at once: select less with --where, or reduce "
            "other axes first"
        )
