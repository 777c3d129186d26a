"""The zarr.json documents, built as the Zarr v3 specification words them (SPEC.md says which part we use)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from featdyn.store.schema import ArraySpec, Schema

Document: TypeAlias = dict[str, Any]

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


def group(attributes: Mapping[str, Any] | None = None) -> Document:
    """Return the document of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def array(spec: ArraySpec, schema: Schema, checkpoints: int) -> Document:
    """Return the document of an array with a checkpoint axis, at so many checkpoints."""
    chunk, shard = [1, *spec.shape], [1, *spec.shape]
    codecs: list[Document] = [BYTES]
    if spec.sample_axis is not None:
        axis = 1 + spec.sample_axis
        chunk[axis], shard[axis] = schema.chunk_samples(spec), schema.shard_samples
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
        # One folder an array: a shard is then one new name in one folder, and a commit syncs few folders.
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
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
    """Return a document as the bytes of a zarr.json."""
    return json.dumps(document, indent=1, allow_nan=False).encode()


def chunk_key(spec: ArraySpec, checkpoint: int, block: int) -> str:
    """Return the file of one shard, below the store."""
    index = [0] * len(spec.dims)
    if spec.sample_axis is not None:
        index[spec.sample_axis] = block
    return f"{spec.path}/c." + ".".join(map(str, [checkpoint, *index]))


def parse_array(path: str, document: Document) -> ArraySpec:
    """Return the :class:`ArraySpec` that :func:`array` turned into this document."""
    dims = tuple(document["dimension_names"][1:])
    chunk = None
    if "sample" in dims:
        chunk = document["codecs"][0]["configuration"]["chunk_shape"][1 + dims.index("sample")]
    return ArraySpec(
        path, dims, tuple(document["shape"][1:]), document["data_type"], document.get("attributes", {}), chunk
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
