"""One shard, encoded and decoded in one piece.

A shard holds one checkpoint and one block of samples of one array (SPEC.md). Its inner chunks hold whole samples, so
uncompressed it is the block's own bytes followed by an index: one pass, one file, one checksum. zarr reads it as any
``sharding_indexed`` array; writing it here instead of through zarr gives durability (zarr never syncs) and the checksum
for the commit record without reading the file again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from featdyn.store import zstd
from featdyn.store.record import Content, crc32c
from featdyn.store.schema import ArraySpec, Schema

ABSENT = 2**64 - 1  # offset and length of an inner chunk that lies beyond the array's edge


def encode(block: np.ndarray[Any, Any], spec: ArraySpec, schema: Schema) -> Iterator[bytes]:
    """Yield the bytes of one shard, piece by piece, of a block with the axes of ``spec.dims``, shorter at the edge."""
    little = np.ascontiguousarray(block, dtype=np.dtype(spec.dtype).newbyteorder("<"))
    axis = spec.sample_axis
    if axis is None:
        yield little.tobytes()
        return
    chunk = schema.chunk_samples(spec)
    index = np.full((schema.shard_samples // chunk, 2), ABSENT, dtype="<u8")
    offset = 0
    squeeze = zstd.stored
    if schema.codec == "zstd" and zstd.pays(little):
        squeeze = partial(zstd.compress, level=zstd.FAST)
    for i, start in enumerate(range(0, little.shape[axis], chunk)):
        piece = little[(slice(None),) * axis + (slice(start, start + chunk),)]
        piece = padded(piece, axis, chunk)
        content = piece.tobytes() if schema.codec == "none" else squeeze(np.ascontiguousarray(piece))
        index[i] = offset, len(content)
        offset += len(content)
        yield content
    encoded = index.tobytes()
    yield encoded + crc32c(encoded).to_bytes(4, "little")


def padded(values: np.ndarray[Any, Any], axis: int, length: int) -> np.ndarray[Any, Any]:
    """Return values with the fill value behind them along an axis: zarr's chunks are full, also at the edge."""
    if values.shape[axis] == length:
        return values
    whole = np.zeros((*values.shape[:axis], length, *values.shape[axis + 1 :]), values.dtype)
    whole[(slice(None),) * axis + (slice(values.shape[axis]),)] = values
    return whole


def decode(content: Content, spec: ArraySpec, schema: Schema, rows: int) -> np.ndarray[Any, Any]:
    """Return the block of ``rows`` samples that a shard holds, whoever wrote it, as a view where that is possible.

    Raises ValueError or RuntimeError if the shard is damaged.
    """
    view = memoryview(content)
    return select(lambda start, length: view[start : start + length], len(view), spec, schema, slice(0, rows))


def select(
    part: Callable[[int, int], Content], size: int, spec: ArraySpec, schema: Schema, rows: slice
) -> np.ndarray[Any, Any]:
    """Return some samples of a shard of ``size`` bytes, as :func:`decode` does.

    ``part`` gives bytes of it, from a start on and of a length: it is asked for the index, and for the chunks that hold
    these samples.
    """
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    axis, shape = spec.sample_axis, list(spec.shape)
    if axis is None:
        return np.frombuffer(part(0, size), dtype).reshape(shape)
    chunk = schema.chunk_samples(spec)
    first, last = rows.start // chunk, -(-rows.stop // chunk)
    index = read_index(part, size, schema.shard_samples // chunk)[first:last]
    length = spec.sample_bytes * chunk
    starts = np.arange(first, last) * length
    in_order = np.array_equal(index, np.stack([starts, np.full(len(starts), length)], axis=1))
    if schema.codec == "none" and in_order and math.prod(shape[:axis]) == 1:  # the payload is the block itself
        shape[axis] = rows.stop - rows.start
        payload = part(rows.start * spec.sample_bytes, shape[axis] * spec.sample_bytes)
        return np.frombuffer(payload, dtype).reshape(shape)
    before = (slice(None),) * axis
    shape[axis] = chunk * len(index)
    whole = np.empty(shape, dtype)  # filled chunk by chunk, so that no second copy of all of them is held
    for i, (offset, length) in enumerate(index.tolist()):
        mine = whole[(*before, slice(i * chunk, (i + 1) * chunk))]
        if offset == length == ABSENT:  # a chunk of fill values, which other writers leave out
            mine[...] = 0
            continue
        if offset + length > size:
            raise ValueError("its index is damaged")
        piece = part(offset, length)
        if schema.codec == "none":
            mine[...] = np.frombuffer(piece, dtype).reshape(mine.shape)
        elif mine.flags.c_contiguous:
            zstd.expand_into(piece, mine)
        else:
            mine[...] = zstd.expand(piece, mine.nbytes).view(dtype).reshape(mine.shape)
    return whole[(*before, slice(rows.start - first * chunk, rows.stop - first * chunk))]


def read_index(part: Callable[[int, int], Content], size: int, chunks: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return offset and length of each inner chunk: what a shard ends with, before the checksum of just that."""
    length = 16 * chunks
    found = bytes(part(size - length - 4, length + 4)) if size >= length + 4 else b""
    if len(found) != length + 4 or crc32c(found[:-4]) != int.from_bytes(found[-4:], "little"):
        raise ValueError("its index is damaged")
    return np.frombuffer(found[:-4], "<u8").reshape(-1, 2)
