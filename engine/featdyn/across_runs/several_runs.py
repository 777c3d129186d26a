"""Small tables out of many stores, each read by whoever has the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from featdyn.compute import Workers, same
from featdyn.store import Run, locate
from featdyn.store.place import Place

Asked = TypeVar("Asked")
Value = TypeVar("Value")


def each(
    function: Callable[[Asked, Run], Value], asked: Asked, runs: Sequence[Run | str | Path], workers: Workers
) -> list[Value]:
    """Return ``function(asked, run)`` of every run, in their order; a store is a task, and paths are opened by it."""
    with workers.stage(asked, partial(same, asked)) as stage:
        # Their places, as absolute as a run's own: a worker has another working directory.
        given = [run if isinstance(run, Run) else locate(run) for run in runs]
        return list(stage.map(partial(_open, function), given))


def _open(function: Callable[[Asked, Run], Value], asked: Asked, store: Run | Place) -> Value:
    return function(asked, store if isinstance(store, Run) else Run(store))
