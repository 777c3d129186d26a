"""What a chunk may decode to, by its array's metadata: asked before zarr decodes it, which trusts the chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from featdyn.errors import StoreError
from featdyn.output import quoted
from featdyn.store import zstd
from featdyn.store.metadata import Document
from featdyn.store.shard import ABSENT, read_index

METADATA = ("/zarr.json", "/.zarray", "/.zattrs", "/.zgroup")
TEXT = 2**28  # bytes of a chunk of text, whose length no metadata say
SLACK = 2**20  # blocks of a frame that does not say its size may be half empty


def check(nodes: Mapping[str, Document], key: str, content: bytes | None, place: object, *, whole: bool) -> None:
    """Raise ValueError where what was read of a chunk's file, all of it or a part, decodes to more than it may.

    Where there is none StoreError: each chunk of what is committed is there, zarr would read zeros. ``place`` is for
    the message.
    """
    document = next((nodes[path] for path in _above(key) if path in nodes), None)
    if document is None or document["node_type"] != "array" or key.endswith(METADATA):
        return
    if content is None:
        raise StoreError(f"{place}: {key} is missing; run: featdyn verify {quoted(place)}")
    codecs, shape = document["codecs"], document["chunk_grid"]["configuration"]["chunk_shape"]
    frames = [content]
    if codecs[0]["name"] == "sharding_indexed":
        inner = codecs[0]["configuration"]
        count = math.prod(n // m for n, m in zip(shape, inner["chunk_shape"], strict=True))
        codecs, shape = inner["codecs"], inner["chunk_shape"]
        if whole:
            index = read_index(lambda start, length: content[start : start + length], len(content), count)
            frames = [content[offset : offset + length] for offset, length in index.tolist() if offset != ABSENT]
    if codecs[-1]["name"] != "zstd":
        return
    text = document["data_type"] == "string"
    expected = TEXT if text else math.prod(shape) * np.dtype(document["data_type"]).itemsize
    for frame in frames:
        if frame[:4] == zstd.MAGIC and zstd.most(frame) > expected + (0 if text else SLACK + expected):
            raise ValueError(f"it decodes to {zstd.most(frame)} bytes instead of {expected}")


def _above(key: str) -> Iterator[str]:
    """Yield the paths of the folders that a file lies in, the innermost first."""
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key
