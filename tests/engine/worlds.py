"""Where a store may lie, and what may happen to the calls that it makes there: the same for folders and buckets."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from obstore.store import MemoryStore

from featdyn.store import bucket, bucket_snapshot, client, lease, place
from featdyn.store.lock import is_lock
from featdyn.store.right import Lock
from tests.engine import buckets, faults

ERRORS = ("EIO", "ENOSPC", "EACCES", "ESTALE", "EROFS")


class World(ABC):
    """One store, as a context manager. ``url`` opens it.

    Time passes on demand only, nobody waits, and nothing is synced.
    """

    url: Any
    HOW: tuple[str, ...]
    """What may happen to a call."""

    def __init__(self) -> None:
        self.stack, self.clock, waited = ExitStack(), buckets.Clock(), [0.0]
        waiting = SimpleNamespace(sleep=lambda pause: waited.append(pause), monotonic=lambda: sum(waited))
        for target, name, value in (
            (os, "fsync", lambda descriptor: None),
            (lease, "now", self.clock),
            (lease, "RENEWED", 1e6),
            (client, "time", waiting),
            (place, "WRITER_WAITS", 0.0),
        ):
            self.stack.enter_context(mock.patch.object(target, name, value))

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @abstractmethod
    def trouble(self, at: int, how: str, meanwhile: Callable[[], object] | None = None) -> AbstractContextManager[Any]:
        """Let something happen to the call of this number; yields what counts them as ``count``."""

    def gone(self, lock: Lock) -> None:
        """Let the process of a writer be gone."""
        self.clock.expire()

    def arrive(self) -> None:  # noqa: B027  in a folder a call is done at once, or never
        """Let a request that was held back arrive."""

    @abstractmethod
    def spoil(self, path: str, content: bytes | None) -> None:
        """Put something in place of a file; None removes it."""

    @abstractmethod
    def load(self, files: dict[str, bytes]) -> None:
        """Let the store be these files."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return every file; of locks what tells whoever comes next anything."""

    def state(self) -> bytes:
        """Return what is the same where the files are: what follows from them, when all are gone, is then the same."""
        found = hashlib.sha256()
        for path, content in sorted(self.files().items()):
            found.update(b"%s %d " % (path.encode(), len(content)))
            found.update(content)
        return found.digest()


class FolderWorld(World):
    """A folder."""

    HOW = ("kill", *ERRORS, *(f"{code} reading" for code in ERRORS))

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.url = folder / "run.zarr"
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)

    @contextmanager
    def trouble(self, at: int, how: str, meanwhile: Callable[[], object] | None = None) -> Iterator[Any]:
        code, _, reading = how.partition(" ")
        kind = faults.Unreadable if reading else faults.Faults
        kill = code == "kill"
        found = kind(at, kill=kill, code=errno.EIO if kill else getattr(errno, code), meanwhile=meanwhile)
        with found.installed():
            yield found

    def gone(self, lock: Lock) -> None:
        lock.release()  # by the system

    def spoil(self, path: str, content: bytes | None) -> None:
        (self.url / path).unlink(missing_ok=True)  # who has it open keeps it
        if content is not None:
            (self.url / path).write_bytes(content)

    def load(self, files: dict[str, bytes]) -> None:
        for path, content in files.items():
            (self.url / path).parent.mkdir(parents=True, exist_ok=True)
            (self.url / path).write_bytes(content)

    def files(self) -> dict[str, bytes]:
        paths = [path for path in self.url.rglob("*") if path.is_file()]
        return {str(p.relative_to(self.url)): b"" if is_lock(p.name) else p.read_bytes() for p in paths}


class PowerWorld(FolderWorld):
    """A folder on a disk that loses its power, at a call or, beyond the last one, when all is done."""

    HOW = ("least", "torn", "any")

    @contextmanager
    def trouble(self, at: int, how: str, meanwhile: Callable[[], object] | None = None) -> Iterator[Any]:
        disk, above = faults.Disk(at), self.url.parent
        disk.keep(above, below=True)
        choose = {"least": faults.LEAST, "torn": faults.TORN}.get(how, random.Random(f"{how} {at}").choice)
        try:
            with disk.installed():
                yield disk
        finally:
            disk.lose_power(above, choose)


class BucketWorld(World):
    """A bucket in memory."""

    HOW = ("error", "lost", "repeated", "kill", "done", "short", "late")

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__()
        self.url, self.store = "s3://runs/run.zarr", store or MemoryStore()
        self.requests = buckets.Faults(self.store)
        self.late: list[buckets.Late] = []
        self.stack.enter_context(mock.patch.object(bucket, "connect", return_value=_Now(self)))
        self.stack.enter_context(mock.patch.object(bucket, "AT_ONCE", 1))  # requests in one order
        self.stack.enter_context(mock.patch.object(bucket_snapshot, "connect", return_value=self.store))

    @contextmanager
    def trouble(self, at: int, how: str, meanwhile: Callable[[], object] | None = None) -> Iterator[Any]:
        if how == "late":
            self.requests = buckets.Late(self.store, at)
            self.late.append(self.requests)
        else:
            self.requests = buckets.Faults(self.store, at, how, meanwhile)
        try:
            yield self.requests
        finally:
            self.requests = buckets.Faults(self.store)

    def arrive(self) -> None:
        for late in self.late:
            if late.dead:
                late.arrive()
        self.late.clear()

    def load(self, files: dict[str, bytes]) -> None:
        for path, content in files.items():
            self.store.put(path, content)

    def files(self) -> dict[str, bytes]:
        names = [found["path"] for some in self.store.list() for found in some]
        held = {name: bytes(self.store.get(name).bytes()) for name in names}
        return {n: b"%d" % json.loads(c)["released"] if is_lock(n.rpartition("/")[2]) else c for n, c in held.items()}

    def gone(self, lock: Lock) -> None:
        super().gone(lock)
        lock._stop.set()  # nobody renews it

    def spoil(self, path: str, content: bytes | None) -> None:
        if content is None:
            self.store.delete(path)
        else:
            self.store.put(path, content)


class _Now:
    """What a client of a bucket talks to: whatever stands there at the time."""

    def __init__(self, world: BucketWorld) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.requests, name)
