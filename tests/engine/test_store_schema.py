"""How arrays are cut into chunks and shards, and the documents that say so: beside the limits and zarr's own."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.metadata import ArrayV3Metadata

from featdyn.store import metadata
from featdyn.store.schema import DTYPES, ArraySpec, Codec, Schema, check_name

CHUNK_BYTES, SHARD_BYTES, GATHERED_BYTES, SHARD_SAMPLES = 2**18, 2**25, 2**16, 1024
"""As SPEC.md has them."""
LENGTHS = st.lists(st.sampled_from([1, 2, 3, 7, 64, 255, 256, 257, 4096]), max_size=3)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    samples, arrays = draw(st.integers(1, 3000)), []
    for number in range(draw(st.integers(1, 3))):
        shape = draw(LENGTHS)
        dims = [f"d{i}" for i in range(len(shape))]
        if draw(st.booleans()):
            at = draw(st.integers(0, len(shape)))
            shape.insert(at, samples)
            dims.insert(at, "sample")
        dtype, attributes = draw(st.sampled_from(DTYPES)), {"units": "1", "n": number}
        arrays.append(ArraySpec(f"layers/{number}/activation", tuple(dims), tuple(shape), dtype, attributes))
    return Schema.build(arrays, samples, draw(st.sampled_from(["none", "zstd"])))


def is_power_of_two(n: int) -> bool:
    return n.bit_count() == 1


@given(schemas())
def test_blocks_are_as_large_as_limits_allow(schema: Schema) -> None:
    per_sample = max((a.sample_bytes for a in schema.arrays if "sample" in a.dims), default=1)
    block = schema.shard_samples
    assert is_power_of_two(block)
    assert block == 1 or (block <= SHARD_SAMPLES and block * per_sample <= SHARD_BYTES and block < 2 * schema.samples)
    twice = 2 * block
    assert twice > SHARD_SAMPLES or twice * per_sample > SHARD_BYTES or block >= schema.samples
    parts = [schema.block_slice(i) for i in range(schema.blocks)]
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(schema.samples))
    assert all(part.stop - part.start == block for part in parts[:-1])


@given(schemas())
def test_chunks_and_spans_are_as_large_as_limits_allow(schema: Schema) -> None:
    for spec in schema.arrays:
        size = np.dtype(spec.dtype).itemsize
        one = size * int(
            np.prod([n for n, dim in zip(spec.shape, spec.dims, strict=True) if dim != "sample"], dtype=int)
        )
        assert spec.sample_bytes == one
        assert spec.nbytes == size * int(np.prod(spec.shape, dtype=int))
        row = one * (schema.shard_samples if "sample" in spec.dims else 1)
        assert schema.row_bytes(spec) == row
        assert is_power_of_two(spec.span)
        assert spec.span == 1 or spec.span * row <= GATHERED_BYTES
        assert 2 * spec.span * row > GATHERED_BYTES
        chunk = schema.chunk_samples(spec)
        assert is_power_of_two(chunk)
        assert schema.shard_samples % chunk == 0
        assert chunk == 1 or chunk * one <= CHUNK_BYTES
        assert chunk == schema.shard_samples or 2 * chunk * one > CHUNK_BYTES


@given(schemas(), st.integers(0, 5000), st.data())
def test_documents_are_what_zarr_reads_and_files_have_its_names(
    schema: Schema, checkpoints: int, data: st.DataObject
) -> None:
    for spec in schema.arrays:
        document = metadata.array(spec, schema, checkpoints)
        theirs = ArrayV3Metadata.from_dict(json.loads(metadata.encode(document)))
        assert theirs.shape == (checkpoints, *spec.shape)
        assert theirs.dimension_names == ("checkpoint", *spec.dims)
        assert theirs.dtype.to_native_dtype() == np.dtype(spec.dtype)
        assert theirs.fill_value == 0
        assert theirs.attributes == spec.attrs
        outer = theirs.chunk_grid.chunk_shape  # type: ignore[attr-defined]
        block = data.draw(st.integers(0, schema.blocks - 1)) if "sample" in spec.dims else 0
        at = [0 if dim != "sample" else block for dim in spec.dims]
        for length, whole, dim in zip(outer[1:], spec.shape, spec.dims, strict=True):
            assert length == (schema.shard_samples if dim == "sample" else whole)
        assert outer[0] == spec.span
        for t in {0, spec.span - 1, spec.span, checkpoints}:
            key = theirs.encode_chunk_key((t // spec.span, *at))
            assert metadata.chunk_key(spec, t, block) == f"{spec.path}/{key}"
        back = metadata.parse_array(spec.path, document)
        assert (back, back.attrs, back.span) == (spec, spec.attrs, spec.span)
        if spec.span == 1 and "sample" in spec.dims:
            (codec,) = theirs.codecs
            inner = codec.chunk_shape[1 + spec.dims.index("sample")]  # type: ignore[attr-defined]
            assert back.chunk == inner == schema.chunk_samples(spec)
            packed = [one["name"] for one in document["codecs"][0]["configuration"]["codecs"]]
            assert packed == (["bytes"] if schema.codec == "none" else ["bytes", "zstd"])
        else:
            assert back.chunk is None
        assert metadata.grows(document)


def test_what_gathers_in_another_way_is_refused() -> None:
    spec = ArraySpec("a", ("d",), (3,), "float32")
    schema = Schema.build([spec], 5)
    document = metadata.array(schema["a"], schema, 2)
    assert schema["a"].span > 1
    document["codecs"] = document["codecs"][:1]
    with pytest.raises(ValueError, match="a: gathered in another way"):
        metadata.parse_array("a", document)


def test_documents_hold_numbers_and_lead_to_every_node() -> None:
    assert json.loads(metadata.encode({"a": [1, {"b": "é"}], "c": {}})) == {"a": [1, {"b": "é"}], "c": {}}
    with pytest.raises(ValueError, match="JSON"):
        metadata.encode({"a": float("nan")})
    leaf: dict[str, Any] = {"node_type": "array", "dimension_names": ["sample"]}
    found = metadata.with_groups({"a/b/c": leaf, "d": leaf})
    assert found == {"a/b/c": leaf, "d": leaf, "a": metadata.group(), "a/b": metadata.group()}
    assert not metadata.grows(leaf)
    assert not metadata.grows(metadata.group())
    assert not metadata.grows({"node_type": "array", "dimension_names": None})
    whole = metadata.root({"x": 1}, found)
    assert list(whole["consolidated_metadata"]["metadata"]) == ["a", "a/b", "a/b/c", "d"]
    assert whole["attributes"] == {"x": 1}


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 1023, 1024, 1025])
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_block_is_no_longer_than_the_samples_need(samples: int, codec: Codec) -> None:
    schema = Schema.build([ArraySpec("a", ("sample",), (samples,), "int8")], samples, codec)
    assert schema.shard_samples == min(1024, next(2**k for k in range(11) if 2**k >= min(samples, 1024)))
    assert schema.codec == codec


def test_names_up_to_their_length() -> None:
    assert check_name("é" * 100, "layer") == "é" * 100  # 200 bytes
    with pytest.raises(Exception, match="at most 200 bytes"):
        check_name("é" * 100 + "a", "layer")
