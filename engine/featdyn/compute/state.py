"""What tasks find on their worker: made there, once for each thread, also on a worker that was started anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from distributed import Worker, WorkerPlugin

import featdyn_kernels

_held: dict[str, _State] = {}


class _State:
    """A state for each thread, as modules lend their parameters to one call at a time."""

    def __init__(self, rebuild: Callable[[], Any]) -> None:
        self._rebuild, self._local = rebuild, threading.local()

    def get(self) -> Any:
        if not hasattr(self._local, "state"):
            self._local.state = self._rebuild()
        return self._local.state


class Prepare(WorkerPlugin):
    """Gives every worker, also one that comes later, the recipe of a stage's state."""

    def __init__(self, name: str, rebuild: Callable[[], Any]) -> None:
        self.name = self.key = f"featdyn-{name}"
        self._rebuild = rebuild

    def setup(self, worker: Worker) -> None:
        """Keep the recipe; make kernels serial on workers that are themselves parallel."""
        _held[self.key] = _State(self._rebuild)
        if worker.state.nthreads > 1:
            featdyn_kernels.set_threads(1)

    def teardown(self, worker: Worker) -> None:
        """Forget the state."""
        _held.pop(self.key, None)


def state(key: str) -> Any:
    """Return a stage's state, on a worker's thread."""
    return _held[key].get()
