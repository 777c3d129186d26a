"""What an analysis sees of the workers that do its work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

from featdyn.compute.plan import Limits, Plan

State = TypeVar("State")
Item = TypeVar("Item")
Value = TypeVar("Value")
Result = TypeVar("Result")
Task: TypeAlias = Callable[[Any, Item], Value]  # of a stage's state and an item
Combine: TypeAlias = Callable[[Value, Value], Value]


class Stage(ABC):
    """Workers that hold what a kind of task needs.

    Functions are module-level, or partials of such, and depend on their arguments alone: a task whose worker is lost
    runs again on another one.
    """

    @abstractmethod
    def map(self, function: Task[Item, Value], items: Iterable[Item]) -> Iterator[Value]:
        """Yield ``function(state, item)`` in the order of the items; a few are ahead of what was taken."""

    @abstractmethod
    def fold(
        self,
        function: Task[Item, Value],
        groups: Sequence[Sequence[Item]],
        combine: Combine[Value],
        finish: Task[Value, Result],
    ) -> Iterator[Result]:
        """Yield ``finish(state, total)`` for each group, the total combined as :func:`featdyn.compute.fold` does.

        Neither items nor totals come here, only what ``finish`` returns. An empty group is an error.
        """


class Workers(ABC):
    """Workers, as a context manager."""

    @abstractmethod
    def limits(self) -> Limits:
        """Return what the smallest worker may take, and has taken."""

    def admit(self, plan: Plan) -> None:
        """Log a plan before it runs.

        Raises :class:`ComputeError` if it cannot fit into the memory of a worker, or of this process.
        """
        limit, base, threads, here = self.limits()
        plan.announce(limit, base, threads=threads, here=here)

    @abstractmethod
    def stage(self, state: State, rebuild: Callable[[], State]) -> AbstractContextManager[Stage]:
        """Return workers for tasks that need ``state``, given as this process has it.

        ``rebuild`` makes the same state on a worker, once for each of its threads; it can be pickled.
        """

    def close(self) -> None:  # noqa: B027  this process stays
        """Let the workers go."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def same(state: State) -> State:
    """Return what is given: ``partial(same, state)`` rebuilds a state that is sent as it is."""
    return state
