"""A store in a bucket: objects below a prefix, through obstore.

A put is atomic, and durable once it is acknowledged, so there is nothing to sync. What a file system's lock does for a
folder is done by conditions here: every object of a commit is put only if nothing is there, or what is there was left
by a writer before this one; the root, and a chunk that gains rows, only if it is the one that this writer read or wrote
last. So whatever happens to be under way when a lease changes hands, nothing that a commit names is ever overwritten,
and none of it deleted.
"""

# ruff: noqa: D102  methods without a docstring do what Place says

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from featdyn.errors import StoreError
from featdyn.store.client import BRIEF, PART, PATIENT, QUICK, Client, connect
from featdyn.store.lease import Lease, several
from featdyn.store.place import DOCUMENT, Found, Item, Place, oversized
from featdyn.store.record import FileRecord, Object, Refused, Version, crc32c

if TYPE_CHECKING:
    from featdyn.store.bucket_snapshot import BucketSnapshot
    from featdyn.store.metadata import Document

AT_ONCE = 16  # requests
LASTING = 30.0  # seconds that the lease must have to run before a delete, which takes 20 at most
SINGLE = 2**28  # bytes: what is larger is put in parts, which cannot be conditional


class Bucket(Place):
    """A prefix of a bucket; requests may be made from several threads.

    A prefix is there when something is below it, and what was acknowledged is durable, so nothing is made or settled.
    No file is given up or cleared: the next writer overwrites it. To delete has no condition: a writer that was stopped
    just before, and goes on when another has put and committed an object of this name, would delete that.
    """

    path: str
    absent = "nothing there"
    fence = "zarr.json"  # which is no root then
    lasting = True

    def __init__(self, url: str) -> None:
        self.path = url
        self._client = self._brief = Client(connect(url, QUICK), again=True)
        self._lease: Lease | None = None
        self._mine: dict[str, Version] = {}  # objects that this writer put and has not committed

    def __reduce__(self) -> tuple[Any, ...]:
        return Bucket, (self.path,)  # credentials are those of the process that opens it

    @property
    def name(self) -> str:
        return posixpath.basename(self.path.rstrip("/"))

    def inside(self, path: str) -> None:
        """Raise :class:`StoreError` when a path is not one below the prefix."""
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in path.split("/")):
            raise StoreError(f"{self}: {path!r} is not a path inside a store")

    def there(self) -> bool:
        return not self.empty()

    def empty(self) -> bool:
        return next(self._client.list(), None) is None

    def walk(self, below: str = "") -> Iterator[tuple[str, int | None]]:
        yield from self._client.list(below)

    def exists(self, path: str) -> bool:
        return self._client.head(path) is not None

    def size(self, path: str) -> int:
        return _there(self._client.head(path)).size

    def fetch(self, path: str) -> tuple[bytes, Version] | None:
        """Return the content of an object and which version of it that is; None when there is none."""
        found = self._client.get(path)
        if found is None:
            return None
        if found.size > DOCUMENT:
            raise oversized(path, found.size)
        return found.content if found.size <= PART else self.read(path), found.version

    def version(self, path: str) -> Version:
        found = self._client.head(path)
        return None if found is None else found.version

    def read(self, path: str) -> bytes:
        """Return the content of an object, a large one read in parts at the same time."""
        found = _there(self._client.get(path))
        if found.size <= PART:
            return found.content
        return b"".join(self.each(lambda start: self._part(path, start, found.size), range(0, found.size, PART)))

    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield the content of an object, part by part."""
        found = _there(self._client.get(path))
        if found.size <= PART:
            yield found.content
            return
        for start in range(0, found.size, PART):
            yield self._part(path, start, found.size)

    def part(self, path: str, start: int, length: int) -> bytes:
        return self._client.part(path, start, length)

    def _part(self, path: str, start: int, size: int) -> bytes:
        return self._client.part(path, start, min(PART, size - start))

    def snapshot(self, content: bytes, nodes: Mapping[str, Document]) -> BucketSnapshot:
        """Return the prefix for zarr, which makes many requests at the same time."""
        from featdyn.store.bucket_snapshot import BucketSnapshot

        return BucketSnapshot(self.path, content, nodes)

    def lock(self) -> Lease:
        """Return the lease of this store."""
        self._lease = Lease(self._client, self)
        self._client, self._brief = Client(connect(self.path, PATIENT)), Client(connect(self.path, BRIEF))
        return self._lease

    def turn(self) -> Lease:
        """Return the lease: a put is conditional on what its holder read, so nobody publishes beside it."""
        return self._lease or self.lock()

    def begin(self, content: bytes, before: Version) -> Version:
        return self.publish(self.fence, content, before)

    def write(self, path: str, pieces: Iterable[bytes]) -> FileRecord:
        """Put one object of the commit at hand, durable when this returns.

        Raises :class:`StoreError` if the lease is lost, or another writer put something else there since this one has
        it.
        """
        self.inside(path)
        content = b"".join(pieces)
        lease, before = self._writing(), self._mine.get(path)
        for _ in range(3):
            try:
                self._mine[path] = self._put(path, content, before)
                return FileRecord(path, len(content), crc32c(content))
            except Refused:
                found = self._client.head(path)
            # What lies there since before our lease is what a writer left that did not commit it.
            if found is not None and (lease.since is None or found.modified > lease.since):
                break
            before = None if found is None else found.version
        raise StoreError(f"{self}: {path} was written by another writer just now: open the store again")

    def rewrite(self, path: str, content: bytes, before: Version) -> Version:
        if before is None:
            self.write(path, [content])
            return self._mine.pop(path)
        self.inside(path)
        self._writing()
        try:
            return self._client.put_if(path, content, before)
        except Refused:
            raise StoreError(f"{self}: {path} was written by another writer: open the store again") from None

    def _put(self, path: str, content: bytes, before: Version) -> Version:
        if len(content) <= SINGLE:
            return self._client.put_if(path, content, before)
        there = self._client.head(path)
        if there is not None and there.version != before:
            raise Refused
        self._client.put(path, content)
        put = self._client.head(path)  # a put in parts answers with another version than the object's, here and there
        return None if put is None else put.version

    def publish(self, path: str, content: bytes, before: Version, *, durable: bool = True, label: str = "") -> Version:
        """Replace one object if it is still in the version ``before``; return the new one."""
        lease = self._writing()
        lease.sure = False
        try:
            version = self._client.put_if(path, content, before)
        except Refused:
            raise StoreError(
                f"{self}: another writer has committed meanwhile: nothing of it is lost, open the store again"
            ) from None
        lease.sure = True
        self._mine.clear()
        return version

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Replace one object, whatever is there."""
        self.inside(path)
        self._writing()
        self._client.put(path, content)

    def remove(self, path: str) -> None:
        """Delete one object, in less time than the lease has still to run: a delete has no condition."""
        self.inside(path)
        self._writing(LASTING)
        self._brief.delete(path)

    def check_several(self) -> None:
        """Raise :class:`StoreError`: who writes for another would have to hold the lease with it."""
        raise several(self)

    def each(self, call: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
        """Yield ``call(item)`` of each item, in their order; some are made at the same time."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from pool.map(call, items)

    def _writing(self, lasting: float = 0.0) -> Lease:
        if self._lease is None:
            raise StoreError(f"{self} is not open for writing")
        self._lease.check(lasting)
        return self._lease


def _there(found: Object | None) -> Object:
    if found is None:
        raise FileNotFoundError(2, "missing")
    return found
