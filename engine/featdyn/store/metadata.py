"""The zarr.json documents, built as the Zarr v3 specification words them (SPEC.md says which part we use)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from featdyn.store.schema import ArraySpec, Schema

Document: TypeAlias = dict[str, Any]
_json = json.JSONEncoder(allow_nan=False).encode  # json.dumps makes such an encoder anew for each member

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


def group(attributes: Mapping[str, Any] | None = None) -> Document:
    """Return the document of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def array(spec: ArraySpec, schema: Schema, checkpoints: int) -> Document:
    """Return the document of an array with a checkpoint axis, at so many checkpoints."""
    chunk, shard = [1, *spec.shape], [1, *spec.shape]
    codecs: list[Document] = [BYTES]
    # One folder an array: a shard is then one new name in one folder, and a commit syncs few folders.
    keys = {"name": "default", "configuration": {"separator": "."}}
    if spec.sample_axis is not None:
        axis = 1 + spec.sample_axis
        chunk[axis], shard[axis] = schema.chunk_samples(spec), schema.shard_samples
    if spec.span > 1:
        shard[0], codecs = spec.span, [BYTES, ZSTD]
        keys = {"name": "v2", "configuration": {"separator": "."}}  # other names than those of single checkpoints
    elif spec.sample_axis is not None:
        inner = [BYTES] if schema.codec == "none" else [BYTES, ZSTD]
        configuration = {
            "chunk_shape": chunk,
            "codecs": inner,
            "index_codecs": [BYTES, {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [checkpoints, *spec.shape],
        "data_type": np.dtype(spec.dtype).name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": keys,
        "fill_value": np.zeros((), spec.dtype).item(),
        "codecs": codecs,
        "attributes": dict(spec.attrs),
        "dimension_names": ["checkpoint", *spec.dims],
        "storage_transformers": [],
    }


def root(attributes: Mapping[str, Any], nodes: Mapping[str, Document]) -> Document:
    """Return the root group with all nodes below it consolidated: the one file whose replacement is a commit."""
    ordered = {path: nodes[path] for path in sorted(nodes)}
    return {
        **group(attributes),
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": ordered},
    }


def encode(document: Document) -> bytes:
    """Return a document as the bytes of a zarr.json, each member on a line.

    To indent all of it, which Python's encoder in C does not, took a fifth of a commit's own time.
    """
    members = (f"\n {_json(name)}: {_json(value)}" for name, value in document.items())
    return f"{{{','.join(members)}\n}}".encode()


def chunk_key(spec: ArraySpec, checkpoint: int, block: int) -> str:
    """Return the file of one checkpoint's shard, or of the chunk that gathers it with others, below the store."""
    index = [0] * len(spec.dims)
    if spec.sample_axis is not None:
        index[spec.sample_axis] = block
    prefix = "c." if spec.span == 1 else ""
    return f"{spec.path}/{prefix}" + ".".join(map(str, [checkpoint // spec.span, *index]))


def parse_array(path: str, document: Document) -> ArraySpec:
    """Return the :class:`ArraySpec` that :func:`array` turned into this document."""
    dims = tuple(document["dimension_names"][1:])
    chunk, span = None, document["chunk_grid"]["configuration"]["chunk_shape"][0]
    if span > 1 and [codec["name"] for codec in document["codecs"]] != ["bytes", "zstd"]:
        raise ValueError(f"{path}: gathered in another way")
    if span == 1 and "sample" in dims:
        chunk = document["codecs"][0]["configuration"]["chunk_shape"][1 + dims.index("sample")]
    return ArraySpec(
        path, dims, tuple(document["shape"][1:]), document["data_type"], document.get("attributes", {}), chunk, span
    )


def grows(document: Document) -> bool:
    """Whether this is an array with a checkpoint axis."""
    return bool(document["node_type"] == "array" and (document.get("dimension_names") or [])[:1] == ["checkpoint"])


def with_groups(nodes: Mapping[str, Document]) -> dict[str, Document]:
    """Return the nodes together with the groups that lead to them."""
    found = dict(nodes)
    for path in nodes:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            found.setdefault("/".join(parts[:depth]), group())
    return found
