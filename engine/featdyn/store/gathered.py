"""What is small and grows: chunks of many checkpoints, written anew, a row longer, by each commit (SPEC.md).

A chunk only ever gains rows behind those that are committed, so whoever reads it as of an older commit reads the same,
and it may be replaced before the root is. The manifests record the checksum of the rows that are committed, not of the
file, and what to make a damaged chunk from anew (:mod:`featdyn.store.parity`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np

from featdyn.errors import StoreError
from featdyn.output import quoted
from featdyn.store import metadata, shard, zstd
from featdyn.store.place import Place
from featdyn.store.record import FileRecord, Version, crc32c
from featdyn.store.schema import ArraySpec, Schema


@dataclass(frozen=True)
class Rows(FileRecord):
    """The committed rows of a chunk: their bytes in all, decoded, and the crc32c of these; the bytes of one."""

    length: int

    def differs_in(self, content: np.ndarray[Any, Any]) -> str | None:
        """Return what is wrong with these rows in a decoded chunk, or None."""
        same = crc32c(content[: self.size].tobytes()) == self.crc32c
        return None if same else f"{self.path}: the committed rows do not match their checksum"


@dataclass(frozen=True)
class WrittenRow(Rows):
    """The same, with the newest row itself."""

    row: bytes


@dataclass
class _Chunk:
    key: str
    rows: bytearray
    version: Version = None  # that this writer read or put last: another one is another writer's
    filled: int = 0  # bytes of it that are rows
    sums: dict[int, int] = field(default_factory=dict)  # crc32c of so many bytes

    def put(self, row: bytes, start: int) -> int:
        """Put a row there, and nothing behind it, as of a checkpoint that was given up; return the crc32c up to it."""
        before = self.sums[start] if start in self.sums else crc32c(bytes(self.rows[:start]))
        end = start + len(row)
        if self.filled > end:
            self.rows[end : self.filled] = bytes(self.filled - end)
        self.rows[start:end] = row
        self.filled = end
        self.sums = {start: before, end: int(google_crc32c.extend(before, row))}  # of all rows anew it would grow
        return self.sums[end]


class Gatherer:
    """The chunks that one writer is filling; each block of an array may be written from another thread.

    ``known`` are the rows of the newest checkpoint, by the paths of their chunks; ``current`` says whether the root is
    still the one of that checkpoint.
    """

    def __init__(
        self, place: Place, schema: Schema, known: Mapping[str, Rows], current: Callable[[], bool] = lambda: True
    ) -> None:
        self._place, self._schema, self._known, self._current = place, schema, known, current
        self._chunks: dict[tuple[str, int], _Chunk] = {}

    def add(self, spec: ArraySpec, checkpoint: int, block: int, values: np.ndarray[Any, Any]) -> WrittenRow:
        """Put one row into its chunk, without writing it."""
        row, at = row_of(values, spec, self._schema), checkpoint % spec.span
        key = metadata.chunk_key(spec, checkpoint, block)
        chunk = self._chunks.get((spec.path, block))
        if chunk is None or chunk.key != key:
            chunk = self._chunks[spec.path, block] = self._begin(key, spec, at)
        start, end = at * len(row), (at + 1) * len(row)
        return WrittenRow(key, end, chunk.put(row, start), len(row), row)

    def write(self, spec: ArraySpec, block: int) -> None:
        """Write the chunk of the newest row, durable but for its name, as :meth:`Place.write` does."""
        chunk = self._chunks[spec.path, block]
        chunk.version = self._place.rewrite(chunk.key, encode(chunk.rows, chunk.filled), chunk.version)

    def _begin(self, key: str, spec: ArraySpec, at: int) -> _Chunk:
        size = spec.span * self._schema.row_bytes(spec)
        if not at:
            return _Chunk(key, bytearray(size))
        found, known = self._place.fetch(key), self._known.get(key)
        if not self._current():  # else what was read is of before any other writer, who changes the root first
            raise StoreError(f"{self._place}: another writer has come meanwhile: open the store again")
        try:
            if found is not None and known is not None:
                content = zstd.expand(found[0], size)
                if not known.differs_in(content):
                    return _Chunk(key, bytearray(content), found[1], size)
        except (ValueError, RuntimeError):
            pass
        raise StoreError(f"{self._place}: {key} is damaged; run: featdyn verify {quoted(self._place)} --repair")


def row_of(values: np.ndarray[Any, Any], spec: ArraySpec, schema: Schema) -> bytes:
    """Return one block at one checkpoint as it lies in a chunk: little-endian, padded to the block's full length."""
    little = np.ascontiguousarray(values, dtype=np.dtype(spec.dtype).newbyteorder("<"))
    axis = spec.sample_axis
    return (little if axis is None else shard.padded(little, axis, schema.shard_samples)).tobytes()


def encode(chunk: bytes | bytearray, filled: int) -> bytes:
    """Return the file of a chunk of which so many bytes are rows.

    Until it is full it is written again soon, so it is compressed ten times as fast, for a tenth more bytes.
    """
    return zstd.compress(chunk, zstd.LEVEL if filled == len(chunk) else zstd.FAST)


def decode(content: bytes, spec: ArraySpec, schema: Schema) -> np.ndarray[Any, Any]:
    """Return the rows of a chunk, read-only, ``(checkpoints, *block)``; raise as :func:`zstd.expand` does.

    What is not committed, and what lies beyond the last sample, means nothing.
    """
    shape = list(spec.shape)
    if spec.sample_axis is not None:
        shape[spec.sample_axis] = schema.shard_samples
    found = zstd.expand(content, spec.span * schema.row_bytes(spec))
    found.flags.writeable = False
    return found.view(np.dtype(spec.dtype).newbyteorder("<")).reshape(spec.span, *shape)


def check(place: Place, record: Rows, schema: Schema) -> str | None:
    """Return what is wrong with the committed rows of a chunk, as :meth:`Place.check` does with a file."""

    def look() -> str | None:
        try:
            spec = schema[record.path.rpartition("/")[0]]
            return record.differs_in(zstd.expand(place.read(record.path), spec.span * schema.row_bytes(spec)))
        except (KeyError, ValueError, RuntimeError) as error:
            return f"{record.path}: cannot be decoded ({error})"

    return place.damage(record, look)
