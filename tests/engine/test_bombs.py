"""A few bytes that stand for gigabytes are refused before they grow, by their array's metadata."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import compress

from featdyn.errors import StoreError
from featdyn.query import query
from featdyn.store import Run, bounds, commit, verify, zstd
from featdyn.store.bounds import TEXT
from featdyn.store.commit import Listing
from featdyn.store.place import DOCUMENT
from featdyn.store.record import crc32c
from tests.engine.memory import peak
from tests.engine.runs import refused, write_run
from tests.engine.synthetic_run import make_run

HUGE = 2**31


def bomb(size: int = HUGE, *, declared: bool) -> bytes:
    """Return a frame of zeros: blocks of 128 KiB that are one byte, repeated."""
    head = b"\xc0" + b"\x38" + size.to_bytes(8, "little") if declared else b"\x00\x38"
    count = size // zstd.BLOCK
    blocks = [(zstd.BLOCK << 3 | 1 << 1 | (i == count - 1)).to_bytes(3, "little") + b"\0" for i in range(count)]
    return zstd.MAGIC + head + b"".join(blocks)


def small(call: Callable[[], Any], message: str) -> None:
    assert peak(lambda: refused(call, message)) < 2**27


@pytest.mark.parametrize("declared", [False, True])
def test_a_bomb_is_one(declared: bool) -> None:
    content = bomb(2**24, declared=declared)
    assert zstd.declared(content) == (2**24 if declared else None)
    assert zstd.most(content) == 2**24
    assert not zstd.expand(content, 2**24).any()  # it can be decoded
    assert len(bomb(declared=declared)) < 80_000


@pytest.mark.parametrize("declared", [False, True])
def test_a_shard(tmp_path: Path, declared: bool) -> None:
    run = write_run(tmp_path / "run.zarr", "zstd", 2)
    frame = bomb(declared=declared)
    index = np.array([[0, len(frame)]], "<u8").tobytes()
    path = "layers/stem/activation"
    (run.path / path / "c.1.0.0.0").write_bytes(frame + index + crc32c(index).to_bytes(4, "little"))
    small(lambda: run.block(path, 1, 0), r"c\.1\.0\.0\.0 cannot be read")
    small(lambda: run.values(path), f"{path} cannot be read .it decodes to {HUGE} bytes instead of")
    small(lambda: query(run, "layers.stem.activation"), r"c\.1\.0\.0\.0 cannot be read")
    with pytest.raises(ValueError, match="it decodes to"):
        run.tree[path].load()
    assert len(verify(run.path).problems) == 1
    np.testing.assert_array_equal(run.block(path, 0, 0).shape, (4, 3, 2))


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("path", ["step/0", "cube/activation_norm/0.0.0"])
def test_a_chunk_of_several_checkpoints(tmp_path: Path, path: str, declared: bool) -> None:
    run = make_run(tmp_path / "run.zarr", checkpoints=2)
    (run.path / path).write_bytes(bomb(declared=declared))
    name = path.rpartition("/")[0]
    small(lambda: run.block(name, 1, 0), "cannot be read")
    small(lambda: run.values(name), f"it decodes to {HUGE} bytes instead of")
    assert peak(lambda: verify(run.path)) < 2**27
    assert verify(run.path).mendable == (path,)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("name", ["label", "sample"])
def test_a_coordinate(tmp_path: Path, name: str, declared: bool) -> None:
    run = make_run(tmp_path / "run.zarr", checkpoints=1)
    (run.path / name / "c" / "0").write_bytes(bomb(declared=declared))
    expected = TEXT if name == "sample" else 8 * run.schema.samples
    small(lambda: run.values(name), f"it decodes to {HUGE} bytes instead of {expected}")
    small(lambda: run.coords, "cannot be read")


def test_what_a_manifest_holds(tmp_path: Path) -> None:
    document = {"files": [], "rows": [["a/0", 8, 0, 8]], "content": base64.b64encode(bomb(declared=False)).decode()}

    def parse() -> None:
        with pytest.raises((ValueError, RuntimeError)):
            Listing.parse(document)

    assert peak(parse) < 2**27


def test_a_root_or_manifest_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run.zarr", checkpoints=2)
    os.truncate(run.path / "commits/000002.json", 2**36)  # a hole
    small(lambda: Run(run.path), rf"commits/000002\.json: {2**36} bytes instead of \d+")
    assert peak(lambda: verify(run.path)) < 2**27
    monkeypatch.setattr(commit, "DOCUMENT", 100)
    assert "too large for a manifest" in str(run.commits[0].listed(run.place))
    os.truncate(run.path / "zarr.json", DOCUMENT + 1)
    small(lambda: Run(run.path), "is too large")


@given(st.binary(max_size=3000), st.sampled_from([1, 3, -5]), st.integers(-2, 2))
def test_a_frame_holds_what_is_expected_or_is_refused(content: bytes, level: int, off: int) -> None:
    frame = bytes(compress(content * 40, level))
    size = len(content) * 40
    assert zstd.declared(frame) == zstd.most(frame) == size
    assert zstd.expand(frame, size).tobytes() == content * 40
    if off and size + off >= 0:
        with pytest.raises((ValueError, RuntimeError)):
            zstd.expand(frame, size + off)


@given(st.binary(max_size=60))
def test_any_bytes_are_no_frame_or_one(content: bytes) -> None:
    for frame in (content, zstd.MAGIC + content):
        with pytest.raises((ValueError, RuntimeError, StoreError)):
            zstd.expand(frame, 12345)


def repeated(size: int) -> bytes:
    """Return a frame that does not say its size: blocks of one byte, so many times in all."""
    lengths = [zstd.BLOCK] * (size // zstd.BLOCK) + [size % zstd.BLOCK]
    blocks = [(n << 3 | 1 << 1 | (i + 1 == len(lengths))).to_bytes(3, "little") + b"\0" for i, n in enumerate(lengths)]
    return zstd.MAGIC + b"\x00\x38" + b"".join(blocks)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 2 * 4 * 6 + bounds.SLACK), ("string", TEXT)])
def test_a_chunk_decodes_to_so_much_at_most(dtype: str, most: int, sharded: bool) -> None:
    """Twice what its array says and a MiB, where the frame does not say its size; of text what is allowed for text."""
    packed: list[dict[str, Any]] = [{"name": "bytes"}, {"name": "zstd"}]
    document = {"node_type": "array", "data_type": dtype, "codecs": packed}
    document["chunk_grid"] = {"configuration": {"chunk_shape": [2, 3]}}
    if sharded:
        inner = {"chunk_shape": [2, 3], "codecs": packed}
        document["codecs"] = [{"name": "sharding_indexed", "configuration": inner}]
        document["chunk_grid"] = {"configuration": {"chunk_shape": [4, 3]}}
    for size, fits in ((most, True), (most + 1, False)):
        frame = repeated(size)
        index = np.array([[2**64 - 1, 2**64 - 1], [0, len(frame)]], "<u8").tobytes()
        whole = frame + index + crc32c(index).to_bytes(4, "little") if sharded else frame
        for content, is_whole in ((whole, True), (frame, False)):
            for key in ("a/b/c/0/0", "a/b/0.0"):
                if fits:
                    bounds.check({"a/b": document}, key, content, "r", whole=is_whole)
                    continue
                with pytest.raises(ValueError, match=f"decodes to {size} bytes instead of"):
                    bounds.check({"a/b": document}, key, content, "r", whole=is_whole)
    for key in ("a/b/zarr.json", "c/0", "a/0"):  # no chunk of it
        bounds.check({"a/b": document, "a": {"node_type": "group"}}, key, None, "r", whole=True)
    refused(lambda: bounds.check({"a/b": document}, "a/b/c/0/0", None, "r", whole=True), "r: a/b/c/0/0 is missing; run")
