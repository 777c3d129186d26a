"""Stores in buckets, for tests: a bucket in memory that fails on demand, and time that passes on demand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest import mock

from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError
from obstore.store import MemoryStore

from featdyn.store import bucket, bucket_snapshot, lease, locate
from featdyn.store.root import Root
from tests.engine.faults import Killed

NAMES = itertools.count()


class Short:
    """The answer to a get, whose end is missing."""

    def __init__(self, found: Any) -> None:
        self.meta, self.bytes = found.meta, lambda: bytes(found.bytes())[:-1]


class Faults:
    """An object store in memory, of whose requests the chosen one fails.

    Parameters
    ----------
    at
        Which request, counted from 1; 0 for none.
    how
        ``error``: not done, an error. ``lost``: done, but the answer is lost and an error comes instead. ``repeated``:
        likewise, but the client repeats it by itself and answers with what comes of that. ``kill``: not done, and the
        process is gone. ``done``: done, then the process is gone. ``short``: what is read is cut short.
    meanwhile
        Called before the chosen request, in place of a fault.
    """

    def __init__(
        self, store: MemoryStore, at: int = 0, how: str = "error", meanwhile: Callable[[], object] | None = None
    ) -> None:
        self.store, self.at, self.how, self.meanwhile = store, at, how, meanwhile
        self.count, self.dead = 0, False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            if self.dead:
                raise Killed
            self.count += 1
            request = getattr(self.store, name)
            if self.count != self.at:
                return request(*args, **keywords)
            if self.meanwhile is not None:
                self.at = 0
                self.meanwhile()
                return request(*args, **keywords)
            if self.how == "short" and name == "get":
                return Short(request(*args, **keywords))
            if self.how in ("lost", "repeated", "done"):
                request(*args, **keywords)
            if self.how == "repeated":
                return request(*args, **keywords)
            self.dead = self.how in ("kill", "done")
            raise Killed if self.dead else GenericError("Generic test error: kind: Connect")

        return call

    @contextmanager
    def installed(self) -> Iterator[str]:
        """Let all buckets be this one; yields a URL."""
        with (
            mock.patch.object(bucket, "connect", return_value=self),
            mock.patch.object(bucket_snapshot, "connect", return_value=self.store),
        ):
            yield "s3://runs/run.zarr"


class Late(Faults):
    """Holds the chosen put back, as if the process had been stopped in the middle of it."""

    arrived = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = super().__getattr__(name)

        def late(*args: Any, **keywords: Any) -> Any:
            if self.count + 1 == self.at and not self.dead:
                self.dead = True
                self.held = name, args, keywords
                raise Killed
            return call(*args, **keywords)

        return late

    def arrive(self) -> None:
        """Let the object store have it now, whatever has happened since."""
        self.arrived = True
        name, args, keywords = self.held
        if name == "put":
            with suppress(PreconditionError, AlreadyExistsError):
                self.store.put(*args, **keywords)


class Clock:
    """What time it is for leases."""

    def __init__(self) -> None:
        self.time = 1e9

    def __call__(self) -> float:
        return self.time

    def expire(self) -> None:
        """Let every lease run out that is not renewed."""
        self.time += lease.SECONDS + 1


def contents(store: Any) -> dict[str, bytes]:
    """Return every object of a store, without the lock."""
    place = locate(store)
    return {path: place.read(path) for path in place.listing() if not path.startswith(".featdyn.")}


def without_takeovers(content: bytes) -> bytes:
    """Return a root as it would be if no writer had ever taken over from another."""
    return replace(Root.decode(content, "memory://any"), takeovers=0).encode()
