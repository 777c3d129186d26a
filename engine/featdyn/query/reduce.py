"""Reductions over axes, cell by cell: ``mean:sample``, ``std:sample,layer``, ``q0.9:sample``, ``argmax:checkpoint``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.nearest import meant
from featdyn.query.cells import Array, Cells, Region
from featdyn.query.folds import FOLDS, Arg, most_frequent, quantile_of, quantiles
from featdyn.query.groups import Groups, split

HELD = 2**28  # numbers held at once, 2 GiB: what a reduction leaves, or what a quantile sorts
PLACES = {"argmax": np.fmax, "argmin": np.fmin}
FUNCTIONS = (*FOLDS, "median", "mode", *PLACES, "diff")
Keep = Callable[[tuple[str, ...], Region, Array], Array]
"""Gives a piece of axes, at a region, with NaN in place of what takes no part."""
_REDUCTION = re.compile(r"\s*([a-z]+|q[0-9.]+)\s*(?::(.*))?")


@dataclass(frozen=True)
class Reduction:
    """One reduction: a function, and the axes that it takes away (all when empty)."""

    function: str
    dims: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Reduction:
        """Return what ``function:axis,axis`` says."""
        parsed = _REDUCTION.fullmatch(text)
        function, dims = parsed.groups() if parsed else (text, None)
        if function not in FUNCTIONS and quantile_of(function) is None:
            raise FeatdynError(
                f"--reduce {text!r}: {meant(function, FUNCTIONS)}there are {', '.join(FUNCTIONS)} and quantiles such "
                "as q0.9, as in mean:sample"
            )
        names = tuple(dict.fromkeys(part.strip() for part in dims.split(","))) if dims is not None else ()
        if function in (*PLACES, "diff") and len(names) != 1:
            raise FeatdynError(f"--reduce {text!r}: {function} goes along one axis, as in {function}:checkpoint")
        return cls(function, names)

    def __str__(self) -> str:
        return f"{self.function}:{','.join(self.dims)}" if self.dims else self.function

    def axes(self, dims: tuple[str, ...], spared: frozenset[str] = frozenset()) -> tuple[int, ...]:
        """Return the positions of the axes among these; of all, those that are spared stay."""
        for dim in self.dims:
            if dim not in dims:
                left = f"the axes here are {', '.join(dims)}" if dims else "no axis is left"
                raise FeatdynError(f"--reduce {self}: no axis {dim!r}; {left}")
        return tuple(map(dims.index, self.dims)) or tuple(a for a, dim in enumerate(dims) if dim not in spared)


@dataclass(frozen=True)
class Reduced:
    """What a reduction leaves, in memory."""

    cells: Cells
    places: NDArray[np.intp] | None = field(default=None)
    """Of argmax and argmin: where along the axis that was selected; -1 where there is no value."""
    tied: NDArray[np.bool_] | None = field(default=None)
    """Of mode: whether other values are as frequent."""


def reduce(
    cells: Cells,
    reduction: Reduction,
    *,
    spared: frozenset[str] = frozenset(),
    groups: Mapping[str, Groups] | None = None,
    keep: Keep | None = None,
) -> Reduced:
    """Return what a reduction leaves of selected cells.

    Parameters
    ----------
    spared
        Axes that a reduction over all leaves.
    groups
        Axes of which groups are left: those that the reduction takes away are replaced by their groups.
    keep
        What takes part; all by default.

    Raises
    ------
    FeatdynError
        An axis that is not there, text, or more numbers than are held at once.
    """
    axes = reduction.axes(cells.dims, spared)
    if cells.dtype.kind not in "biuf":
        raise FeatdynError(f"--reduce {reduction.function}: these values are text; reduce numbers")
    grouped = {axis: (groups or {})[cells.dims[axis]] for axis in axes if cells.dims[axis] in (groups or {})}
    kept = [axis for axis in range(len(cells.dims)) if axis not in axes or axis in grouped]
    shape = tuple(len(grouped[axis]) if axis in grouped else cells.shape[axis] for axis in kept)
    _affordable(math.prod(shape), "leaves", reduction)
    dims = tuple(cells.dims[axis] for axis in kept)
    if grouped and reduction.function in (*PLACES, "diff"):
        raise FeatdynError(f"--reduce {reduction} takes no groups of {reduction.dims[0]}: leave it out of --by")
    if reduction.function == "diff":
        return Reduced(Cells.held(_difference(cells, reduction.dims[0], keep), dims))
    with np.errstate(invalid="ignore", over="ignore"):  # infinities, their sums, and means of nothing
        if reduction.function in PLACES:
            return _place(cells, reduction, axes[0], kept, shape, keep)
        q = quantile_of(reduction.function)
        if q is not None:
            (values,) = _sorted(cells, reduction, axes, grouped, kept, shape, keep, partial(_quantiles, q=q), [float])
            return Reduced(Cells.held(values, dims))
        if reduction.function == "mode":
            values, tied = _sorted(cells, reduction, axes, grouped, kept, shape, keep, most_frequent, [float, bool])
            whole = cells.dtype.kind in "iu" and not np.isnan(values).any()
            return Reduced(Cells.held(values.astype(cells.dtype) if whole else values, dims), tied=tied)
        fold = FOLDS[reduction.function](shape, np.dtype(np.float64) if keep else cells.dtype)
        for region, numbers in _pieces(cells, keep):
            for place, part in split(region, numbers, grouped):
                fold.add(tuple(place[axis] for axis in kept), part, axes)
        return Reduced(Cells.held(np.asarray(fold.result()), dims))


def _pieces(cells: Cells, keep: Keep | None) -> Iterator[tuple[Region, Array]]:
    """Yield cells as numbers, NaN in place of what takes no part."""
    for region, piece in cells.pieces():
        numbers = piece.astype(np.int8) if piece.dtype.kind == "b" else piece
        yield region, keep(cells.dims, region, numbers) if keep else numbers


def _sorted(
    cells: Cells,
    reduction: Reduction,
    axes: tuple[int, ...],
    grouped: Mapping[int, Groups],
    kept: list[int],
    shape: tuple[int, ...],
    keep: Keep | None,
    of_rows: Callable[[Array, tuple[int, ...]], tuple[Array, ...]],
    kinds: Sequence[type],
) -> tuple[Array, ...]:
    """Return what needs all values of a row at once: quantiles, and what is most frequent."""
    found: tuple[Array, ...] = tuple(np.empty(shape, kind) for kind in kinds)
    whole = tuple(axis for axis in range(len(cells.dims)) if axis not in axes)
    for region, cell in cells.groups(tuple(cells.dims[axis] for axis in whole)):
        _affordable(math.prod(cell.shape), "sorts", reduction)
        everywhere = [slice(0, n) for n in cells.shape]
        for axis, run in zip(whole, region, strict=True):
            everywhere[axis] = run
        loaded = cell.load()
        loaded = keep(cells.dims, tuple(everywhere), loaded) if keep else loaded
        for place, rows in split(tuple(everywhere), loaded, grouped):
            for values, part in zip(found, of_rows(rows, axes), strict=True):
                values[tuple(place[axis] for axis in kept)] = part
    return found


def _quantiles(values: Array, axes: tuple[int, ...], q: float) -> tuple[Array]:
    return (quantiles(values, axes, q),)


def _place(
    cells: Cells, reduction: Reduction, axis: int, kept: list[int], shape: tuple[int, ...], keep: Keep | None
) -> Reduced:
    fold = Arg(PLACES[reduction.function], shape, np.dtype(np.float64) if keep else cells.dtype)
    for region, numbers in _pieces(cells, keep):
        fold.add_at(tuple(region[a] for a in kept), numbers, axis, region[axis].start)
    return Reduced(Cells.held(fold.best.values, tuple(cells.dims[a] for a in kept)), fold.places)


def _difference(cells: Cells, dim: str, keep: Keep | None) -> Array:
    """Return the values at the last selected place of an axis, less those at the first; no others are read."""
    axis = cells.dims.index(dim)
    positions, ends = cells.positions[axis], []
    if len(positions) < 2:
        some = "one" if len(positions) else "no"
        raise FeatdynError(f"--reduce diff:{dim} is last minus first, and {some} {dim} is selected")
    for at in (0, len(positions) - 1):
        one = cells.select(dim, positions[at : at + 1])
        region = tuple(slice(at, at + 1) if a == axis else slice(0, n) for a, n in enumerate(cells.shape))
        loaded = one.load()
        loaded = keep(cells.dims, region, loaded) if keep else loaded
        ends.append(loaded.squeeze(axis).astype(np.result_type(loaded, np.float32)))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(ends[1] - ends[0])


def _affordable(count: int, verb: str, reduction: Reduction) -> None:
    if count > HELD:
        raise FeatdynError(
            f"--reduce {reduction.function} {verb} {count:,} numbers at once: select less with --where, or reduce "
            "other axes first"
        )
