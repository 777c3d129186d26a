"""Every kind of place keeps the promises of featdyn.testing: folders, with locks and without, buckets, a new kind."""

from __future__ import annotations

import asyncio
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
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

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


def test_zarr_reads_any_part_of_a_file_of_another_kind_of_place_and_writes_none() -> None:
    place, content = DictPlace("another://run.zarr", Dictionary()), bytes(range(10))
    with place.lock():
        for path in ("zarr.json", "a/0", "a/b/1", "ab"):
            place.replace(path, content)
    store = place.snapshot(b"root", {})
    buffers = default_buffer_prototype()
    asked: list[tuple[Any, bytes]] = [
        (None, content), (RangeByteRequest(2, 5), content[2:5]), (RangeByteRequest(8, 20), content[8:]),
        (OffsetByteRequest(7), content[7:]), (OffsetByteRequest(10), b""), (SuffixByteRequest(4), content[-4:]),
        (SuffixByteRequest(10), content), (SuffixByteRequest(11), content),
    ]  # fmt: skip

    async def look() -> None:
        for wanted, expected in asked:
            found = await store.get("a/0", buffers, wanted)
            assert found is not None
            assert found.to_bytes() == expected
        whole, part = (
            await store.get("zarr.json", buffers),
            await store.get("zarr.json", buffers, RangeByteRequest(0, 3)),
        )
        assert whole is not None
        assert part is not None
        assert (whole.to_bytes(), part.to_bytes()) == (b"root", content[:3])  # the root that was read, whole
        both = await store.get_partial_values(buffers, [("ab", None), ("none", None)])
        assert [one and one.to_bytes() for one in both] == [content, None]
        assert [await store.exists(path) for path in ("a/0", "a", "none")] == [True, False, False]
        names = {path for path in place.listing() if not path.startswith(".")}
        assert {path async for path in store.list()} >= names
        assert {path async for path in store.list_prefix("a/")} == {"a/0", "a/b/1"}
        for folder, inside in (("a", {"0", "b"}), ("a/", {"0", "b"}), ("a/b", {"1"}), ("none", set())):
            assert {name async for name in store.list_dir(folder)} == inside
        assert {name async for name in store.list_dir("")} >= {"a", "ab", "zarr.json"}
        for write in (store.set("a/0", buffers.buffer.from_bytes(b"x")), store.delete("a/0")):
            with pytest.raises(ValueError, match="read-only"):
                await write

    asyncio.run(look())
    assert place.read("a/0") == content
    assert (store.supports_writes, store.supports_deletes, store.supports_listing) == (False, False, True)
    assert store.read_only
    assert store == place.snapshot(b"root", {})
    assert store != place.snapshot(b"other", {})
