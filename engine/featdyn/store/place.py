"""Where a store lies: a folder (:mod:`featdyn.store.files`) or a prefix of a bucket (:mod:`featdyn.store.bucket`)."""

# ruff: noqa: B027  not every place has something to do in each method of Place

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import google_crc32c

from featdyn.errors import StoreError
from featdyn.store.record import Content, FileRecord, Version, crc32c
from featdyn.store.right import Lock, WriterLock

if TYPE_CHECKING:
    import torch
    import zarr.abc.store

    from featdyn.store.commit import Listing
    from featdyn.store.metadata import Document

# Said by a place that has looked: the file is not there. Any other error says nothing about it.
GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
DOCUMENT = 2**26  # bytes: no root, manifest or chunk of several checkpoints is as large
WRITER_WAITS = 600.0  # seconds, for who publishes a result
Item = TypeVar("Item")
Found = TypeVar("Found")


def oversized(path: str, size: int) -> OSError:
    """Return what to raise for a file that is larger than a document may be."""
    return OSError(errno.EFBIG, f"{path} is too large: {size} bytes")


class Place(ABC):
    """A store's files, by their paths below it.

    Methods raise OSError, whose ``strerror`` says in a line what is wrong, and :class:`StoreError` for paths that lead
    out of the store, also through links, and for what another writer did. Files that no commit names may come and go;
    those that one names are only read. A copy (``copy.copy``) is the same place for who has no right to write, and so
    is what a pickle becomes in another process. ``featdyn.testing.PlaceTests`` tests any kind of place.
    """

    path: str | Path
    """Opens the same place again, from any folder."""
    absent: str
    """What to say when there is no such place."""
    lasting = False
    """Whether a file that was written is there, so that a reader need not look whether the newest are."""
    fence: str
    """The file that says, until the first commit replaces it, that no commit has come; see :meth:`begin`."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the path."""

    @abstractmethod
    def inside(self, path: str) -> Any:
        """Raise :class:`StoreError` when a path leads out of the store."""

    # What is there

    @abstractmethod
    def there(self) -> bool:
        """Whether there is such a place."""

    @abstractmethod
    def empty(self) -> bool:
        """Whether nothing is in it."""

    @abstractmethod
    def walk(self, below: str = "") -> Iterator[tuple[str, int | None]]:
        """Yield every file, or those below a path: its path and its size, None for links and what is no plain file."""

    def listing(self) -> dict[str, int | None]:
        """Return every file, as :meth:`walk` yields them."""
        return dict(self.walk())

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def size(self, path: str) -> int:
        """Return the bytes of a file."""

    def free(self) -> int | None:
        """Return the bytes that can still be written, None where nobody knows."""
        return None

    # Reading

    @abstractmethod
    def fetch(self, path: str) -> tuple[bytes, Version] | None:
        """Return the content of a file and which version of it that is; None when there is none."""

    def version(self, path: str) -> Version:
        """Return which version of a file is there; it need not tell them apart where nobody else can write."""
        return None

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return the content of a file."""

    def view(self, path: str) -> Content:
        """Return the content of a file that may be large, never mapped: a disk that fails must be an error."""
        return self.read(path)

    @abstractmethod
    def part(self, path: str, start: int, length: int) -> Content:
        """Return some bytes of a file, fewer where it ends before."""

    def announce(self, path: str) -> None:
        """Say that a file will be read soon."""

    @abstractmethod
    def pieces(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file of any size."""

    def tensors(self, record: FileRecord) -> dict[str, torch.Tensor]:
        """Return what a safetensors file holds, or raise :class:`StoreError` where it is not as it was written."""
        from safetensors.torch import load

        content, wrong = self.whole(record)
        if wrong:
            raise StoreError(f"{self}: {wrong}")
        found: dict[str, torch.Tensor] = load(content)
        return found

    def snapshot(self, content: bytes, nodes: Mapping[str, Document]) -> zarr.abc.store.Store:
        """Return this for zarr, read-only, with such a content of the root, which has these nodes."""
        from featdyn.store.place_snapshot import PlaceSnapshot

        return PlaceSnapshot(self, content, nodes)

    # Writing: only by who holds the lock; replacing the root, what follows from it, or manifests: only in one's turn

    @abstractmethod
    def lock(self) -> WriterLock:
        """Return the writer's lock of this store."""

    @abstractmethod
    def turn(self) -> Lock:
        """Return the right to publish, which the writer and who commits a result have one after the other.

        In a bucket it is the writer's lock.
        """

    def make(self) -> bool:
        """Let files be written here; return whether there is something now that was not there."""
        return False

    def unmake(self) -> None:
        """Take back what :meth:`make` made, if nothing is in it."""

    def anchor(self) -> None:
        """Make the place itself durable."""

    @abstractmethod
    def begin(self, content: bytes, before: Version) -> Version:
        """Write :attr:`fence`, durably, if it is still in the version ``before``; return the version of the root's.

        Before anything else of a run is written: who finds its files without fence and root knows that it had commits.
        """

    @abstractmethod
    def write(self, path: str, pieces: Iterable[bytes]) -> FileRecord:
        """Write one new file of the commit at hand; its name is durable after :meth:`settle`."""

    @abstractmethod
    def rewrite(self, path: str, content: bytes, before: Version) -> Version:
        """Do as :meth:`write`, with a file that may be read; return the new version. ``before`` is that which is there.

        None stands for what is not there, or was left by a writer before this one that did not commit it.
        """

    def settle(self, paths: list[str]) -> None:
        """Make what was written durable, names and all."""

    @abstractmethod
    def publish(self, path: str, content: bytes, before: Version, *, durable: bool = True, label: str = "") -> Version:
        """Do as :meth:`replace`, if the file is still in the version ``before``; return the new one.

        ``label`` is what people call that which everybody sees by then.
        """

    @abstractmethod
    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Replace one file so that a reader sees the old content or the new; when durable, also after a power cut."""

    def give_up(self, path: str) -> None:
        """Give the room of a file back that :meth:`write` wrote and no commit will name, where room is scarce."""

    def clear(self, own: Callable[[str], object]) -> None:
        """Do so with all files whose paths ``own`` accepts."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove one file, and the folders above it that are empty then."""

    def check_several(self) -> None:
        """Raise :class:`StoreError` where only one process can write."""

    # For all places

    def each(self, call: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
        """Yield ``call(item)`` of each item, in their order; at the same time where waiting is what takes the time."""
        return map(call, items)

    def check(self, record: FileRecord, *, content: bool = True) -> str | None:
        """Return what is wrong with a committed file, or None; without ``content`` only that it is there in full.

        Raises OSError where nobody can say now: no permission, no answer, an error of the disk. That is no damage.
        """

        def look() -> str | None:
            if not content:
                return record.differs(self.size(record.path), record.crc32c)
            size = checksum = 0
            for piece in self.pieces(record.path):
                size += len(piece)
                checksum = int(google_crc32c.extend(checksum, piece))
            return record.differs(size, checksum)

        return self.damage(record, look)

    def whole(self, record: FileRecord) -> tuple[bytes, str | None]:
        """Return the content of a committed file, and what is wrong with it, as :meth:`check` does, with one read."""
        content = b""

        def look() -> str | None:
            nonlocal content
            if not self.lasting and (wrong := record.differs(self.size(record.path), record.crc32c)):
                return wrong  # what is longer is not read
            content = self.read(record.path)
            return record.differs(len(content), crc32c(content))

        wrong = self.damage(record, look)
        return content, wrong

    def damage(self, record: FileRecord, look: Callable[[], str | None]) -> str | None:
        """Return what ``look`` says is wrong with a committed file, or that it is missing or leads out of the store."""
        try:
            self.inside(record.path)
        except StoreError:
            return f"{record.path}: leads out of the store or through a symbolic link"
        try:
            return look()
        except GONE:
            return f"{record.path}: missing"

    def incomplete(self, listing: Listing) -> str | None:
        """Return what is wrong with the first file of a commit that is not there in full size."""
        with disk(self):
            found = self.each(lambda record: self.check(record, content=False), listing.files)
            there = self.each(lambda record: self.damage(record, lambda: self._lacking(record)), listing.rows)
            return next(filter(None, chain(found, there)), None)

    def _lacking(self, record: FileRecord) -> None:
        self.size(record.path)


@contextmanager
def beside(place: Place, lock: Lock) -> Iterator[bool]:
    """Take the writer's turn to publish; yield whether others may have published since the last one.

    It waits long for them: a training should not end because a large result is being committed.
    """
    turn = place.turn()
    if turn is lock:
        yield False
        return
    if not lock.held:  # as in a child that was forked
        raise StoreError(f"{place} is not open for writing")
    turn.acquire(WRITER_WAITS)
    try:
        yield True
    finally:
        turn.release()


@contextmanager
def disk(store: object, checkpoints: int = 0) -> Iterator[None]:
    """Turn errors of a place into one line that says what is safe."""
    try:
        yield
    except OSError as error:
        kept = f"; its {checkpoints} committed checkpoints are safe" if checkpoints else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{store}: the disk is full{kept}: free some room and run the same command again"
            ) from error
        name, base = str(error.filename), f"{store}/"
        where = f"{name.removeprefix(base)}: " if name.startswith(base) else ""
        raise StoreError(f"{store}: {where}{error.strerror or error}{kept}") from error
