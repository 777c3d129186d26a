"""Small tables out of many stores, each read by whoever has the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from featdyn.compute import Workers, same
from featdyn.store import Run

Asked = TypeVar("Asked")
Value = TypeVar("Value")


def each(
    function: Callable[[Asked, Run], Value], asked: Asked, runs: Sequence[Run | str | Path], workers: Workers
) -> list[Value]:
    """Return ``function(asked, run)`` of every run, in their order; a store is a task, and paths are opened by it."""
    with workers.stage(asked, partial(same, asked)) as stage:
        return list(stage.map(partial(_open, function), runs))


def _open(function: Callable[[Asked, Run], Value], asked: Asked, store: Run | str | Path) -> Value:
    return function(asked, store if isinstance(store, Run) else Run(store))
