"""A store in a folder: durable files, which is what a commit stands on.

A file that a commit names is written once, synced, and never changed afterwards. What is replaced, the root metadata
and chunks that gain rows, is replaced atomically.
"""

# ruff: noqa: D102  methods without a docstring do what Place says

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from featdyn.errors import StoreError
from featdyn.store.lock import TURN, FolderLock, WriterLock
from featdyn.store.place import DOCUMENT, GONE, Place, oversized
from featdyn.store.record import Content, FileRecord, Version

if TYPE_CHECKING:
    from featdyn.store.metadata import Document
    from featdyn.store.snapshot import Snapshot

LOG = logging.getLogger("featdyn")


class Folder(Place):
    """A folder of a local or network file system."""

    path: Path
    absent = "no such folder"
    fence = ".zarr.json.new"  # the root on its way, from the start: the first commit's rename takes it away

    def __init__(self, path: str | Path) -> None:
        if not str(path) or "\0" in str(path):  # an empty one would be the working directory
            raise StoreError(f"{str(path)!r} is no path of a store")
        try:  # absolute: the working directory may change, and workers have another
            self.path = Path(os.path.expanduser(path)).absolute()
        except OSError as error:
            raise StoreError(f"{path}: there is no working directory ({error.strerror})") from error
        self._right: FolderLock | None = None  # to write, of this process; one that is a lease may be lost

    def __reduce__(self) -> tuple[Any, ...]:
        return Folder, (self.path,)  # a right to write is this process's

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def inside(self, path: str) -> Path:
        """Return where a file of the store lies; raise :class:`StoreError` when its path leads out of the store."""
        return Path(self._inside(path))

    def _inside(self, path: str) -> str:
        """Do so as text: a Path for each file of a commit takes longer than what is asked of the system."""
        target, parts = str(self.path), path.split("/")
        for place, part in enumerate(parts, 1):
            if part in ("", ".", "..") or "\\" in part or "\0" in part:
                raise StoreError(f"{self}: {path!r} is not a path inside a store")
            target = f"{target}{os.sep}{part}"
            if os.path.islink(target):
                link = "/".join(parts[:place])
                raise StoreError(f"{self}: {link} is a symbolic link, which a store does not hold")
        return target

    def there(self) -> bool:
        """Whether there is such a folder, or a file in its place."""
        return self.path.exists()

    def empty(self) -> bool:
        """Whether there is no such folder, or nothing in it."""
        return not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))

    def walk(self, below: str = "") -> Iterator[tuple[str, int | None]]:

        def fail(error: OSError) -> None:
            raise error

        start = self.inside(below) if below else self.path
        for folder, folders, names in os.walk(start, onerror=fail) if start.is_dir() else ():
            for name in (*names, *(n for n in folders if Path(folder, n).is_symlink())):
                about = Path(folder, name).lstat()
                size = about.st_size if S_ISREG(about.st_mode) else None
                yield Path(folder, name).relative_to(self.path).as_posix(), size

    def exists(self, path: str) -> bool:
        return self.inside(path).exists()

    def size(self, path: str) -> int:
        return self.inside(path).stat().st_size

    def free(self) -> int:
        """Return the free bytes of the disk."""
        there = self.path
        while not there.exists():
            there = there.parent
        return shutil.disk_usage(there).free

    def fetch(self, path: str) -> tuple[bytes, Version] | None:
        """Return the content of a file, if there is one."""
        try:
            size = self.size(path)
            if size > DOCUMENT:
                raise oversized(path, size)
            return self.read(path), None
        except GONE:
            return None

    def _plain(self, path: str) -> Path:
        """Return where a file lies; what is none, such as a pipe, would keep who opens it waiting for ever."""
        target = self.inside(path)
        if not S_ISREG(target.stat().st_mode):
            raise FileNotFoundError(errno.ENOENT, "no plain file", str(target))
        return target

    def read(self, path: str) -> bytes:
        return self._plain(path).read_bytes()

    def view(self, path: str) -> Content:
        """Read a file into numpy's memory, which is of large pages where there are: as fast as to map it, nearly."""
        return self._read(path, 0, None)

    def part(self, path: str, start: int, length: int) -> Content:
        return self._read(path, start, length)

    def _read(self, path: str, start: int, length: int | None) -> Content:
        with open(self._plain(path), "rb", buffering=0) as file:
            left = max(0, os.fstat(file.fileno()).st_size - start)
            buffer = np.empty(left if length is None else min(left, length), np.uint8).data
            file.seek(start)
            done = 0
            while done < len(buffer) and (more := file.readinto(buffer[done:])):
                done += more
        return buffer[:done].toreadonly()

    def snapshot(self, content: bytes, nodes: Mapping[str, Document]) -> Snapshot:
        """Return the folder for zarr, which reads its files by itself."""
        from featdyn.store.snapshot import Snapshot

        return Snapshot(self.path, content, nodes)

    def announce(self, path: str) -> None:
        """Ask the system to read a file ahead."""
        with suppress(OSError, AttributeError), open(self._plain(path), "rb") as file:  # not every system can
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def pieces(self, path: str) -> Iterator[bytes]:
        with open(self._plain(path), "rb", buffering=0) as file:
            while piece := file.read(2**22):
                yield piece

    def lock(self) -> WriterLock:
        """Return the lock of this store."""
        self._right = lock = WriterLock(self.path)
        return lock

    def turn(self) -> FolderLock:
        """Return the right to publish: short, and apart from the lock, which a training holds to its end.

        A lease is both.
        """
        if self._right is not None and self._right.leased:
            return self._right
        turn = FolderLock(self.path, TURN)
        self._right = self._right or turn
        return turn

    def _check(self) -> None:
        if self._right is not None:
            self._right.check()

    def make(self) -> bool:
        """Make the folder; return whether it was not there."""
        made = not self.path.exists()
        if made and self.path.is_symlink():
            raise StoreError(f"{self} is a symbolic link that leads nowhere")
        self.path.mkdir(parents=True, exist_ok=True)
        return made

    def unmake(self) -> None:
        """Remove the folder, if nothing is in it."""
        os.rmdir(self.path)

    def anchor(self) -> None:
        """Make the folder's own name durable."""
        with suppress(PermissionError):  # to write in a folder is not to read it
            sync_folder(self.path.parent)

    def begin(self, content: bytes, before: Version) -> Version:
        self.write(self.fence, [content])
        self.settle([self.fence])

    def write(self, path: str, pieces: Iterable[bytes]) -> FileRecord:
        """Write and sync one new file; its folder is synced later, by :meth:`settle`.

        Each piece is checksummed just before it is written, while it is in the processor's cache. A file that could not
        be written to its end is removed: on a full disk its room is needed.
        """
        self._check()
        target = self._inside(path)
        # A reader may have open what a repair dropped here: it goes on with that.
        with suppress(FileNotFoundError):
            os.unlink(target)
        size = checksum = 0
        try:
            with _opened(target) as file:
                for piece in pieces:
                    checksum = int(google_crc32c.extend(checksum, piece))
                    size += len(piece)
                    _write(file, piece)
                os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                os.unlink(target)
            raise
        return FileRecord(path, size, checksum)

    def rewrite(self, path: str, content: bytes, before: Version) -> Version:
        self._swap(path, content)

    def settle(self, paths: list[str]) -> None:
        """Make the names of these files durable, and those of the folders that lead to them."""
        folders = {""}
        for path in paths:
            folder = path.rpartition("/")[0]
            while folder not in folders:
                folders.add(folder)
                folder = folder.rpartition("/")[0]
        for folder in sorted(folders, reverse=True):
            sync_folder(os.path.join(self.path, folder))

    def publish(self, path: str, content: bytes, before: Version, *, durable: bool = True, label: str = "") -> Version:
        """Replace one file; under the lock nobody else does.

        Once it is renamed everybody sees it: that the folder cannot be synced any more does not undo it.
        """
        try:
            self.replace(path, content, durable=durable)
        except OSError as error:
            found = self.fetch(path)
            if found is None or found[0] != content:
                raise
            what = f"{label} is committed" if label else f"{path} is written"
            LOG.warning("%s: %s, but may not outlast a power cut (%s)", self, what, error.strerror)

    def replace(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Replace one file so that a reader sees the old content or the new; when durable, also after a power cut."""
        target = self._swap(path, content, durable=durable)
        if durable:
            sync_folder(os.path.dirname(target))

    def _swap(self, path: str, content: bytes, *, durable: bool = True) -> str:
        """Do so but for the new name, which is not durable yet; return where the file lies."""
        self._check()
        target = self._inside(path)
        folder, name = os.path.split(target)
        aside = os.path.join(folder, f".{name}.new")
        try:
            with _opened(aside) as file:
                _write(file, content)
                if durable:
                    os.fsync(file.fileno())
            self._check()
            os.rename(aside, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise
        return target

    def give_up(self, path: str) -> None:
        """Remove a file that no commit will name."""
        self._check()
        self.inside(path).unlink()

    def clear(self, own: Callable[[str], Any]) -> None:
        """Remove all files that ``own`` accepts, and folders that are empty then."""
        self._check()
        for folder, _, names in os.walk(self.path, topdown=False):
            for name in names:
                path = Path(folder, name)
                if own(path.relative_to(self.path).as_posix()):
                    path.unlink()
            if Path(folder) != self.path:
                with suppress(OSError):
                    os.rmdir(folder)

    def remove(self, path: str) -> None:
        """Remove one file, and the folders above it that are empty then."""
        self._check()
        target = self.inside(path)
        target.unlink()
        with suppress(OSError):
            while (target := target.parent) != self.path:
                os.rmdir(target)


def _opened(path: str) -> FileIO:
    """Open a file for writing; the folders that lead to it are made where they are missing."""
    try:
        return open(path, "wb", buffering=0)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "wb", buffering=0)


def _write(file: FileIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def sync_folder(folder: str | Path) -> None:
    """Make the names in one folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
