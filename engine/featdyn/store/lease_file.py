"""The file of a lease in a folder, for file systems without locks: put on a condition, as an object in a bucket is.

Each version is a file of its own, numbered, and made only if it is not there: that one of two who want the same number
gets it is what every file system can do.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from featdyn.store.record import Object, Refused, Version


class LeaseFile:
    """Files ``<name>.<number>`` in a folder, of which the one of the largest number counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _newest(self, name: str) -> int:
        numbers = (entry.removeprefix(f"{name}.") for entry in os.listdir(self._folder) if entry.startswith(f"{name}."))
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def _path(self, name: str, number: int) -> Path:
        return self._folder / f"{name}.{number}"

    def get(self, path: str) -> Object | None:
        """Return the newest version."""
        while number := self._newest(path):
            with suppress(FileNotFoundError), open(self._path(path, number), "rb") as file:  # replaced just now
                modified = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
                content = file.read()
                return Object(content, len(content), number, modified)
        return None

    head = get

    def put_if(self, path: str, content: bytes, before: Version) -> Version:
        """Write the version after ``before``, or raise :class:`Refused` where that is not the newest."""
        number = (before or 0) + 1
        mine = self._path(path, number)
        if self._newest(path) != number - 1:
            raise Refused
        try:
            descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            raise Refused from None
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        if self._newest(path) != number:  # this process slept between the two, and others have come and gone on
            mine.unlink()
            raise Refused
        if before:
            self._path(path, before).unlink(missing_ok=True)
        return number

    def delete(self, path: str) -> None:
        """Remove all versions."""
        while number := self._newest(path):
            self._path(path, number).unlink(missing_ok=True)
