"""Every kind of place keeps the promises of featdyn.testing: folders, with locks and without, buckets, a new kind."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from inspect import signature
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from featdyn.store import lease, locate
from featdyn.store.bucket import Bucket
from featdyn.store.files import Folder
from featdyn.store.place import Place
from featdyn.store.right import Lock
from featdyn.testing import FileTests, PlaceTests, ReadOnlyTests, RunTests, WriterTests, record
from tests.engine.buckets import Clock
from tests.engine.dict_place import Dictionary, DictPlace
from tests.engine.test_store_turns import failing, read_only
from tests.engine.test_store_unknown import unreadable

FORBIDDEN = ValueError("status code: 403 Forbidden: <Code>AccessDenied</Code>")


def failing_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


class Leased:
    """Whose lock is a lease: a writer that is gone leaves it until it has run out."""

    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """Let time pass on demand, and no lease be renewed in the background."""
        found = Clock()
        monkeypatch.setattr(lease, "now", found)
        monkeypatch.setattr(lease, "RENEWED", 1e6)
        return found

    @pytest.fixture
    def abandon(self, clock: Clock) -> Callable[[Lock], None]:
        return lambda lock: clock.expire()


class TestFolder(PlaceTests):
    @pytest.fixture
    def place(self, folder: Path) -> Folder:
        return Folder(folder / "run.zarr")

    @pytest.fixture
    def denied(self) -> Callable[[Place, str], AbstractContextManager[object]]:
        return lambda place, path: unreadable(path, errno.EACCES)


class TestFolderWithoutLocks(Leased, PlaceTests):
    @pytest.fixture
    def place(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
        monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
        return Folder(folder / "run.zarr")


class TestBucketInMemory(Leased, PlaceTests):
    @pytest.fixture
    def place(self) -> Iterator[Place]:
        from featdyn.store import client

        yield locate("memory://run.zarr")
        client._MEMORY.clear()


class OnServer(Leased):
    """A bucket on a server, which takes its time."""

    @pytest.fixture
    def place(self, url: str) -> Place:
        return locate(url)


@pytest.mark.slow
class TestRunsInBucket(OnServer, RunTests):
    pass


class TestBucket(OnServer, FileTests, WriterTests):
    @pytest.fixture
    def denied(self) -> Callable[[Place, str], AbstractContextManager[object]]:
        from featdyn.store import client

        def denied(place: Place, path: str) -> AbstractContextManager[object]:
            got = client.Client._got

            def get(self: Any, name: str) -> Any:
                return failing_with(FORBIDDEN)() if name == path else got(self, name)

            return mock.patch.object(client.Client, "_got", get)

        return denied


class TestAnotherKind(Leased, PlaceTests):
    @pytest.fixture
    def place(self) -> DictPlace:
        return DictPlace("another://run.zarr", Dictionary())


class TestReadOnlyFolder(ReadOnlyTests):
    @pytest.fixture
    def place(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
        record(folder / "run.zarr", self.PLAN)
        monkeypatch.setattr(os, "open", read_only(os.open))
        for name in ("rename", "mkdir", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, failing(errno.EROFS))
        return Folder(folder / "run.zarr")


class TestBucketWithKeysThatRead(ReadOnlyTests):
    @pytest.fixture
    def place(self, url: str, monkeypatch: pytest.MonkeyPatch) -> Place:
        from featdyn.store import bucket

        record(url, self.PLAN)
        connect = bucket.connect

        class Denied:
            def __init__(self, *where: Any) -> None:
                self.store = connect(*where)

            def __getattr__(self, name: str) -> Any:
                return failing_with(FORBIDDEN) if name in ("put", "delete") else getattr(self.store, name)

        monkeypatch.setattr(bucket, "connect", Denied)
        return locate(url)


@pytest.mark.parametrize("kind", [Folder, Bucket, DictPlace])
def test_what_is_not_said_means_the_same_in_every_kind(kind: type[Place]) -> None:
    """A kind that is written from the base's signatures keeps what is not said to be done otherwise: as durable."""
    for name in Place.__abstractmethods__:
        base, own = (getattr(each, name) for each in (Place, kind))
        if callable(base):
            base, own = (
                {p.name: p.default for p in signature(each).parameters.values() if p.default is not p.empty}
                for each in (base, own)
            )
            assert own == base, name
