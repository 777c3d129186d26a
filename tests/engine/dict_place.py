"""A kind of place that featdyn does not know: files in a dictionary, a version for each, and a lease for who writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from featdyn.errors import StoreError
from featdyn.store.lease import Lease
from featdyn.store.place import Place
from featdyn.store.record import FileRecord, Object, Refused, Version, crc32c


class Dictionary:
    """Files that are put on a condition."""

    def __init__(self) -> None:
        self.files: dict[str, Object] = {}
        self.guard, self.count = threading.Lock(), 0

    def get(self, path: str) -> Object | None:
        return self.files.get(path)

    head = get

    def put_if(self, path: str, content: bytes, before: Version) -> Version:
        with self.guard:
            found = self.files.get(path)
            if (None if found is None else found.version) != before:
                raise Refused
            self.count += 1
            self.files[path] = Object(content, len(content), self.count, datetime.now(UTC))
            return self.count

    def delete(self, path: str) -> None:
        self.files.pop(path, None)


class DictPlace(Place):
    """Its copies share the files."""

    absent, fence, name = "nothing there", "zarr.json", "run.zarr"

    def __init__(self, path: str, shared: Dictionary) -> None:
        self.path, self.shared = path, shared
        self.lease: Lease | None = None

    def __copy__(self) -> DictPlace:
        return DictPlace(self.path, self.shared)

    def inside(self, path: str) -> None:
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in path.split("/")):
            raise StoreError(f"{self}: {path!r} is not a path inside a store")

    def there(self) -> bool:
        return not self.empty()

    def empty(self) -> bool:
        return not self.shared.files

    def walk(self, below: str = "") -> Iterator[tuple[str, int | None]]:
        start = f"{below}/" if below else ""
        yield from [(path, found.size) for path, found in self.shared.files.copy().items() if path.startswith(start)]

    def exists(self, path: str) -> bool:
        return path in self.shared.files

    def size(self, path: str) -> int:
        return len(self.read(path))

    def fetch(self, path: str) -> tuple[bytes, Version] | None:
        found = self.shared.get(path)
        return None if found is None else (found.content, found.version)

    def version(self, path: str) -> Version:
        found = self.shared.get(path)
        return None if found is None else found.version

    def read(self, path: str) -> bytes:
        found = self.shared.get(path)
        if found is None:
            raise FileNotFoundError(2, "missing")
        return found.content

    def part(self, path: str, start: int, length: int) -> bytes:
        return self.read(path)[start : start + length]

    def pieces(self, path: str) -> Iterator[bytes]:
        yield self.read(path)

    def lock(self) -> Lease:
        self.lease = Lease(self.shared, self)
        return self.lease

    def turn(self) -> Lease:
        return self.lease or self.lock()

    def begin(self, content: bytes, before: Version) -> Version:
        return self.publish(self.fence, content, before)

    def write(self, path: str, pieces: Iterable[bytes]) -> FileRecord:
        content = b"".join(pieces)
        self.replace(path, content)
        return FileRecord(path, len(content), crc32c(content))

    def rewrite(self, path: str, content: bytes, before: Version) -> Version:
        self.inside(path)
        self.turn().check()
        try:
            return self.shared.put_if(path, content, self.version(path) if before is None else before)
        except Refused:
            raise StoreError(f"{self}: {path} was written by another writer") from None

    def publish(self, path: str, content: bytes, before: Version, *, durable: bool = True, label: str = "") -> Version:
        lease = self.turn()
        lease.check()
        try:
            version = self.shared.put_if(path, content, before)
        except Refused:
            raise StoreError(f"{self}: another writer has committed meanwhile") from None
        lease.sure = True  # no other can replace that any more without knowing it
        return version

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        self.inside(path)
        self.turn().check()
        self.shared.put_if(path, content, self.version(path))

    def clear(self, own: Callable[[str], object]) -> None:
        for path in [*filter(own, self.shared.files)]:
            self.remove(path)

    def remove(self, path: str) -> None:
        self.inside(path)
        self.turn().check()
        self.shared.delete(path)
