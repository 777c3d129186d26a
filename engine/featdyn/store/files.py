"""Durable files: what a commit stands on.

A file that a commit names is written once, synced, and never changed afterwards; the one file that is replaced, the
root metadata, is replaced atomically.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

import google_crc32c

from featdyn.errors import StoreError


@dataclass(frozen=True)
class FileRecord:
    """One committed file: its path below the store (with ``/``), its size in bytes and the crc32c of its content."""

    path: str
    size: int
    crc32c: int

    @classmethod
    def parse(cls, path: Any, size: Any, crc32c: Any) -> FileRecord:
        """Return what JSON said of a file, or raise ValueError."""
        if not (isinstance(path, str) and isinstance(size, int) and isinstance(crc32c, int)):
            raise ValueError("no record of a file")
        return cls(path, size, crc32c)


def crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes, as zarr uses it."""
    return int(google_crc32c.value(content))


def inside(root: Path, path: str) -> Path:
    """Return where a file of the store lies; raise :class:`StoreError` when its path leads out of the store."""
    target = root
    for part in path.split("/"):
        if part in ("", ".", "..") or "\\" in part or "\0" in part:
            raise StoreError(f"{root}: {path!r} is not a path inside a store")
        target = target / part
        if target.is_symlink():
            raise StoreError(f"{root}: {target.relative_to(root)} is a symbolic link, which a store does not hold")
    return target


def write(root: Path, path: str, pieces: Iterable[bytes]) -> FileRecord:
    """Write and sync one new file below ``root``; its folder is synced later, by :func:`sync_folders`.

    Each piece is checksummed just before it is written, while it is in the processor's cache. A file that could not be
    written to its end is removed: on a full disk its room is needed.
    """
    target = inside(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(
        missing_ok=True
    )  # a reader may have mapped what a repair dropped here: cut short, it would die of that
    size = checksum = 0
    try:
        with open(target, "wb", buffering=0) as file:
            for piece in pieces:
                checksum = int(google_crc32c.extend(checksum, piece))
                size += len(piece)
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise
    return FileRecord(path, size, checksum)


def replace(root: Path, path: str, content: bytes, *, durable: bool = True) -> None:
    """Replace one file so that a reader sees the old content or the new; when durable, also after a power cut."""
    target = inside(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.new")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(aside, target)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    if durable:
        sync_folder(target.parent)


def read(root: Path, path: str) -> bytes:
    """Return the content of one file."""
    return inside(root, path).read_bytes()


def exists(root: Path, path: str) -> bool:
    """Whether there is a file or folder of this name."""
    return inside(root, path).exists()


def listing(root: Path) -> dict[str, int | None]:
    """Return every file below ``root``: path to size in bytes, None for links and what else is no plain file."""

    def fail(error: OSError) -> None:
        raise error

    found: dict[str, int | None] = {}
    for folder, folders, names in os.walk(root, onerror=fail):
        for name in (*names, *(n for n in folders if Path(folder, n).is_symlink())):
            about = Path(folder, name).lstat()
            found[Path(folder, name).relative_to(root).as_posix()] = about.st_size if S_ISREG(about.st_mode) else None
    return found


def remove(root: Path, path: str) -> None:
    """Remove one file, and the folders above it that are empty then."""
    target = inside(root, path)
    target.unlink()
    with suppress(OSError):
        while (target := target.parent) != root:
            os.rmdir(target)


def sync_folder(folder: Path) -> None:
    """Make the names in one folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(root: Path, paths: list[str]) -> None:
    """Make the names of these files durable, and those of the folders that lead to them."""
    folders = {root}
    for path in paths:
        folder = (root / path).parent
        while folder != root and folder not in folders:
            folders.add(folder)
            folder = folder.parent
    for folder in sorted(folders, reverse=True):
        sync_folder(folder)


def _crc32c_of(path: Path) -> int:
    checksum = 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(2**22):
            checksum = int(google_crc32c.extend(checksum, piece))
    return checksum


def check(root: Path, record: FileRecord, *, content: bool = True) -> str | None:
    """Return what is wrong with a committed file, or None; without ``content`` only that it is there in full size."""
    try:
        target = inside(root, record.path)
        size = target.stat().st_size
        if size != record.size:
            return f"{record.path}: {size} bytes instead of {record.size}"
        if content and _crc32c_of(target) != record.crc32c:
            return f"{record.path}: the content does not match its checksum"
    except StoreError:
        return f"{record.path}: leads out of the store or through a symbolic link"
    except FileNotFoundError:
        return f"{record.path}: missing"
    except OSError as error:
        return f"{record.path}: {error.strerror}"
    return None


@contextmanager
def disk(root: Path, checkpoints: int = 0) -> Iterator[None]:
    """Turn errors of the file system into one line that says what is safe."""
    try:
        yield
    except OSError as error:
        kept = f"; its {checkpoints} committed checkpoints are safe" if checkpoints else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{root}: the disk is full{kept}: free some room and run the same command again"
            ) from error
        raise StoreError(f"{root}: {error.strerror or error}{kept}") from error
