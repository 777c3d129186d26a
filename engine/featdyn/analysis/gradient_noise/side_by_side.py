"""Work on copies of a network, one a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from torch import nn

from featdyn_kernels._threads import parallel_blocks

Item = TypeVar("Item")
Value = TypeVar("Value")


def side_by_side(
    work: Callable[[nn.Module, Item], Value], items: Iterable[Item], models: Sequence[nn.Module]
) -> Iterator[Value]:
    """Yield ``work(model, item)`` in the order of the items, as many at once as there are models, which are alike."""
    if len(models) == 1:
        yield from (work(models[0], item) for item in items)
        return
    free, left = SimpleQueue[nn.Module](), iter(items)
    for model in models:
        free.put(model)
    while some := list(islice(left, len(models))):
        found = dict[int, Value]()

        def block(start: int, stop: int, some: list[Item] = some, found: dict[int, Value] = found) -> None:
            model = free.get()
            try:
                found.update((i, work(model, some[i])) for i in range(start, stop))
            finally:
                free.put(model)

        parallel_blocks(block, len(some))
        yield from (found[i] for i in range(len(some)))
