"""Random roots, manifests and shards, with right checksums: one clear line or data; no other error, no hang."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.errors import StoreError
from featdyn.store import Run, gc, repair, verify
from featdyn.store.metadata import chunk_key
from featdyn.store.record import crc32c
from tests.engine.runs import tree, write_run

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 70),
        st.sampled_from([2**31, 2**63, 10**30, 0.5, 1e300]),
        st.sampled_from(
            ["", "..", "../x", "/etc/passwd", "a/b", "checkpoint", "sample", "result", "results/x", "zarr.json"]
        ),
        st.text(max_size=4),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("fuzz") / "run.zarr", checkpoints=2).path


@pytest.fixture(scope="module", params=["none", "zstd"])
def coded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("fuzz") / "run.zarr", request.param, checkpoints=2).path


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a JSON document."""
    found = [path] if path else []
    for key in document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ():
        found += places(document[key], (*path, key))
    return found


def mutated(data: st.DataObject, document: Any, times: int) -> Any:
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, times))):
        *above, last = data.draw(st.sampled_from(places(document)))
        inner = document
        for key in above:
            inner = inner[key]
        how = data.draw(st.sampled_from(["replace", "remove", "double"]))
        if how == "replace":
            inner[last] = data.draw(VALUES)
        elif how == "remove" and len(document) > 1:
            del inner[last]
        elif isinstance(inner, list):
            inner.append(copy.deepcopy(inner[last]))
    return document


def sealed(document: Any) -> bytes:
    """Return a root with the checksum of its bytes, as far as it still has a place for one."""
    state = document.get("attributes", {}).get("featdyn", {}) if isinstance(document.get("attributes"), dict) else {}
    if isinstance(state, dict) and "root_crc32c" in state:
        document["attributes"] = {"featdyn": {"root_crc32c": "00000000"}, **document["attributes"]}
        document["attributes"]["featdyn"] = {**state, "root_crc32c": "00000000"}
    content = json.dumps(document).encode()
    return content.replace(b'"root_crc32c": "00000000"', b'"root_crc32c": "%08x"' % crc32c(content), 1)


def only_clear_lines(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StoreError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return None


def use(path: Path) -> None:
    """Do with a store what people do, each by itself."""
    only_clear_lines(lambda: verify(path))
    only_clear_lines(lambda: gc(path, dry_run=True))
    run = only_clear_lines(lambda: Run(path))
    if run is None:
        return
    only_clear_lines(lambda: run.layers)
    only_clear_lines(lambda: run.coords)
    only_clear_lines(lambda: run.tree)
    only_clear_lines(lambda: run.state(0))
    for commit in run.commits:
        if commit.kind == "result":
            only_clear_lines(lambda commit=commit: run.result(commit.name.split("/")[1]))
    for name in run.nodes:
        only_clear_lines(lambda name=name: run.array(name))
    for spec in run.schema.arrays:
        for block in {0, run.schema.blocks - 1 if spec.sample_axis is not None else 0}:
            only_clear_lines(lambda spec=spec, block=block: run.block(spec.path, 0, block))
    only_clear_lines(lambda: run.values("split"))


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_roots_of_anything(store: Path, data: st.DataObject) -> None:
    content = (store / "zarr.json").read_bytes()
    try:
        (store / "zarr.json").write_bytes(sealed(mutated(data, json.loads(content), 3)))
        use(store)
    finally:
        (store / "zarr.json").write_bytes(content)
    assert verify(store).sound


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_commit_lists_of_anything(store: Path, data: st.DataObject) -> None:
    content = (store / "zarr.json").read_bytes()
    document = json.loads(content)
    state = document["attributes"]["featdyn"]
    state |= {key: value for key, value in mutated(data, {"commits": state["commits"]}, 3).items() if key == "commits"}
    try:
        (store / "zarr.json").write_bytes(sealed(document))
        use(store)
    finally:
        (store / "zarr.json").write_bytes(content)


@settings(deadline=None, max_examples=20)
@given(data=st.data(), number=st.integers(0, 3))
def test_manifests_of_anything(store: Path, data: st.DataObject, number: int) -> None:
    document = json.loads((store / "zarr.json").read_bytes())
    record = document["attributes"]["featdyn"]["commits"][number]["manifest"]
    before = {p: (store / p).read_bytes() for p in ("zarr.json", record["path"])}
    listed = mutated(data, json.loads(before[record["path"]]), 2)
    manifest = data.draw(st.one_of(st.just(json.dumps(listed).encode()), st.binary(max_size=20), st.just(b"[" * 9999)))
    record |= {"size": len(manifest), "crc32c": crc32c(manifest)}
    try:
        (store / record["path"]).write_bytes(manifest)
        (store / "zarr.json").write_bytes(sealed(document))
        use(store)
    finally:
        for path, content in before.items():
            (store / path).write_bytes(content)


@settings(deadline=None, max_examples=15)
@given(content=st.one_of(st.binary(max_size=300), st.text().map(str.encode), st.just(b"[" * 99999)))
def test_roots_that_are_no_json(store: Path, content: bytes) -> None:
    before = (store / "zarr.json").read_bytes()
    try:
        (store / "zarr.json").write_bytes(content)
        use(store)
    finally:
        (store / "zarr.json").write_bytes(before)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_shards_of_anything(coded: Path, data: st.DataObject) -> None:
    run = Run(coded)
    spec = data.draw(st.sampled_from(run.schema.arrays))
    block = data.draw(st.integers(0, run.schema.blocks - 1)) if spec.sample_axis is not None else 0
    path = coded / chunk_key(spec, 1, block)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    damaged = data.draw(
        st.one_of(
            st.binary(max_size=len(content)),
            st.binary(max_size=8).map(lambda b: content[:cut] + b + content[cut + len(b) :]),
            st.just(content[:cut]),
        )
    )
    try:
        path.unlink()  # not written over: the run may have mapped it
        path.write_bytes(damaged)
        found = only_clear_lines(lambda: run.block(spec.path, 1, block, stored=True))
        assert found is None or found.dtype == spec.dtype
        only_clear_lines(lambda: run.block(spec.path, 1, block))
        only_clear_lines(lambda: run.values(spec.path))
        assert verify(coded).sound == (damaged == content)
    finally:
        path.unlink()
        path.write_bytes(content)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_repair_of_anything_leaves_a_sound_store_or_the_same(
    store: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = Path(shutil.copytree(store, tmp_path_factory.mktemp("repair") / "run.zarr"))
    if data.draw(st.booleans()):
        document = mutated(data, json.loads((path / "zarr.json").read_bytes()), 2)
        (path / "zarr.json").write_bytes(data.draw(st.sampled_from([sealed(document), json.dumps(document).encode()])))
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")
    for file in data.draw(st.lists(st.sampled_from(files), max_size=3, unique=True)):
        file.write_bytes(data.draw(st.binary(max_size=9)))
    before = tree(path) | {".featdyn.lock": b"", ".featdyn.turn": b""}
    if only_clear_lines(lambda: repair(path)) is None:
        assert tree(path) | {".featdyn.lock": b"", ".featdyn.turn": b""} == before
    else:
        assert verify(path).sound
    shutil.rmtree(path)
