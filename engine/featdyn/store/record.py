"""What is known of a file: where it lies, its size and checksum; of one that is put on a condition its version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import google_crc32c

Version: TypeAlias = Any  # which of the contents that a file had one after another; None: it was not there
Content: TypeAlias = bytes | memoryview


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

    def differs(self, size: int, checksum: int) -> str | None:
        """Return what is wrong with a file of this size and checksum, or None."""
        if size != self.size:
            return f"{self.path}: {size} bytes instead of {self.size}"
        return None if checksum == self.crc32c else f"{self.path}: the content does not match its checksum"


def crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes, as zarr uses it."""
    return int(google_crc32c.value(content))


class Refused(Exception):
    """A conditional put whose condition does not hold."""


class Object(NamedTuple):
    """A file as it was read, where it can be put on a condition."""

    content: bytes
    size: int
    version: Version
    modified: datetime  # by the clock of where it lies
