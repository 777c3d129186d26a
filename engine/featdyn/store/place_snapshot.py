"""What :mod:`featdyn.store.snapshot` is, of a store at a place of any other kind."""

# ruff: noqa: D102  as zarr says

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import NoReturn

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from featdyn.store import bounds
from featdyn.store.metadata import Document
from featdyn.store.place import GONE, Place
from featdyn.store.record import Content
from featdyn.store.root import NAME


class PlaceSnapshot(Store):
    """A place, read-only, that answers for the root metadata from memory."""

    supports_writes = supports_deletes = False
    supports_listing = True

    def __init__(self, place: Place, content: bytes, nodes: Mapping[str, Document]) -> None:
        super().__init__(read_only=True)
        self._place, self._content, self._nodes = place, content, nodes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlaceSnapshot) and (self._place, self._content) == (other._place, other._content)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key == NAME and byte_range is None:
            return prototype.buffer.from_bytes(self._content)
        try:
            found = bytes(await asyncio.to_thread(self._read, key, byte_range))
        except GONE:
            bounds.check(self._nodes, key, None, self._place, whole=byte_range is None)
            return None
        bounds.check(self._nodes, key, found, self._place, whole=byte_range is None)
        return prototype.buffer.from_bytes(found)

    def _read(self, key: str, wanted: ByteRequest | None) -> Content:
        self._place.inside(key)
        if wanted is None:
            return self._place.read(key)
        if isinstance(wanted, RangeByteRequest):
            return self._place.part(key, wanted.start, wanted.end - wanted.start)
        size = self._place.size(key)
        start = wanted.offset if isinstance(wanted, OffsetByteRequest) else max(0, size - wanted.suffix)
        return self._place.part(key, start, size - start)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, wanted) for key, wanted in key_ranges]

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._place.exists, key)

    async def set(self, key: str, value: Buffer) -> NoReturn:
        self._check_writable()
        raise AssertionError

    async def delete(self, key: str) -> NoReturn:
        self._check_writable()
        raise AssertionError

    async def list(self) -> AsyncIterator[str]:
        for path, _ in self._place.walk():
            yield path

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for path, _ in self._place.walk():
            if path.startswith(prefix):
                yield path

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        for name in dict.fromkeys(p[len(below) :].split("/")[0] for p, _ in self._place.walk() if p.startswith(below)):
            yield name
