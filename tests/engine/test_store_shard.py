"""A shard beside the array that it was made of: whole, some of its samples, in any order of chunks, and damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featdyn.store import shard
from featdyn.store.record import crc32c
from featdyn.store.schema import ArraySpec, Codec, Schema

Array = np.ndarray[Any, Any]
BLOCK = 8


@st.composite
def shards(draw: st.DrawFn) -> tuple[Array, ArraySpec, Schema, bytes]:
    """A block of 1 to 8 samples along any axis, in inner chunks of 1 to 8, and its shard."""
    samples, at = draw(st.integers(1, BLOCK)), draw(st.integers(0, 2))
    shape = draw(st.lists(st.integers(1, 3), min_size=at, max_size=3))
    dims = [f"d{i}" for i in range(len(shape))]
    shape.insert(at, samples)
    dims.insert(at, "sample")
    dtype, codec = draw(st.sampled_from(["int8", "float16", "float64"])), draw(st.sampled_from(["none", "zstd"]))
    spec = ArraySpec("a", tuple(dims), tuple(shape), dtype, chunk=draw(st.sampled_from([1, 2, 4, 8])))
    schema = Schema((spec,), samples, BLOCK, codec)
    # What pays to compress, and what is stored as it is.
    kinds = draw(st.sampled_from([2, 100]))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, kinds, shape).astype(dtype)
    return values, spec, schema, b"".join(shard.encode(values, spec, schema))


def index_of(content: bytes, chunks: int) -> Array:
    assert crc32c(content[-16 * chunks - 4 : -4]) == int.from_bytes(content[-4:], "little")
    return np.frombuffer(content[-16 * chunks - 4 : -4], "<u8").reshape(-1, 2)


@given(shards(), st.data())
def test_samples_read_back_and_no_more_chunks_are_read_than_hold_them(
    made: tuple[Array, ArraySpec, Schema, bytes], data: st.DataObject
) -> None:
    values, spec, schema, content = made
    axis, samples, chunks = spec.dims.index("sample"), schema.samples, BLOCK // (spec.chunk or 1)
    np.testing.assert_array_equal(shard.decode(content, spec, schema, samples), values)
    start = data.draw(st.integers(0, samples - 1))
    stop = data.draw(st.integers(start + 1, samples))
    read: list[tuple[int, int]] = []

    def part(first: int, length: int) -> bytes:
        read.append((first, first + length))
        return content[first : first + length]

    found = shard.select(part, len(content), spec, schema, slice(start, stop))
    np.testing.assert_array_equal(found, values.take(range(start, stop), axis))
    assert found.dtype == spec.dtype
    index = index_of(content, chunks)
    used = [i for i in range(chunks) if i * (spec.chunk or 1) < stop and (i + 1) * (spec.chunk or 1) > start]
    assert sum(end - first for first, end in read[1:]) <= sum(int(index[i, 1]) for i in used)
    there = index[:, 0] != 2**64 - 1
    assert there.tolist() == [i * (spec.chunk or 1) < samples for i in range(chunks)]


@given(shards(), st.data())
def test_chunks_in_another_order_with_gaps_and_left_out_are_read(
    made: tuple[Array, ArraySpec, Schema, bytes], data: st.DataObject
) -> None:
    """As other writers may leave them; one of zeros need not be there."""
    values, spec, schema, content = made
    axis, chunks, chunk = spec.dims.index("sample"), BLOCK // (spec.chunk or 1), spec.chunk or 1
    index, body = index_of(content, chunks).copy(), data.draw(st.sampled_from([b"", b"gap"]))
    used = np.flatnonzero(index[:, 0] != 2**64 - 1)
    left_out = data.draw(st.sets(st.sampled_from(used.tolist())))
    expected = values.copy()
    for i in data.draw(st.permutations(used.tolist())):
        offset, length = index[i].tolist()
        if i in left_out:
            index[i] = 2**64 - 1
            expected[(slice(None),) * axis + (slice(i * chunk, (i + 1) * chunk),)] = 0
            continue
        index[i] = len(body), length
        body += content[offset : offset + length] + data.draw(st.sampled_from([b"", b"-"]))
    table = index.tobytes()
    whole = body + table + crc32c(table).to_bytes(4, "little")
    np.testing.assert_array_equal(shard.decode(whole, spec, schema, schema.samples), expected)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_shard_that_ends_anywhere_or_points_behind_its_end_is_damaged(codec: Codec) -> None:
    spec = ArraySpec("a", ("sample", "f"), (5, 2), "int16", chunk=2)
    schema = Schema((spec,), 5, BLOCK, codec)
    content = b"".join(shard.encode(np.arange(10, dtype="int16").reshape(5, 2), spec, schema))
    for length in range(len(content)):
        with pytest.raises((ValueError, RuntimeError)):
            shard.decode(content[:length], spec, schema, 5)
    index, size = index_of(content, 4).copy(), len(content)
    last = index[2].copy()
    for offset, length, fits in ((size - int(last[1]), last[1], True), (size - int(last[1]) + 1, last[1], False)):
        index[2] = offset, length
        table = index.tobytes()
        moved = content[: -len(table) - 4] + table + crc32c(table).to_bytes(4, "little")
        # What lies there is the index itself: no damage of the table, whatever it decodes to.
        said = "decoded|zstd|frame" if fits and codec == "zstd" else "its index is damaged"
        if fits and codec == "none":
            assert shard.decode(moved, spec, schema, 5).shape == (5, 2)
            continue
        with pytest.raises((ValueError, RuntimeError), match=said):
            shard.decode(moved, spec, schema, 5)


def test_one_value_for_a_checkpoint_is_itself() -> None:
    spec = ArraySpec("a", ("d",), (3,), "float32")
    schema = Schema((spec,), 5, BLOCK)
    content = b"".join(shard.encode(np.array([1, 2, 3], ">f4"), spec, schema))
    assert content == np.array([1, 2, 3], "<f4").tobytes()
    assert shard.decode(content, spec, schema, 1).tolist() == [1, 2, 3]


def test_what_does_not_pay_to_be_compressed_is_stored_as_it_is() -> None:
    spec = ArraySpec("a", ("sample", "f"), (8, 4096), "uint8", chunk=2)
    schema = Schema((spec,), 8, BLOCK, "zstd")
    draw = np.random.default_rng(0)
    for kinds, stored in ((256, True), (4, False)):
        values = draw.integers(0, kinds, (8, 4096), dtype=np.uint8)
        index = index_of(b"".join(shard.encode(values, spec, schema)), 4)
        lengths = index[:, 1].tolist()
        assert lengths == [2 * 4096 + 16] * 4 if stored else all(n < 4096 for n in lengths)
    whole = b"".join(shard.encode(values, spec, replace(schema, codec="none")))
    assert index_of(whole, 4)[:, 1].tolist() == [2 * 4096] * 4
