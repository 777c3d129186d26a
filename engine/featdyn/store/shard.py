"""One shard, encoded and decoded in one piece.

A shard holds one checkpoint and one block of samples of one array (SPEC.md). Its inner chunks hold whole samples, so
uncompressed it is the block's own bytes followed by an index: one pass, one file, one checksum. zarr reads it as any
``sharding_indexed`` array; writing it here instead of through zarr gives durability (zarr never syncs) and the checksum
for the commit record without reading the file again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from mmap import mmap
from typing import Any

import numpy as np
from numcodecs.zstd import compress, decompress

from featdyn.store.files import crc32c
from featdyn.store.schema import ArraySpec, Schema

ABSENT = 2**64 - 1  # offset and length of an inner chunk that lies beyond the array's edge
ZSTD_LEVEL = 1


def encode(block: np.ndarray[Any, Any], spec: ArraySpec, schema: Schema) -> Iterator[bytes]:
    """Yield the bytes of one shard, piece by piece.

    Parameters
    ----------
    block
        One checkpoint and one block of samples, with the axes of ``spec.dims``; at the array's edge it is shorter.
    """
    little = np.ascontiguousarray(block, dtype=np.dtype(spec.dtype).newbyteorder("<"))
    axis = spec.sample_axis
    if axis is None:
        yield little.tobytes()
        return
    chunk = schema.chunk_samples(spec)
    index = np.full((schema.shard_samples // chunk, 2), ABSENT, dtype="<u8")
    offset = 0
    for i, start in enumerate(range(0, little.shape[axis], chunk)):
        piece = little[(slice(None),) * axis + (slice(start, start + chunk),)]
        short = chunk - piece.shape[axis]
        if short:  # zarr's chunks are always full: the edge is padded with the fill value
            piece = np.pad(piece, [(0, short if i == axis else 0) for i in range(piece.ndim)])
        content = piece.tobytes() if schema.codec == "none" else compress(piece.tobytes(), ZSTD_LEVEL)
        index[i] = offset, len(content)
        offset += len(content)
        yield content
    encoded = index.tobytes()
    yield encoded + crc32c(encoded).to_bytes(4, "little")


def decode(content: bytes | mmap, spec: ArraySpec, schema: Schema, rows: int) -> np.ndarray[Any, Any]:
    """Return the block of ``rows`` samples that a shard holds; the inverse of :func:`encode`."""
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    axis = spec.sample_axis
    if axis is None:
        return np.frombuffer(content, dtype).reshape(spec.shape)
    shape = list(spec.shape)
    if schema.codec == "none" and math.prod(shape[:axis]) == 1:  # the payload is the block itself: no copy
        shape[axis] = rows
        return np.frombuffer(content, dtype, math.prod(shape)).reshape(shape)
    chunk = schema.chunk_samples(spec)
    shape[axis] = chunk
    tail = schema.shard_samples // chunk * 16
    view = memoryview(content)
    index = np.frombuffer(view[-4 - tail : -4], "<u8").reshape(-1, 2)
    pieces = []
    for offset, size in index[: -(-rows // chunk)].tolist():
        piece = view[offset : offset + size]
        raw = piece if schema.codec == "none" else decompress(piece)
        pieces.append(np.frombuffer(raw, dtype).reshape(shape))
    whole = np.concatenate(pieces, axis=axis)
    return whole[(slice(None),) * axis + (slice(rows),)]
