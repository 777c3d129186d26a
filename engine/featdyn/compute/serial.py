"""No workers: every task runs here, one after the other, and the kernels use all cores."""

# ruff: noqa: D102  as Workers says

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from featdyn.compute.plan import Limits, available, resident
from featdyn.compute.tree import fold
from featdyn.compute.workers import Combine, Item, Result, Stage, State, Task, Value, Workers


class Serial(Workers):
    """The calling process; ``limit`` are the bytes that it may take in all, what is free when None."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit

    def limits(self) -> Limits:
        if self.limit is not None:
            return Limits(self.limit, resident(), 1, True)
        return Limits(available(), 0, 1, True)

    @contextmanager
    def stage(self, state: State, rebuild: Callable[[], State]) -> Iterator[Stage]:
        yield _Here(state)


class _Here(Stage):
    def __init__(self, state: Any) -> None:
        self._state = state

    def map(self, function: Task[Item, Value], items: Iterable[Item]) -> Iterator[Value]:
        for item in items:
            yield function(self._state, item)

    def fold(
        self,
        function: Task[Item, Value],
        groups: Sequence[Sequence[Item]],
        combine: Combine[Value],
        finish: Task[Value, Result],
    ) -> Iterator[Result]:
        for group in groups:
            yield finish(self._state, fold(combine, (function(self._state, item) for item in group)))


SERIAL = Serial()
