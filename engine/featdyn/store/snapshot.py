"""A folder's store as of one commit, for zarr and xarray: its root as it was read, everything else from its place.

What is committed never changes, so the root alone decides what is seen: a run that is being written grows for those who
open it again, not under the hands of those who have it open.
"""

# ruff: noqa: D102  as zarr says

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from featdyn.store import bounds
from featdyn.store.files import Folder
from featdyn.store.metadata import Document
from featdyn.store.root import NAME


class Snapshot(LocalStore):
    """A read-only local store that answers for the root metadata from memory."""

    def __init__(self, path: Path, content: bytes, nodes: Mapping[str, Document], *, read_only: bool = True) -> None:
        super().__init__(path, read_only=read_only)
        self._content, self._nodes = content, nodes

    def with_read_only(self, read_only: bool = False) -> Snapshot:
        return type(self)(self.root, self._content, self._nodes, read_only=read_only)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is sent to another process has its metadata already, and should not carry the whole root.
        return partial(LocalStore, read_only=True), (self.root,)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if key != NAME or byte_range is not None or prototype is None:
            there = Folder(self.root).inside(key).is_file()
            found = await super().get(key, prototype, byte_range) if there else None
            content = None if found is None else found.to_bytes()
            bounds.check(self._nodes, key, content, self.root, whole=byte_range is None)
            return found
        return prototype.buffer.from_bytes(self._content)
