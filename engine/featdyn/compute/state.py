"""What tasks find on their worker, also on a worker that was started anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from distributed import Worker, WorkerPlugin
from distributed.protocol.pickle import dumps, loads

import featdyn_kernels

_held: dict[str, _States] = {}


class _States:
    """One state for each thread, as modules lend their parameters to one call at a time.

    All are made when the first task asks, and before any task runs.
    """

    def __init__(self, rebuild: Callable[[], Any], threads: int, made: list[Any]) -> None:
        self._rebuild, self._threads, self._made = rebuild, threads, made
        self._guard, self._free = threading.Lock(), SimpleQueue[Any]()
        self._ready = False

    @contextmanager
    def lent(self) -> Iterator[Any]:
        with self._guard:
            if not self._ready:
                self._made += [self._rebuild() for _ in range(self._threads - len(self._made))]
                for state in self._made:
                    self._free.put(state)
                self._ready = True
        state = self._free.get()
        try:
            yield state
        finally:
            self._free.put(state)


class Prepare(WorkerPlugin):
    """Gives every worker, also one that comes later, the recipe of a stage's state."""

    def __init__(self, name: str, rebuild: Callable[[], Any]) -> None:
        self.name = self.key = f"featdyn-{name}"
        # Unpacked by the first task, whose errors come back as they are: a worker may see another store, or none.
        self._rebuild = dumps(rebuild)

    def setup(self, worker: Worker) -> None:
        """Keep the recipe; make kernels serial on workers that are themselves parallel."""
        threads = worker.state.nthreads
        packed = self._rebuild
        _held.setdefault(self.key, _States(lambda: loads(packed)(), threads, []))
        if threads > 1:
            featdyn_kernels.set_threads(1)

    def teardown(self, worker: Worker) -> None:
        """Forget the state."""
        _held.pop(self.key, None)


def hold(plugin: Prepare, rebuild: Callable[[], Any], threads: int, made: Any) -> None:
    """Keep the state that workers in this process will find; one of them is made already."""
    _held[plugin.key] = _States(rebuild, threads, [made])


@contextmanager
def state(key: str) -> Iterator[Any]:
    """Lend a stage's state to a task."""
    with _held[key].lent() as found:
        yield found
