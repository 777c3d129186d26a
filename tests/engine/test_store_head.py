"""A run whose root is gone, with every copy of it, is still a run: nothing takes its place, a repair makes it anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.store import Run, RunWriter, compact, exists, gc, repair, verify
from featdyn.store.commit import DROPPED, Manifest
from featdyn.store.lock import NAME as LOCK
from featdyn.store.lock import TURN
from featdyn.store.root import COPY, Root
from tests.engine.attacked_writers import other_values
from tests.engine.runs import refused, tree, write_run
from tests.engine.small_run import RESULT, SCHEMA, STATIC, fill, record
from tests.engine.test_store_crash import committed
from tests.engine.test_store_repair import files_of, flip

PLAN = "crccr"
HEAD = ("zarr.json", COPY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    record(path, PLAN)
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy without its head."""
    return behead(Path(shutil.copytree(whole, tmp_path / "run.zarr")))


def behead(path: Path) -> Path:
    for name in HEAD:
        (path / name).unlink()
    return path


def create(path: Path) -> None:
    RunWriter.create(path, SCHEMA, static=STATIC, attributes={"n": 2})


def test_a_run_without_its_head_is_refused_by_all_and_made_anew_by_a_repair(
    store: Path, whole: Path, featdyn: Callable[..., tuple[int, str, str]]
) -> None:
    before = files_of(store)
    for call in (create, Run, RunWriter.open, verify, gc, record):
        refused(lambda call=call: call(store), f"its zarr.json is missing; run: featdyn verify {store} --repair$")
    assert not exists(store)
    code, out, err = featdyn("info", store)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert files_of(store) == before
    code, out, err = featdyn("verify", store, "--repair")
    assert (code, err) == (0, "")
    said = "the manifests of 3 checkpoints and of results/r/000002, results/r/000005 (without provenance)"
    assert f"zarr.json and commits/root.json were made anew from {said}\n" in out
    assert files_of(store) == files_of(whole)
    assert verify(store).sound
    record(store, PLAN + "c")
    assert Run(store).checkpoints == 4


def test_so_it_is_in_a_bucket(whole: Path) -> None:
    pytest.importorskip("obstore")
    from obstore.store import MemoryStore

    from tests.engine.buckets import Faults, contents

    store, kept = MemoryStore(), contents(whole)
    for path, content in kept.items():
        if path not in HEAD:
            store.put(path, content)
    with Faults(store).installed() as url:
        before = contents(url)
        for call in (create, Run, gc, verify):
            refused(lambda call=call: call(url), "its zarr.json is missing; run: featdyn verify s3://.* --repair$")
        assert contents(url) == before
        assert repair(url).checkpoints == 3
        assert contents(url) == kept


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_whatever_of_it_is_left_nothing_is_started_in_its_place(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any files may be gone, with those of the head, as long as one is left that only a run has."""
    left = {name: content for name, content in files_of(whole).items() if name not in HEAD}
    telling = [n for n in left if n.startswith(("commits/", "results/", "checkpoints/")) or "/c." in n]
    named = data.draw(st.sets(st.sampled_from(sorted(left)))) | {data.draw(st.sampled_from(telling))}
    path = tmp_path_factory.mktemp("left") / "run.zarr"
    for name in named | {LOCK}:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(left.get(name, b""))
    before = files_of(path)
    refused(lambda: create(path), "its zarr.json is missing; run: featdyn verify")
    refused(lambda: gc(path), "its zarr.json is missing; run: featdyn verify")
    try:
        repair(path)
    except Exception as error:  # what is left may prove nothing, or not enough
        assert "nothing was changed" in str(error)  # noqa: PT017
        assert files_of(path) == before
    else:
        assert verify(path).sound
        kept = {name: content for name, content in before.items() if not name.endswith("zarr.json")}
        assert kept.items() <= files_of(path).items()


def test_the_first_commit_s_window_is_no_run_yet(tmp_path: Path) -> None:
    """What lies there before the first commit is cleared, however far a killed writer came, and with its lock gone."""
    path = tmp_path / "run.zarr"
    writer = RunWriter.create(path, SCHEMA, static=STATIC, attributes={})
    fill(writer.checkpoint())
    (path / "commits").mkdir()
    (path / Manifest.path(1)).write_bytes(b"the manifest, before the root")
    writer._lock.release()  # the process is gone, and with it its lock
    for name in (LOCK, TURN):
        (path / name).unlink(missing_ok=True)
    refused(lambda: Run(path), "first checkpoint never came")
    record(path)
    alone = tmp_path / "alone.zarr"
    record(alone)
    assert committed(path) == committed(alone)
    assert not list(path.rglob("*.new"))


def test_without_the_first_manifest_nothing_proves_what_a_run_was(store: Path) -> None:
    flip(store / Manifest.path(1))
    before = files_of(store)
    refused(lambda: repair(store), "zarr.json is missing, and there is no whole copy of it.*so nothing was changed")
    assert files_of(store) == before


def test_damage_and_gaps_in_the_rest_cost_no_more_than_they_do_beside_a_root(whole: Path, tmp_path: Path) -> None:
    for number, (path, change) in enumerate(
        [
            ("checkpoint/c.2", flip),
            ("results/r/000002/value/c/0", flip),
            ("commits/000002.json", Path.unlink),
            ("commits/000003.json", flip),
        ]
    ):
        rooted = Path(shutil.copytree(whole, tmp_path / f"{number}.zarr"))
        change(rooted / path)
        beheaded = behead(Path(shutil.copytree(rooted, tmp_path / f"{number}.beheaded.zarr")))
        repair(rooted)
        repair(beheaded)
        with_root, without = Root.read(rooted), Root.read(beheaded)
        assert [c for c in with_root.commits if c.kind != DROPPED] == [c for c in without.commits if c.kind != DROPPED]
        assert with_root.nodes == without.nodes
        assert verify(beheaded).sound


def test_what_a_repair_had_dropped_does_not_come_back(whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "run.zarr"))
    flip(path / "checkpoint/c.1")
    repair(path)  # commits 3 to 5 are dropped; their manifests lie there
    with RunWriter.open(path) as writer, writer.checkpoint() as checkpoint:
        fill(checkpoint)
        checkpoint.put("checkpoints/000001/model.safetensors", [b"other weights"])
    expected = (path / "zarr.json").read_bytes()
    (path / "commits/root.1.json").unlink()
    behead(path)
    assert repair(path).checkpoints == 2
    assert (path / "zarr.json").read_bytes() == expected


def test_a_damaged_root_says_what_to_run_where_only_manifests_are_left(store: Path) -> None:
    (store / "zarr.json").write_bytes(b"{")
    refused(lambda: Run(store), "damaged; run: featdyn verify .* --repair")
    assert repair(store).source.startswith("the manifests of 3 checkpoints")


def test_manifests_prove_themselves(store: Path) -> None:
    content = (store / "commits/000001.json").read_bytes()
    manifest = Manifest.parse(content)
    assert manifest is not None
    assert manifest.encode() == content
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1
        assert Manifest.parse(bytes(flipped)) is None


def test_a_folder_that_holds_runs_is_none(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "a.zarr")
    before = tree(tmp_path)
    refused(lambda: create(tmp_path), "not empty and not a featdyn store; choose another path")
    for call in (Run, gc, repair):
        refused(lambda call=call: call(tmp_path), "not a featdyn store, or one whose first checkpoint never came")
    assert tree(tmp_path) == before


def test_of_every_array_and_result_nothing_is_lost(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.zarr", checkpoints=2)
    expected = {path: run.values(path) for path, node in run.nodes.items() if node["node_type"] == "array"}
    root = json.loads((run.path / "zarr.json").read_bytes())
    behead(Path(run.path))
    repair(run.path)
    assert json.loads((run.path / "zarr.json").read_bytes()) == root
    again = Run(run.path)
    for path, values in expected.items():
        np.testing.assert_array_equal(again.values(path), values)
    with RunWriter.open(run.path) as writer:
        writer.result("r", RESULT)


def spoil_shard(path: Path, checkpoint: int) -> None:
    shard = path / f"layers/a/activation/c.{checkpoint}.0.0"
    shard.write_bytes(b"x" * len(shard.read_bytes()))


@pytest.mark.parametrize("again", ["the same", "other values"])
def test_a_root_that_an_earlier_repair_put_aside_takes_nothing_from_what_came_later(tmp_path, again):
    path = tmp_path / "run.zarr"
    record(path, "cccccc")
    spoil_shard(path, 3)
    assert repair(path).checkpoints == 3
    with RunWriter.open(path) as writer:
        for _ in range(4):
            with writer.checkpoint() as checkpoint:
                other_values(checkpoint) if again == "other values" else fill(checkpoint)
    expected = contents(Run(path))
    behead(path)
    found = repair(path)
    assert (found.checkpoints, found.verdict.problems) == (7, ())
    assert contents(Run(path)) == expected
    assert "provenance" not in Run(path).attributes or Run(path).attributes["provenance"]
    assert verify(path).sound


def contents(run: Run) -> dict[str, list[object]]:
    return {spec.path: run.values(spec.path).tolist() for spec in run.schema.arrays}


def test_a_copy_of_the_root_that_is_one_behind_costs_no_checkpoint(tmp_path):
    path = tmp_path / "run.zarr"
    record(path, "ccr")
    behind = (path / COPY).read_bytes()
    record(path, "ccrcr")
    (path / COPY).write_bytes(behind)  # as a writer leaves it that was killed after its rename, or a power cut
    expected = (path / "zarr.json").read_bytes()
    (path / "zarr.json").write_bytes(b"\0" * 100)
    found = repair(path)
    assert (found.source, found.checkpoints, found.verdict.problems) == (COPY, 3, ())
    assert Run(path).commits[-1].kind == "result"
    assert (path / "zarr.json").read_bytes() == expected
    assert verify(path).sound


def test_manifests_that_a_compaction_left_do_not_stand_for_those_that_came_later(tmp_path):
    path = tmp_path / "run.zarr"

    def go_on(writer: RunWriter, checkpoints: int, value: float) -> None:
        for _ in range(checkpoints):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("checkpoint", np.array(checkpoint.index))
                for block, rows in enumerate((2, 1)):
                    checkpoint.write("layers/a/activation", np.full((rows, 2), value, np.float32), block)

    schema = replace(SCHEMA, arrays=SCHEMA.arrays[:2])
    with RunWriter.create(path, schema, static=STATIC, attributes={"n": 1}) as writer:
        writer._root = replace(writer._root, format=1)
        go_on(writer, 5, 1)
    assert compact(path)
    (path / "commits/000003.2.json").write_bytes(b"x")
    assert repair(path).checkpoints == 2
    with RunWriter.open(path) as writer:
        go_on(writer, 2, 2)
    expected = contents(Run(path))
    behead(path)
    for aside in path.glob("commits/root.*.json"):
        aside.unlink()
    (path / "commits/000003.2.json").unlink()
    assert repair(path).checkpoints == 4
    assert contents(Run(path)) == expected


def test_what_a_compaction_that_was_killed_has_left_is_of_no_run_that_went_on(tmp_path):
    path, schema = tmp_path / "run.zarr", replace(SCHEMA, arrays=SCHEMA.arrays[:1])

    def go_on(writer: RunWriter, checkpoints: int, value: int) -> None:
        for _ in range(checkpoints):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("checkpoint", np.array(value))

    with RunWriter.create(path, schema, static=STATIC, attributes={"n": 1}) as writer:
        writer._root = replace(writer._root, format=1)
        go_on(writer, 6, 1)
    whole = {name: (path / name).read_bytes() for name in ("zarr.json", COPY)}
    assert compact(path)
    for name, content in whole.items():  # as if it had been killed before
        (path / name).write_bytes(content)
    spoiled = path / "checkpoint/c.3"
    spoiled.write_bytes(b"x" * 8)
    assert repair(path).checkpoints == 3
    with RunWriter.open(path) as writer:
        go_on(writer, 2, 2)
    behead(path)
    for aside in path.glob("commits/root.*.json"):
        aside.unlink()
    repair(path)
    assert Run(path).values("checkpoint").tolist() == [1, 1, 1, 2, 2]
    assert verify(path).sound


@pytest.mark.parametrize("name", ["layers/a/activation/c.1.0.0", "norm/0.1"])
def test_a_chunk_that_is_gone_is_not_read_as_zeros(tmp_path, name):
    path = tmp_path / "run.zarr"
    record(path, "ccc")
    opened = Run(path)
    (path / name).unlink()
    array = name.rpartition("/")[0]
    for read in (lambda: opened.values(array), lambda: opened.array(array).load(), lambda: opened.tree[array].load()):
        refused(read, f"{name} is missing; run: featdyn verify {path}")
