"""Roots with a right checksum that contradict themselves are refused; what is as large as it may be is taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featdyn.store import ArraySpec, Run, RunWriter, Schema, metadata, seal
from featdyn.store import schema as schemas
from featdyn.store.root import FORMAT, LARGEST, Root
from tests.engine.runs import refused, write_run
from tests.engine.synthetic_run import make_run

Change = Callable[[dict[str, Any], dict[str, Any], list[dict[str, Any]]], object]
"""Of what is ours in the attributes, of the nodes, and of the list of commits."""
GRADIENT = "layers/stem/gradient"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints and two results."""
    return write_run(tmp_path_factory.mktemp("roots") / "run.zarr", checkpoints=2).path


def changed(store: Path, change: Change) -> bytes:
    document = json.loads((store / "zarr.json").read_bytes())
    state = document["attributes"]["featdyn"]
    change(state, document["consolidated_metadata"]["metadata"], state["commits"])
    state["root_crc32c"] = seal.UNSET
    return seal.seal(metadata.encode(document), "root_crc32c")


def shapes(nodes: dict[str, Any], checkpoints: int) -> None:
    for node in nodes.values():
        if (node.get("dimension_names") or [""])[0] == "checkpoint":
            node["shape"][0] = checkpoints


def without_first(state: dict[str, Any], nodes: dict[str, Any], commits: list[dict[str, Any]]) -> None:
    commits[0] |= {"kind": "result", "name": "results/r/000001"}
    commits[1]["name"] = "0"
    shapes(nodes, 1)


def grid(nodes: dict[str, Any], path: str) -> list[int]:
    found: list[int] = nodes[path]["chunk_grid"]["configuration"]["chunk_shape"]
    return found


def inner(nodes: dict[str, Any], path: str) -> list[int]:
    found: list[int] = nodes[path]["codecs"][0]["configuration"]["chunk_shape"]
    return found


CONTRADICTIONS: dict[str, Change] = {
    "a number is left out": lambda s, n, c: c[3].update(number=5),
    "a number twice": lambda s, n, c: c[3].update(number=3),
    "checkpoints with a gap": lambda s, n, c: c[1].update(name="2"),
    "no commits": lambda s, n, c: c.clear(),
    "a result is the first": without_first,
    "a result of no name": lambda s, n, c: c[2].update(name="elsewhere/r/000003"),
    "a kind that is no text": lambda s, n, c: c[2].update(kind=3),
    "attributes that are a list": lambda s, n, c: n["label"].update(attributes=[]),
    "fewer rows than commits": lambda s, n, c: n["step"]["shape"].__setitem__(0, 1),
    "more rows than commits": lambda s, n, c: n["step"]["shape"].__setitem__(0, 3),
    "a length of nothing": lambda s, n, c: n[GRADIENT]["shape"].__setitem__(2, 0),
    "a length that is a fraction": lambda s, n, c: n[GRADIENT]["shape"].__setitem__(2, 2.5),
    "other samples": lambda s, n, c: s.update(samples=12),
    "no samples": lambda s, n, c: s.update(samples=0),
    "shards of no power of two": lambda s, n, c: s.update(shard_samples=6),
    "an unknown codec": lambda s, n, c: s.update(codec="lz4"),
    "chunks of nothing": lambda s, n, c: grid(n, "step").__setitem__(0, 0),
    "chunks of less": lambda s, n, c: grid(n, "step").__setitem__(0, -1),
    "takeovers that are text": lambda s, n, c: s.update(takeovers="1"),
    "changes that are none": lambda s, n, c: s.update(changes=[{"commit": 2}]),
    "a node that leads out": lambda s, n, c: n.update({"../x": n["label"]}),
    "no samples field": lambda s, n, c: s.pop("samples"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_root_that_contradicts_itself_is_damaged(store: Path, what: str) -> None:
    content = changed(store, CONTRADICTIONS[what])
    refused(lambda: Root.decode(content, store), r"its zarr\.json is damaged|is not a path inside")


@pytest.mark.parametrize(("chunk", "taken"), [(0, False), (-1, False), (3, False), (8, False), (1, True), (4, True)])
def test_inner_chunks_divide_the_shard(tmp_path: Path, chunk: int, taken: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas, "GATHERED_BYTES", 1)  # so that each checkpoint has shards
        store = gathered_by_none(tmp_path / "run.zarr")
    path = "layers/a/activation"
    assert inner(json.loads((store / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"], path)[1] == 4
    content = changed(store, lambda s, n, c: inner(n, path).__setitem__(1, chunk))
    if taken:
        assert Root.decode(content, store).schema[path].chunk == chunk
    else:
        refused(lambda: Root.decode(content, store), r"its zarr\.json is damaged")


def gathered_by_none(path: Path) -> Path:
    schema = Schema((ArraySpec("layers/a/activation", ("sample", "f"), (6, 3), "float32"),), 6, 4).gathered()
    with RunWriter.create(path, schema, static={}, attributes={}) as writer, writer.checkpoint() as checkpoint:
        for block in range(2):
            rows = schema.block_slice(block)
            checkpoint.write("layers/a/activation", np.ones((rows.stop - rows.start, 3), np.float32), block)
    return path


def test_a_chunk_gathers_as_much_as_the_specification_allows_and_no_more(tmp_path: Path) -> None:
    store = make_run(tmp_path / "run.zarr", checkpoints=1).path
    row = Run(store).schema.row_bytes(Run(store).schema["step"])
    most = changed(store, lambda s, n, c: grid(n, "step").__setitem__(0, LARGEST // row))
    assert Root.decode(most, store).schema["step"].span == LARGEST // row
    more = changed(store, lambda s, n, c: grid(n, "step").__setitem__(0, LARGEST // row + 1))
    refused(lambda: Root.decode(more, store), r"its zarr\.json is damaged")


@pytest.mark.parametrize(
    ("version", "said"),
    [(FORMAT + 1, rf"format {FORMAT + 1} is newer than this featdyn reads \({FORMAT}\)"), ("3", "format 3 is newer")],
)
def test_a_newer_format_is_said(store: Path, version: object, said: str) -> None:
    refused(lambda: Root.decode(changed(store, lambda s, n, c: s.update(format=version)), store), said)
    assert Root.decode(changed(store, lambda s, n, c: s.update(takeovers=7)), store).takeovers == 7


@pytest.mark.parametrize("number", [0, 1, 3, 4, 6])
def test_stores_that_lie_in_a_folder_are_named_up_to_three(store: Path, tmp_path: Path, number: int) -> None:
    names = [str(shutil.copytree(store, tmp_path / f"{i}.zarr")) for i in range(number)]
    (tmp_path / "file.zarr").write_text("no folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "zarr.json").write_text("{}")  # somebody else's
    more = f" and {number - 3} more" if number > 3 else ""
    end = f"; there is one inside: {', '.join(names[:3])}{more}" if number else ""
    refused(lambda: Run(tmp_path), f"^{tmp_path}: not a featdyn store, or one whose first checkpoint never came{end}$")


def test_a_sample_may_be_larger_than_what_is_gathered(store: Path) -> None:
    def widen(state: dict[str, Any], nodes: dict[str, Any], commits: list[dict[str, Any]]) -> None:
        for lengths in (nodes[GRADIENT]["shape"], grid(nodes, GRADIENT), inner(nodes, GRADIENT)):
            lengths[2:] = [2**13, 2**13]

    schema = Root.decode(changed(store, widen), store).schema
    assert schema[GRADIENT].span == 1
    assert schema[GRADIENT].sample_bytes == 2 * LARGEST


@pytest.mark.parametrize("content", [b"", b"\0", b"{", b"[1]", b"nonsense", b"[" * 99_999])
def test_what_is_no_root_is_not_said_to_be_changed_by_another_program(store: Path, content: bytes) -> None:
    said = rf"^{store}: not a featdyn store, or its zarr\.json is damaged; run: featdyn verify {store} --repair$"
    refused(lambda: Root.decode(content, store), said)
    refused(lambda: Root.decode(b"{}", store), "another program has changed its zarr")


@pytest.mark.parametrize(
    ("left", "helps"),
    [(["commits/root.json"], True), (["commits/000001.json"], True), (["commits/000001.2.json"], True),
     (["commits/000002.json", "label/zarr.json"], False)],
)  # fmt: skip
def test_a_repair_is_offered_where_there_is_something_to_make_the_root_from(
    tmp_path: Path, left: list[str], helps: bool
) -> None:
    for path in left:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("{}")
    end = f"; run: featdyn verify {tmp_path} --repair" if helps else ""
    refused(lambda: Root.decode(b"{", tmp_path), rf"its zarr\.json is damaged{end}$")
