"""A reader written from engine/featdyn/store/SPEC.md alone: numpy, json and a zstd decoder; no zarr, no featdyn."""

from __future__ import annotations

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import decompress

TABLE = [0] * 256
for byte in range(256):
    value = byte
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    TABLE[byte] = value


def crc32c(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value = TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def unpacked(table: Any) -> Any:
    return json.loads(decompress(base64.b64decode(table))) if isinstance(table, str) else table


class SpecReader:
    """One store at one commit."""

    def __init__(self, path: Path) -> None:
        self.path, content = path, (path / "zarr.json").read_bytes()
        found = re.search(rb'"root_crc32c": "([0-9a-f]{8})"', content)
        assert found is not None
        assert int(found[1], 16) == crc32c(content.replace(found[1], b"00000000", 1))
        document = json.loads(content)
        self.state = document["attributes"]["featdyn"]
        assert self.state["format"] in (1, 2, 3)
        self.nodes = document["consolidated_metadata"]["metadata"]
        self.commits = self.state["commits"]
        while self.commits[0]["number"] > 1:
            manifest = json.loads((path / self.commits[0]["manifest"]["path"]).read_bytes())
            log = unpacked(manifest["log"])
            assert log[-1]["number"] == self.commits[0]["number"] - 1
            self.commits = log + self.commits
        self.checkpoints = sum(commit["kind"] == "checkpoint" for commit in self.commits)

    def check(self) -> list[str]:
        """Follow all checksums from the root; return every file that the store consists of."""
        listed, rows, kept = [], {}, []
        for number, commit in enumerate(self.commits, 1):
            manifest = commit["manifest"]
            content = (self.path / manifest["path"]).read_bytes()
            assert (commit["number"], len(content), crc32c(content)) == (number, manifest["size"], manifest["crc32c"])
            document = json.loads(content)
            for name, size, checksum, *_ in document["files"]:
                content = (self.path / name).read_bytes()
                assert (len(content), crc32c(content)) == (size, checksum), name
                listed.append(name)
            table = unpacked(document.get("rows", []))
            rows |= {name: (size, checksum) for name, size, checksum, _ in table}
            kept.append((table, document.get("group", 1), document.get("content")))
        chunks = {name: decompress((self.path / name).read_bytes()) for name in rows}
        for name, (size, checksum) in rows.items():
            assert crc32c(chunks[name][:size]) == checksum, name
        for table, size, content in kept:
            held = decompress(base64.b64decode(content)) if table else b""
            for start in range(0, len(table), size):
                group = table[start : start + size]
                parity = bytearray(max(length for *_, length in group))
                for name, end, _, length in group:
                    row = chunks[name][end - length : end]
                    parity[:length] = bytes(a ^ b for a, b in zip(parity, row, strict=False))
                assert held[: len(parity)] == parity
                held = held[len(parity) :]
            assert not held
        return [*listed, *rows]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return every array."""
        return {path: self.array(path) for path, node in self.nodes.items() if node["node_type"] == "array"}

    def array(self, path: str) -> np.ndarray[Any, Any]:
        """Return one array, chunk by chunk (a shard is a chunk here)."""
        node = self.nodes[path]
        text = node["data_type"] == "string"
        dtype = np.dtype(object if text else node["data_type"]).newbyteorder("<")
        shape, chunk = node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"]
        dims, samples = node.get("dimension_names") or [], self.state["samples"]
        growing = dims[:1] == ["checkpoint"]
        assert not growing or shape[0] == self.checkpoints
        assert not growing or "sample" not in dims or shape[dims.index("sample")] == samples
        keys = node["chunk_key_encoding"]
        separator, first = keys["configuration"]["separator"], {"default": ["c"], "v2": []}[keys["name"]]
        whole = np.empty(shape, dtype)
        for index in itertools.product(*(range(-(-n // c)) for n, c in zip(shape, chunk, strict=True))):
            content = (self.path / path / separator.join([*first, *map(str, index)])).read_bytes()
            values = self.decode(content, node["codecs"], dtype, chunk)
            region = tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))
            room = whole[region].shape
            whole[region] = values[tuple(slice(n) for n in room)]
        mark = node["attributes"].get("missing_value")
        if text and mark is not None:
            whole[whole == mark] = None
        scale = node["attributes"].get("scale_factor")
        return whole if scale is None else whole.astype(np.float32) * np.float32(scale)

    def decode(self, content: bytes, codecs: list[Any], dtype: np.dtype[Any], shape: list[int]) -> np.ndarray[Any, Any]:
        if codecs[0]["name"] == "sharding_indexed":
            return self.shard(content, codecs[0]["configuration"], dtype, shape)
        if [codec["name"] for codec in codecs[1:]] == ["zstd"]:
            content = decompress(content)
        if codecs[0]["name"] == "bytes":
            return np.frombuffer(content, dtype).reshape(shape)
        words, place = [], 4
        for _ in range(int.from_bytes(content[:4], "little")):
            length = int.from_bytes(content[place : place + 4], "little")
            words.append(content[place + 4 : place + 4 + length].decode())
            place += 4 + length
        return np.array(words, dtype=object).reshape(shape)

    def shard(self, content: bytes, how: Any, dtype: np.dtype[Any], shape: list[int]) -> np.ndarray[Any, Any]:
        inner = how["chunk_shape"]
        axis = next((a for a, (n, c) in enumerate(zip(shape, inner, strict=True)) if n != c), 0)
        count = shape[axis] // inner[axis]
        index = content[-4 - 16 * count : -4]
        assert crc32c(index) == int.from_bytes(content[-4:], "little")
        pieces = []
        for offset, length in np.frombuffer(index, "<u8").reshape(-1, 2).tolist():
            absent = offset == length == 2**64 - 1
            piece = content[offset : offset + length]
            pieces.append(np.zeros(inner, dtype) if absent else self.decode(piece, how["codecs"], dtype, inner))
        return np.concatenate(pieces, axis)
