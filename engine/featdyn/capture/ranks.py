"""The processes that record one run: what one of them knows, or fails at, all of them know.

They talk over a gloo group of the recorder's own, never over training's group: the commit is agreed upon in the
background while training's collectives run, and two threads in one group would meet each other's messages. In this
group the order is the same everywhere, since the main thread uses it only while nothing is left in the background
(``record`` waits first). It works on the host, so it needs no device and does not wait behind kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch.distributed as dist

from featdyn.errors import FeatdynError, TrainingError

T = TypeVar("T")


class LostError(TrainingError):
    """The ranks cannot reach each other any more, so nobody knows what became of the others."""


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    """What a piece of work came to on one rank; errors as text, since not every error can be pickled."""

    value: T | None
    kind: type[FeatdynError] | None = None
    error: str = ""

    def result(self, rank: int) -> T:
        if self.kind is not None:
            raise self.kind(f"rank {rank}: {self.error}")
        return cast(T, self.value)


class Ranks:
    """All ranks of ``torch.distributed``, or this process alone where there are no others.

    Every rank must make it and call the same methods in the same order. A rank that ends makes them fail on the others
    at once, a rank that hangs after gloo's own timeout (30 minutes). Where there are ``several``, this one has the
    number ``rank``, of ``size``.
    """

    def __init__(self) -> None:
        self.several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if self.several else (0, 1)
        self._group: Any = dist.new_group(backend="gloo") if self.several else None
        self._lost = False

    def all(self, work: Callable[[], T]) -> list[T]:
        """Do something on every rank and return what it gave, in the order of the ranks.

        Where it fails on any rank, each raises: its own error, or else the first rank's that has one.
        """
        mine, own = _try(work)
        outcomes = [mine] * self.size
        if self.several:
            with self._talking(own):
                dist.all_gather_object(outcomes, mine, group=self._group)
        if own is not None:
            raise own
        return [outcome.result(rank) for rank, outcome in enumerate(outcomes)]

    def first(self, work: Callable[[], T]) -> T:
        """Do something on rank 0 alone; return there and on all other ranks what it gave, or raise."""
        mine, own = _try(work) if self.rank == 0 else (None, None)
        box = [mine]
        if self.several:
            with self._talking(own):
                dist.broadcast_object_list(box, src=0, group=self._group)
        if own is not None:
            raise own
        return cast("_Outcome[T]", box[0]).result(0)

    def close(self) -> None:
        """Leave the group; the others need not have come as far."""
        group, self._group = self._group, None
        if group is not None and dist.is_initialized():
            with suppress(ValueError, RuntimeError):  # the default group was ended before, and this one with it
                dist.destroy_process_group(group)

    @contextmanager
    def _talking(self, own: BaseException | None) -> Iterator[None]:
        lost = f"rank {self.rank} lost the others: one has ended, or does not record where they all do"
        if self._lost:
            raise own or LostError(lost)
        self._lost = True  # what breaks off here, also by an interrupt, leaves the ranks out of step
        try:
            yield
        except (RuntimeError, ValueError) as error:
            raise own or LostError(f"{lost} ({str(error).partition(chr(10))[0]})") from error
        self._lost = False


def _try(work: Callable[[], T]) -> tuple[_Outcome[T], BaseException | None]:
    try:
        return _Outcome(work()), None
    except FeatdynError as error:
        return _Outcome(None, type(error), str(error)), error
    except BaseException as error:  # an interrupt too: the others must not wait for this rank
        return _Outcome(None, TrainingError, f"{type(error).__name__}: {error}"), error
