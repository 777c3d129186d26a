"""A writer that was written from engine/featdyn/store/SPEC.md alone (format 1), and takes every freedom that it gives.

Numpy, json, a zstd encoder and what ``spec_reader`` has; no zarr, no featdyn.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import compress

from tests.engine.spec_reader import crc32c

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
ABSENT = 2**64 - 1


class SpecWriter:
    """One store, which is on the disk from :meth:`publish` on.

    Parameters
    ----------
    samples, shard_samples, codec
        As the root says.
    """

    def __init__(self, path: Path, samples: int, shard_samples: int, codec: str) -> None:
        self.path, self.samples, self.shard_samples, self.codec = path, samples, shard_samples, codec
        self.nodes: dict[str, Any] = {}
        self.commits: list[dict[str, Any]] = []
        self.files: list[list[Any]] = []  # of the commit at hand
        self.checkpoints = 0

    def put(self, path: str, content: bytes, *more: Any) -> None:
        """Write a file of the commit at hand; its entry in the manifest may have further items."""
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).write_bytes(content)
        self.files.append([path, len(content), crc32c(content), *more])

    def commit(self, kind: str, name: str, **members: Any) -> None:
        """End a commit: its manifest, which says no more than it must, and its entry in the root."""
        number, files = len(self.commits) + 1, sorted(self.files)
        path = f"commits/{number:06d}.json"
        self.files = []
        self.put(path, json.dumps({"commit": number, "files": files, "tool": "another"}).encode())
        ((_, size, checksum),) = self.files
        self.files = []
        manifest = {"path": path, "size": size, "crc32c": checksum}
        self.commits.append({"number": number, "kind": kind, "name": name, "manifest": manifest, **members})
        self.checkpoints += kind == "checkpoint"

    def group(self, path: str, **attributes: Any) -> None:
        self.nodes[path] = {"zarr_format": 3, "node_type": "group", "attributes": attributes}

    def static(self, path: str, dims: list[str], values: Any, chunk: list[int], **attributes: Any) -> None:
        """Write a static array of numbers, or of text, in chunks of this shape."""
        text = np.asarray(values).dtype.kind in "UO"
        values = np.asarray(values, object if text else None)
        codecs = [{"name": "vlen-utf8"}] if text else [BYTES]
        self.nodes[path] = self._array(values.shape, chunk, "string" if text else values.dtype.name, dims, "/")
        self.nodes[path] |= {"codecs": [*codecs, {"name": "zstd", "configuration": {"level": 3, "checksum": False}}]}
        self.nodes[path] |= {"attributes": attributes, "fill_value": "" if text else 0}
        for index in np.ndindex(*(-(-n // c) for n, c in zip(values.shape, chunk, strict=True))):
            whole = np.full(chunk, "" if text else 0, values.dtype)  # of full length at the edge, too
            part = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))]
            whole[tuple(map(slice, part.shape))] = part
            content = _texts(whole) if text else whole.astype(whole.dtype.newbyteorder("<")).tobytes()
            self.put("/".join([path, "c", *map(str, index)]), bytes(compress(content)))

    def grow(self, path: str, dims: list[str], values: np.ndarray[Any, Any], chunk_samples: int = 0) -> None:
        """Write an array's values at the checkpoint at hand; ``chunk_samples`` of those with a sample axis."""
        shape = list(values.shape)
        axis = dims.index("sample") if "sample" in dims else None
        if axis is not None:
            shape[axis] = self.shard_samples
        node = self._array([0, *values.shape], [1, *shape], values.dtype.name, ["checkpoint", *dims], ".")
        self.nodes[path] = node | {"attributes": {"long_name": f"{path} ✓"}, "codecs": [BYTES]}
        little = values.astype(values.dtype.newbyteorder("<"))
        key = [str(self.checkpoints), *["0"] * len(dims)]
        if axis is None:
            self.put(f"{path}/c.{'.'.join(key)}", little.tobytes())
            return
        inner = [1, *shape]
        inner[1 + axis] = chunk_samples
        codecs = [BYTES] if self.codec == "none" else [BYTES, {"name": "zstd", "configuration": {"level": 5}}]
        index = {"index_codecs": [BYTES, {"name": "crc32c"}], "index_location": "end"}
        node = {"name": "sharding_indexed", "configuration": {"chunk_shape": inner, "codecs": codecs, **index}}
        self.nodes[path]["codecs"] = [node]
        for block in range(-(-self.samples // self.shard_samples)):
            key[1 + axis] = str(block)
            self.put(f"{path}/c.{'.'.join(key)}", self._shard(little, axis, block, chunk_samples), "extra")

    def _shard(self, values: np.ndarray[Any, Any], axis: int, block: int, chunk: int) -> bytes:
        """Return a shard whose inner chunks lie in reverse, with gaps; those of zeros only are absent."""
        payload, index = b"", []
        for k in reversed(range(self.shard_samples // chunk)):
            start = block * self.shard_samples + k * chunk
            part = np.take(values, range(start, min(start + chunk, self.samples)), axis)
            padded = np.zeros([chunk if a == axis else n for a, n in enumerate(values.shape)], values.dtype)
            padded[tuple(map(slice, part.shape))] = part
            if not padded.any():
                index.append((ABSENT, ABSENT))
                continue
            content = padded.tobytes() if self.codec == "none" else bytes(compress(padded.tobytes()))
            payload += b"gap"
            index.append((len(payload), len(content)))
            payload += content
        encoded = np.array(index[::-1], "<u8").tobytes()
        return payload + encoded + crc32c(encoded).to_bytes(4, "little")

    def _array(self, shape: Any, chunk: Any, dtype: str, dims: list[str], separator: str) -> dict[str, Any]:
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(shape),
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
            "fill_value": 0,
            "dimension_names": dims,
            "storage_transformers": [],
        }

    def publish(self, **attributes: Any) -> None:
        """Write the root."""
        for path in [*self.nodes]:
            for depth in range(1, path.count("/") + 1):
                self.nodes.setdefault("/".join(path.split("/")[:depth]), _group())
        for node in self.nodes.values():
            if (node.get("dimension_names") or [""])[0] == "checkpoint":
                node["shape"][0] = self.checkpoints
        loose = [p for p, n in self.nodes.items() if "/" not in p and n.get("dimension_names", [p]) != [p]]
        state = {
            "root_crc32c": "00000000",
            "colour": "blue",  # a reader must ignore what it does not know
            "commits": self.commits,
            "codec": self.codec,
            "shard_samples": self.shard_samples,
            "samples": self.samples,
            "format": 1,
        }
        consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(sorted(self.nodes.items()))}
        root = _group() | {"consolidated_metadata": consolidated}
        root["attributes"] = {"featdyn": state, "coordinates": " ".join(loose), **attributes}
        content = json.dumps(root, indent=1, ensure_ascii=False).encode()
        content = content.replace(b"00000000", b"%08x" % crc32c(content), 1)
        (self.path / "zarr.json").write_bytes(content)


def _group() -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def _texts(values: np.ndarray[Any, Any]) -> bytes:
    words = [str(value).encode() for value in values.ravel()]
    return len(words).to_bytes(4, "little") + b"".join(len(w).to_bytes(4, "little") + w for w in words)
