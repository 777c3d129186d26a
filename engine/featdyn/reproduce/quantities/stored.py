"""A variable of a stored result, or a coordinate of checkpoints, at given places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from featdyn.errors import FeatdynError
from featdyn.nearest import meant
from featdyn.reproduce.measured import Measured, variance_of
from featdyn.reproduce.quantities.kind import NEVER, Kind, Seen
from featdyn.store import Run

Label = str | int | float


class Stored(Kind):
    """``stored``: a variable of a result, or a coordinate of checkpoints, at given places."""

    path: str = Field(description="results.ANALYSIS.VARIABLE as query has it, or a coordinate such as test_accuracy")
    minus: str = Field("", description="another variable of the same result, at the same places, taken from it")
    where: dict[str, Label | tuple[Label, ...]] = Field(
        default_factory=dict,
        description="coordinate to its value; '@time' is that checkpoint; a list becomes an axis, all other axes must "
        "have one place. What varies over a run's checkpoints is at the last one where nothing is said",
    )
    before: bool = Field(
        False, description="a time that the axis has no place for, as not every checkpoint was sampled: the one before"
    )
    less: dict[str, Label] = Field(
        default_factory=dict,
        description="coordinate to another place, as in 'where': what is there is taken from it, such as another time",
    )
    log10: bool = Field(False, description="the decimal logarithm of it, before a difference is taken")

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        listed = {name: given for name, given in self.where.items() if isinstance(given, tuple)}
        return {name: tuple(str(label).removeprefix("@") for label in given) for name, given in listed.items()}

    @property
    def results(self) -> tuple[str, ...]:  # noqa: D102
        parts = self.path.split(".")
        return (parts[1],) if parts[0] == "results" else ()

    @property
    def asked_times(self) -> Iterator[str]:  # noqa: D102
        for given in (*self.where.values(), *self.less.values()):
            for label in given if isinstance(given, tuple) else (given,):
                if isinstance(label, str) and label.startswith("@"):
                    yield label[1:]

    def measured(self, seen: Seen) -> Measured:  # noqa: D102
        where = {
            name: [_place(seen, label) for label in (given if isinstance(given, tuple) else (given,))]
            for name, given in self.where.items()
        }
        axes = self.axes
        never = [time for time in self.asked_times if seen.times.at(time) is None]
        data, name = _dataset(seen.run, self.path)
        value, variance = _picked(data, name, where, axes, self)
        if self.minus:
            other, more = _picked(data, self.minus.rpartition(".")[2], where, axes, self)
            value, variance = value - other, variance + more  # as of independent ones
        if self.less:
            there = where | {name: [_place(seen, label)] for name, label in self.less.items()}
            other, more = _picked(data, name, there, axes, self)
            value, variance = value - other, variance + more  # as of independent ones
        return Measured.of(axes, value, variance, f"{NEVER} {', '.join(never)}" if never else "")


def _place(seen: Seen, label: Any) -> Any:
    """Return a label as the coordinate has it; None for a time that the run does not reach."""
    return seen.times.at(label[1:]) if isinstance(label, str) and label.startswith("@") else label


def _dataset(run: Run, path: str) -> tuple[xr.Dataset, str]:
    parts = path.split(".")
    if parts[0] == "results" and len(parts) == 3:
        return run.result(parts[1]), parts[2]
    if path not in run.paths("checkpoint"):
        raise FeatdynError(
            f"{run.path}: no coordinate {path} of checkpoints; {meant(path, run.paths('checkpoint'))}"
            f"there are {', '.join(run.paths('checkpoint'))}, and results.ANALYSIS.VARIABLE"
        )
    values = xr.DataArray(run.values(path), dims="checkpoint", coords={"checkpoint": np.arange(run.checkpoints)})
    return values.to_dataset(name=path), path


def _picked(
    data: xr.Dataset, name: str, where: Mapping[str, list[Any]], axes: Mapping[str, Any], options: Stored
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return values and variances of the listed places, over the axes in their order."""
    if name not in data:
        raise FeatdynError(f"no variable {name}; {meant(name, map(str, data))}there are {', '.join(map(str, data))}")
    found = [_at(data, each, where, axes, options) for each in (name, f"{name}_low", f"{name}_high") if each in data]
    if options.log10:
        found = [np.log10(np.where(each > 0, each, np.nan)) for each in found]
    return found[0], variance_of(found[1], found[2]) if len(found) == 3 else np.full_like(found[0], np.nan)


def _at(
    data: xr.Dataset, name: str, where: Mapping[str, list[Any]], axes: Mapping[str, Any], options: Stored
) -> NDArray[np.float64]:
    array = data[name]
    asked = {dim: labels for dim, labels in where.items() if dim in array.dims}
    array = array.isel({dim: -1 for dim in array.dims if dim in ("checkpoint", "t") and dim not in asked})
    for dim, labels in asked.items():
        array = _along(array, dim, labels, keep=dim in axes, before=options.before)
    for left in [left for left in array.dims if left not in axes]:
        if array.sizes[left] > 1:
            raise FeatdynError(f"{name} has {array.sizes[left]} places along {left}: say which in 'where'")
        array = array.isel({left: 0})
    for axis in axes:
        if axis not in array.dims:
            raise FeatdynError(f"{name} has no axis {axis}; it has {', '.join(map(str, data[name].dims)) or 'none'}")
    return np.asarray(array.transpose(*axes).values, np.float64)


def _along(array: xr.DataArray, dim: str, labels: list[Any], *, keep: bool, before: bool) -> xr.DataArray:
    """Return places along a dimension; NaN where there is no such time, an error where there is no such label."""
    known = array[dim].values.tolist() if dim in array.coords else list(range(array.sizes[dim]))
    parts = []
    for label in labels:
        if before and dim.startswith("t") and label is not None and label not in known:
            label = max((place for place in known if place < label), default=known[0])
        if label is None or (dim.startswith("t") and label not in known):
            parts.append(xr.full_like(array.isel({dim: [0]}), np.nan, dtype=np.float64))
        elif label not in known:
            raise FeatdynError(f"no {dim} {label!r}; {meant(str(label), map(str, known))}"
                               f"there are {', '.join(map(str, known))}")  # fmt: skip
        else:
            parts.append(array.isel({dim: [known.index(label)]}).astype(np.float64))
    of_dim = [name for name, coord in array.coords.items() if dim in coord.dims]
    joined = xr.concat([part.drop_vars(of_dim) for part in parts], dim)
    return joined if keep else joined.isel({dim: 0})
