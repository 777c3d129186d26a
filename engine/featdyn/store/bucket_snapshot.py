"""What :mod:`featdyn.store.snapshot` is, of a store in a bucket."""

# ruff: noqa: D102  as zarr says

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from featdyn.errors import StoreError
from featdyn.store import bounds
from featdyn.store.client import QUICK, READING, connect, pauses, plainly
from featdyn.store.metadata import Document
from featdyn.store.root import NAME


class BucketSnapshot(ObjectStore[Any]):
    """A read-only prefix of a bucket that answers for the root metadata from memory."""

    def __init__(self, url: str, content: bytes, nodes: Mapping[str, Document], *, read_only: bool = True) -> None:
        super().__init__(connect(url, QUICK), read_only=read_only)
        self._url, self._content, self._nodes = url, content, nodes

    def with_read_only(self, read_only: bool = False) -> BucketSnapshot:
        return type(self)(self._url, self._content, self._nodes, read_only=read_only)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self._url,)  # without the root, as above

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key == NAME and byte_range is None:
            return prototype.buffer.from_bytes(self._content)
        waits = pauses(READING)
        while True:
            try:
                with plainly():
                    found = await super().get(key, prototype, byte_range)
                break
            except OSError as error:
                pause = next(waits, None) if error.errno == errno.EIO else None
                if pause is None:
                    raise StoreError(f"{self._url}: {key} cannot be read ({error.strerror})") from error
            await asyncio.sleep(pause)
        content = None if found is None else found.to_bytes()
        bounds.check(self._nodes, key, content, self._url, whole=byte_range is None)
        return found


def _opened(url: str) -> ObjectStore[Any]:
    return ObjectStore(connect(url, QUICK), read_only=True)
