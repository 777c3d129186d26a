"""A grid of runs from one recipe: a store for each point, each continued where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from featdyn.data import Dataset
from featdyn.data import load as load_data
from featdyn.data.options import DataOptions
from featdyn.errors import FeatdynError, RecipeError
from featdyn.store import Run, below, exists, locate
from featdyn.training.recipe import Recipe, load
from featdyn.training.stage import Events, check, finished, same_recipe, train


@dataclass(frozen=True)
class Point:
    """One point of a grid."""

    values: dict[str, str]
    """Swept field to value, as given; ``seed`` among them where there are several seeds."""
    recipe: Recipe
    store: str | Path

    @property
    def name(self) -> str:
        """What its store is called."""
        return locate(self.store).name


def points(
    source: str, folder: str | Path, sweeps: Sequence[str], changes: Sequence[str] = (), seeds: int | None = None
) -> list[Point]:
    """Return the points of a grid.

    Parameters
    ----------
    source, changes
        As for :func:`featdyn.training.load`.
    folder
        Where the stores lie; each is named after its point, as ``labels.noise=0.5,seed=1.zarr``.
    sweeps
        ``field=value,value,...``; several multiply.
    seeds
        As many runs of each, with seeds from 0: of training and of label noise, not of the probes, so that runs stay
        comparable.

    Raises
    ------
    RecipeError
        A field or value that a recipe does not take, a value given twice, or a folder that is a store itself.
    """
    if exists(folder):
        raise RecipeError(f"{folder}: is a store; give a folder for the stores of the grid")
    axes = [_axis(sweep) for sweep in sweeps]
    if seeds is not None:
        axes.append([("seed", str(seed)) for seed in range(seeds)])
    found: dict[str, Point] = {}
    for corner in product(*axes):
        values = dict(corner)
        if len(values) < len(corner):
            raise RecipeError("--sweep: a field is given twice; write field=value,value")
        own = [f"{field}={value}" for field, value in corner if field != "seed"]
        seeded = [f"{field}.seed={values['seed']}" for field in ("training", "labels") if "seed" in values]
        name = re.sub(r"[^\w.,=+\-\[\]]+", "_", ",".join(f"{field}={value}" for field, value in corner))
        if name in found:
            raise RecipeError(f"--sweep: {name} is there twice")
        found[name] = Point(values, load(source, [*changes, *own, *seeded]), below(folder, f"{name}.zarr"))
    return list(found.values())


class Sweep:
    """The runs of a grid, one after another.

    Everything that can be known before training is checked first, for all points: data, networks, layers, and that no
    store holds another recipe. What is wrong with the first point that cannot run is raised; nothing has been started
    then.
    """

    def __init__(self, grid: Iterable[Point]) -> None:
        self.points = list(grid)
        self._datasets: dict[DataOptions, Dataset] = {}
        checked = set()
        for point in self.points:
            try:
                same_recipe(point.store, point.recipe)
                apart = tuple(item for item in point.values.items() if item[0] != "seed")
                if apart not in checked:  # what differs by its seed alone does not fit any better or worse
                    check(point.recipe, self._data(point))
                checked.add(apart)
            except FeatdynError as error:
                raise type(error)(f"{point.name}: {error}") from error

    def run(self, point: Point, events: Events | None = None) -> Run:
        """Train one point, or go on where it stands; return its run at once if it is finished."""
        if exists(point.store):
            run = Run(point.store)
            if finished(run):
                return run
        return train(point.recipe, point.store, events, dataset=self._data(point))

    def _data(self, point: Point) -> Dataset:
        options = point.recipe.data
        if options not in self._datasets:  # most grids share one
            self._datasets[options] = load_data(**dict(options))
        return self._datasets[options]


def _axis(sweep: str) -> list[tuple[str, str]]:
    field, equals, text = sweep.partition("=")
    values = _split(text)
    if not equals or not field or not all(values):
        raise RecipeError(f"--sweep {sweep}: write field=value,value, such as labels.noise=0,0.5,1")
    return [(field.strip(), value) for value in values]


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
