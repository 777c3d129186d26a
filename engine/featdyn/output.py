"""What leaves the store for a person: files that are replaced whole, and text that a terminal only shows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from featdyn.errors import FeatdynError

FORMATS = ("table", "csv", "json", "parquet", "arrow", "netcdf")
"""Of tables, as :func:`featdyn.query.render` writes them."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    r"""Return a text of unknown origin in one line that a terminal does not obey: control characters as ``\x1b``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def quoted(path: object) -> str:
    """Return a path as a shell takes it, for a command that is shown; one that needs no quotes is as it is."""
    return subprocess.list2cmdline([str(path)]) if os.name == "nt" else shlex.quote(str(path))


@contextmanager
def output_file(path: str | Path, *, parents: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing; a regular one holds what it held before until the new content is whole.

    What is no regular file, such as a device or a named pipe, is written through. Links are followed. ``parents`` makes
    the folders that lead to it.

    Raises
    ------
    FeatdynError
        The file cannot be written.
    """
    through = os.path.exists(path) and not os.path.isfile(path)
    # What a link such as /dev/stdout leads to may be a pipe, which has no path of its own.
    target = Path(path) if through else Path(os.path.realpath(path))
    if target.is_dir():
        raise FeatdynError(f"{path}: cannot be written: is a folder, give a file")
    try:
        if parents and not through:
            target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") if through else _replaced(target) as stream:
            yield stream
    except OSError as error:
        raise FeatdynError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _replaced(target: Path) -> Iterator[BinaryIO]:
    aside = target.with_name(f".{os.getpid()}-{threading.get_ident()}.new")
    try:
        with open(aside, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, aside)
        os.replace(aside, target)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
