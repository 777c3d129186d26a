"""What the manifests hold of gathered rows, so that a damaged chunk is made anew: the parity of a few rows each.

The exclusive or of the rows of a group, with all of them but one, which lie in other chunks, gives that one back. To
hold the rows themselves would double the bytes of what is small; manifests of format 2 do, in groups of one row each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from featdyn.errors import StoreError
from featdyn.store import zstd
from featdyn.store.gathered import Rows, WrittenRow, encode
from featdyn.store.place import GONE, Place
from featdyn.store.record import Version
from featdyn.store.schema import Schema

GROUP = 16  # rows at most: of two damaged chunks in one group neither can be made anew
GROUPS = 4  # at least, where there are as many rows


class Group(NamedTuple):
    """Rows of one commit, and their exclusive or, as long as the longest of them."""

    rows: tuple[Rows, ...]
    parity: bytes


def grouped(rows: Iterable[WrittenRow]) -> tuple[Group, ...]:
    """Return the rows of a commit in groups, of one size but for the last, those of a length together.

    Chunks of one folder, and folders of one layer, come into different groups, as far as there are others.
    """
    ordered = sorted(rows, key=lambda row: (-row.length, row.path.split("/")[:-3:-1], row.path))
    size = max(1, min(GROUP, len(ordered) // GROUPS))
    some = [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]
    return tuple(Group(tuple(_plain(row) for row in group), _xor([row.row for row in group])) for group in some)


def _plain(row: WrittenRow) -> Rows:
    return Rows(row.path, row.size, row.crc32c, row.length)


def mendable(listed: Iterable[Sequence[Group]], path: str, damaged: Collection[str]) -> bool:
    """Whether a chunk can be made anew: in the groups of its rows, at each commit, no other chunk is damaged."""
    found = (group_of(groups, path) for groups in listed)
    return not any(row.path in damaged for group in found if group for row in group.rows if row.path != path)


def mend(place: Place, schema: Schema, path: str, listed: Sequence[Sequence[Group]], before: Version) -> None:
    """Write a chunk anew, if it is in this version, from the other rows of each checkpoint's group and the parities.

    ``listed`` are the groups of each checkpoint, in order.
    """
    newest = {row.path: row for groups in listed for group in groups for row in group.rows}
    chunks: dict[str, np.ndarray[Any, Any]] = {}  # that are sound, decoded

    def row(record: Rows) -> bytes:
        if record.path not in chunks:
            chunks[record.path] = _sound(place, schema, newest[record.path])
        return chunks[record.path][record.size - record.length : record.size].tobytes()

    length, content = newest[path].length, b""
    for group in filter(None, (group_of(groups, path) for groups in listed)):
        others = [row(record) for record in group.rows if record.path != path]
        content += _xor([group.parity, *others])[:length]
    if newest[path].differs_in(np.frombuffer(content, np.uint8)):
        raise StoreError(f"{place}: {path} is damaged, and so is what the manifests hold of it: nothing was changed")
    size = schema[path.rpartition("/")[0]].span * length
    place.rewrite(path, encode(content + bytes(size - len(content)), len(content)), before)


def group_of(groups: Iterable[Group], path: str) -> Group | None:
    """Return the group that a chunk's row is in, None where there is none."""
    return next((group for group in groups if any(row.path == path for row in group.rows)), None)


def _sound(place: Place, schema: Schema, record: Rows) -> np.ndarray[Any, Any]:
    """Return the decoded bytes of a chunk whose committed rows are as they were written, or raise StoreError."""
    spec = schema[record.path.rpartition("/")[0]]
    try:
        content = zstd.expand(place.read(record.path), spec.span * schema.row_bytes(spec))
        wrong = record.differs_in(content)
    except (*GONE, ValueError, RuntimeError) as error:
        wrong = f"{record.path} cannot be decoded ({error})"
    if wrong:
        raise StoreError(f"{place}: {wrong}: nothing was changed")
    return content


def _xor(rows: Sequence[bytes]) -> bytes:
    found = np.zeros(max(map(len, rows)), np.uint8)
    for row in rows:
        found[: len(row)] ^= np.frombuffer(row, np.uint8)
    return found.tobytes()
