"""Durable files: what a commit stands on.

A file that a commit names is written once, synced, and never changed afterwards; the one file that is replaced, the
root metadata, is replaced atomically.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import google_crc32c


@dataclass(frozen=True)
class FileRecord:
    """One committed file: its path below the store (with ``/``), its size in bytes and the crc32c of its content."""

    path: str
    size: int
    crc32c: int


def crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes, as zarr uses it."""
    return int(google_crc32c.value(content))


def write(root: Path, path: str, pieces: Iterable[bytes]) -> FileRecord:
    """Write and sync one new file below ``root``; its folder is synced later, by :func:`sync_folders`.

    Each piece is checksummed just before it is written, while it is in the processor's cache.
    """
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    size = checksum = 0
    with open(target, "wb", buffering=0) as file:
        for piece in pieces:
            checksum = int(google_crc32c.extend(checksum, piece))
            size += len(piece)
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())
    return FileRecord(path, size, checksum)


def replace(root: Path, path: str, content: bytes, *, durable: bool = True) -> None:
    """Replace one file so that a reader sees the old content or the new; when durable, also after a power cut."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.new")
    with open(aside, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(aside, target)
    if durable:
        sync_folder(target.parent)


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


def check(root: Path, record: FileRecord, *, content: bool = True) -> str | None:
    """Return what is wrong with a committed file, or None; without ``content`` only that it is there in full size."""
    target = root / record.path
    try:
        size = target.stat().st_size
        if size != record.size:
            return f"{record.path}: {size} bytes instead of {record.size}"
        if content and crc32c(target.read_bytes()) != record.crc32c:
            return f"{record.path}: the content does not match its checksum"
    except FileNotFoundError:
        return f"{record.path}: missing"
    except OSError as error:
        return f"{record.path}: {error.strerror}"
    return None
