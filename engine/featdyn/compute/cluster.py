"""The workers of Dask: threads, processes, GPUs, or a cluster that exists."""

# ruff: noqa: D102  as Workers says

from __future__ import annotations

import importlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from uuid import uuid4

from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError

from featdyn.compute import local
from featdyn.compute.address import check
from featdyn.compute.options import ComputeOptions
from featdyn.compute.plan import Limits, available, resident
from featdyn.compute.state import Prepare, hold, state
from featdyn.compute.tree import fold, runs
from featdyn.compute.workers import Combine, Item, Result, Stage, State, Task, Value, Workers
from featdyn.errors import ComputeError, FeatdynError
from featdyn.sizes import size

LOG = logging.getLogger("featdyn")

LIBRARIES = ("numba", "scipy.stats", "torch.fx", "xarray", "zarr")
PATIENCE = 10.0
"""Seconds to wait for a cluster that should exist."""
AHEAD = 2
"""Tasks per thread that are handed out before their results are taken: none waits, and results do not pile up."""
EVEN = 4
"""So many times that: as many tasks keep all threads busy to the end, and more would only cost time."""


class _Lost(ComputeError):
    """Nobody is there to work any more."""


class Cluster(Workers):
    """A Dask cluster, ours or one that exists; its options have ``scheduler`` or ``gpus``."""

    def __init__(self, options: ComputeOptions) -> None:
        self._stack = ExitStack()
        self._here = options.scheduler == "threads"
        try:
            with self._stack:
                self.client = self._connect(options)
                self._check()
                self.threads = sum(self._each("nthreads"))
                self._stack = self._stack.pop_all()
        except Exception as error:  # of any kind, where something else answers
            if isinstance(error, FeatdynError) and not (isinstance(error, _Lost) and options.memory_limit):
                raise
            limit = options.memory_limit
            why = _line(error) if limit is None else f"is --memory-limit {size(limit)} less than a process takes?"
            raise ComputeError(f"{options.scheduler or 'GPUs'}: no workers ({why})") from error
        LOG.info("%d threads on %d workers; dashboard: %s", self.threads, self.workers, self.client.dashboard_link)

    def _connect(self, options: ComputeOptions) -> Client:
        if options.scheduler is not None and "://" in options.scheduler:
            if options.workers is not None or options.memory_limit is not None:
                raise ComputeError(f"{options.scheduler} has its own workers and limits: leave these options out")
            check(options.scheduler, PATIENCE)
            self._stack.enter_context(_silenced("distributed.client"))
            client = Client(options.scheduler, timeout=PATIENCE, set_as_default=False)
            self._stack.callback(client.close)
            client.wait_for_workers(1, timeout=PATIENCE)
            return client
        cluster: LocalCluster = self._stack.enter_context(local.cluster(options))
        client = Client(cluster, set_as_default=False)
        self._stack.callback(client.close)
        return client

    def _check(self) -> None:
        from featdyn import __version__

        for address, version in self.client.run(_version).items():
            if version != __version__:
                raise ComputeError(f"worker {address} has featdyn {version}, here is {__version__}: make them the same")

    def _each(self, name: str) -> list[int]:
        found = self.client.scheduler_info(n_workers=-1).get("workers")
        if not found:
            raise _Lost("the connection to the cluster was lost, or it has no workers any more")
        return [int(worker[name]) for worker in found.values()]

    @property
    def workers(self) -> int:
        """Number of workers."""
        return len(self._each("nthreads"))

    def limits(self) -> Limits:
        limits, threads = [n for n in self._each("memory_limit") if n], max(self._each("nthreads"))
        try:
            base = max(self.client.run(_libraries).values())
        except CommClosedError as error:
            limit = min(limits, default=0)
            raise ComputeError(f"a worker ended as it loaded libraries, with {size(limit)} of memory") from error
        return Limits(min(limits, default=available()), base, threads, self._here)

    @contextmanager
    def stage(self, state: State, rebuild: Callable[[], State]) -> Iterator[Stage]:
        plugin = Prepare(uuid4().hex, rebuild)  # a name that no other client of the cluster has
        if self._here:
            hold(plugin, rebuild, self.threads, state)
        with _connected():
            self.client.register_plugin(plugin)
        try:
            yield _Stage(self.client, plugin.key, AHEAD * self.threads)
        finally:
            if self.client.status == "running":  # a scheduler that is gone has forgotten it, and would be waited for
                with suppress(OSError, ClosedClientError):
                    self.client.unregister_worker_plugin(plugin.name)

    def close(self) -> None:
        """End the workers, if they are ours."""
        self._stack.close()


class _Stage(Stage):
    def __init__(self, client: Client, key: str, ahead: int) -> None:
        self._client, self._key, self._ahead = client, key, ahead

    def map(self, function: Task[Item, Value], items: Iterable[Item]) -> Iterator[Value]:
        submitted = (self._submit(_apply, self._key, function, item) for item in items)
        yield from self._results(submitted, self._ahead)

    def fold(
        self,
        function: Task[Item, Value],
        groups: Sequence[Sequence[Item]],
        combine: Combine[Value],
        finish: Task[Value, Result],
    ) -> Iterator[Result]:
        share = -(-EVEN * self._ahead // max(1, len(groups)))  # tasks that a group is cut into: one, where groups do

        def total(group: Sequence[Item]) -> Future[Any]:
            leaves = [[group[i] for i in run] for run in runs(len(group), -(-len(group) // share))]
            if len(leaves) == 1:
                return self._submit(_finish, self._key, function, group, combine, finish)
            # In the order of the tree: a sum is taken before more terms are made.
            terms = (self._submit(_fold, self._key, function, leaf, combine) for leaf in leaves)
            whole = fold(lambda a, b: self._submit(combine, a, b), terms)
            return self._submit(_apply, self._key, finish, whole)

        yield from self._results(map(total, groups), self._ahead)

    def _submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        with _connected():
            return self._client.submit(function, *args, pure=False)

    def _results(self, submitted: Iterator[Future[Any]], ahead: int) -> Iterator[Any]:
        """Yield results in order, with so many on their way."""
        waiting: deque[Future[Any]] = deque()
        try:
            for future in submitted:
                waiting.append(future)
                if len(waiting) > ahead:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            self._client.cancel(list(waiting))

    def _result(self, future: Future[Any]) -> Any:
        try:
            with _connected(task=True):
                return future.result()
        except KilledWorker as error:
            raise ComputeError(
                "a task ended every worker that took it, most likely for want of memory: raise --memory-limit or use "
                "fewer --workers"
            ) from error


@contextmanager
def _connected(*, task: bool = False) -> Iterator[None]:
    """Turn what says that the scheduler is gone into one line; an OSError of a ``task`` is its own."""
    try:
        yield
    except (OSError, CancelledError, ClosedClientError) as error:  # nobody here cancels what is waited for
        if task and isinstance(error, OSError) and not isinstance(error, CommClosedError):
            raise
        raise ComputeError(f"the connection to the cluster was lost ({_line(error)})") from error


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Keep what a logger says from the terminal: of a scheduler that is gone we tell ourselves, in one line."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _apply(key: str, function: Task[Any, Any], item: Any) -> Any:
    with state(key) as held:
        return function(held, item)


def _fold(key: str, function: Task[Any, Any], items: Sequence[Any], combine: Combine[Any]) -> Any:
    with state(key) as held:
        return fold(combine, (function(held, item) for item in items))


def _finish(
    key: str, function: Task[Any, Any], items: Sequence[Any], combine: Combine[Any], finish: Task[Any, Any]
) -> Any:
    return _apply(key, finish, _fold(key, function, items, combine))


def _libraries() -> int:
    """Load the libraries that analyses use; return the bytes that a process has then."""
    for name in LIBRARIES:
        importlib.import_module(name)
    return resident()


def _version() -> str:
    try:
        from featdyn import __version__
    except ImportError:
        return "none"
    return __version__


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
