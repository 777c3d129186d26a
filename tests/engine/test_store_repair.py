"""Repair loses what is damaged and what follows from it, and nothing else; gc removes what no commit names."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, gc, repair, verify
from featdyn.store.commit import DROPPED
from featdyn.store.lock import NAMES
from featdyn.store.root import Root
from tests.engine.faults import Faults, Killed
from tests.engine.runs import refused, tree
from tests.engine.small_run import SCHEMA, STATIC, fill
from tests.engine.spec_reader import SpecReader
from tests.engine.test_store_crash import committed

# Checkpoints are commits 1, 2, 4 and 6; results 3, 5, 7 and 8, which were computed from commits 2, 4, 4 and 7.
INPUTS = {3: 2, 5: 4, 7: 4, 8: 7}
SHARDS = {1: "layers/a/activation/c.0.0.0", 2: "layers/a/activation/c.1.1.0", 6: "checkpoint/c.3"}


def dataset(number: int) -> xr.Dataset:
    return xr.Dataset({"value": ("probe", np.arange(3.0) + number)}, attrs={"input_commit": INPUTS[number]})


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The store after each commit: ``stages[n]`` has n commits."""
    folder = tmp_path_factory.mktemp("stages")
    path, found = folder / "run.zarr", [folder]
    writer = RunWriter.create(path, SCHEMA, static=STATIC, attributes={"n": 1})
    for number in range(1, 9):
        if number in INPUTS:
            writer.result("r" if number != 7 else "s", dataset(number))
        else:
            with writer.checkpoint() as checkpoint:
                fill(checkpoint)
        found.append(Path(shutil.copytree(path, folder / f"{number}.zarr")))
    writer.close()
    return found


@pytest.fixture
def store(stages: list[Path], tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(stages[8], tmp_path / "run.zarr"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files_of(path: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(path).items() if content is not None and name not in NAMES}


def dropped(path: Path) -> list[tuple[int, str]]:
    return [(c.number, c.name) for c in Root.read(path).commits if c.kind == DROPPED]


def test_nothing_wrong_nothing_done(store: Path) -> None:
    before = files_of(store)
    found = repair(store)
    assert (found.changed, found.aside, found.source, found.verdict.sound) == (False, None, "zarr.json", True)
    assert files_of(store) == before


def test_a_damaged_checkpoint_takes_what_comes_after_it_and_the_rest_is_as_it_was(
    store: Path, stages: list[Path]
) -> None:
    flip(store / SHARDS[2])
    verdict = verify(store)
    lost = ("checkpoint 1", "results/r/000003", "checkpoint 2", "results/r/000005", "checkpoint 3")
    assert (verdict.damaged, verdict.lost) == ((2,), (*lost, "results/s/000007", "results/r/000008"))
    found = repair(store)
    assert (found.verdict.lost, found.checkpoints, found.aside) == (verdict.lost, 1, "commits/root.1.json")
    assert (store / "zarr.json").read_bytes() == (stages[1] / "zarr.json").read_bytes()
    assert (store / "commits/root.1.json").read_bytes() == (stages[8] / "zarr.json").read_bytes()
    assert verify(store).sound
    assert (store / SHARDS[2]).exists()  # gc removes files, a repair does not
    gc(store)
    assert tree(store).keys() == tree(stages[1]).keys()
    found, expected = committed(store), committed(stages[1])
    assert {n for n in expected if found[n] != expected[n]} == {"norm/0.0", "norm/0.1"}  # a row more, which is none now
    assert all(
        (store / p / "zarr.json").read_bytes() == (stages[1] / p / "zarr.json").read_bytes() for p in Run(store).nodes
    )


def test_a_run_as_of_each_commit_is_the_run_as_it_was_then(store: Path, stages: list[Path]) -> None:
    for number in range(1, 9):
        then, now = Run(stages[number]), Run(store, number)
        assert Root.read(store).until(number).encode() == (stages[number] / "zarr.json").read_bytes()
        assert (now.commits, now.checkpoints, now.nodes) == (then.commits, then.checkpoints, then.nodes)
        assert now.tree.identical(then.tree)
        assert [now.results(name) for name in "rs"] == [then.results(name) for name in "rs"]


def test_a_run_that_is_sent_elsewhere_is_there_what_it_is_here(store: Path, stages: list[Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(stages[4], tmp_path / "growing.zarr"))
    run, sent = Run(path), pickle.dumps(Run(path))
    with RunWriter.open(path) as writer, writer.checkpoint() as checkpoint:
        fill(checkpoint)
    assert len(Run(path).commits) == 5
    there = pickle.loads(sent)
    assert there.commits == run.commits == pickle.loads(pickle.dumps(there)).commits
    refused(lambda: there.block("checkpoint", 3, 0), "no checkpoint 3, there are 3")
    for number in (-1, 0, 6):
        refused(lambda number=number: Run(path, number), f"there is no commit {number}, or a repair has dropped it")
    flip(store / SHARDS[6])
    repair(store)
    assert Run(store, 7).results("s") == ["results/s/000007"]
    assert Run(store, 5).checkpoints == 3
    for number in (6, 8):
        refused(lambda number=number: Run(store, number), f"there is no commit {number}, or a repair has dropped it")


@pytest.mark.parametrize("clear", [False, True])
def test_a_repaired_run_goes_on_to_the_same_bits(store: Path, stages: list[Path], clear: bool) -> None:
    flip(store / SHARDS[6])
    assert repair(store).verdict.lost == ("checkpoint 3", "results/r/000008")
    assert dropped(store) == [(6, "3")]  # what was computed from commit 4 stays, with its number
    assert Run(store).results("s") == ["results/s/000007"]
    if clear:
        gc(store)
        assert not (store / SHARDS[6]).exists()
        assert not (store / "commits/root.1.json").exists()
    with RunWriter.open(store) as writer:
        assert writer.checkpoints == 3
        with writer.checkpoint() as checkpoint:
            fill(checkpoint)
    undisturbed, again = SpecReader(stages[8]), SpecReader(store)
    again.check()
    for name, values in again.arrays().items():
        np.testing.assert_array_equal(values, undisturbed.array(name))
    assert again.arrays().keys() == {p for p in undisturbed.arrays() if not p.startswith("results/r/000008/")}
    assert xr.open_datatree(store, engine="zarr").sizes["checkpoint"] == 4
    assert verify(store).sound


def test_a_damaged_result_costs_nothing_else(store: Path, stages: list[Path]) -> None:
    flip(store / "results/r/000003/value/c/0")
    (store / "commits/000005.json").unlink()
    found = repair(store)
    assert found.verdict.lost == ("results/r/000003", "results/r/000005")
    assert (found.checkpoints, dropped(store)) == (4, [(3, "results/r/000003"), (5, "results/r/000005")])
    run = Run(store)
    assert (run.results("r"), run.results("s")) == (["results/r/000008"], ["results/s/000007"])
    assert not [p for p in run.nodes if "00003" in p or "00005" in p]
    SpecReader(store).check()
    whole = committed(stages[8])
    for name, content in committed(store).items():
        assert name in ("zarr.json", "commits/dropped.json") or whole[name] == content
    flip(store / "commits/dropped.json")  # which a repair can always write again
    assert repair(store).verdict.lost == ()
    assert verify(store).sound
    with RunWriter.open(store) as writer:
        assert writer.result("r", dataset(8)) == "results/r/000009"
    assert gc(store).removed.keys() >= {"results/r/000003/value/c/0", "results/r/000005/zarr.json"}
    assert verify(store).sound


def test_the_last_result_is_dropped_without_a_trace(store: Path, stages: list[Path]) -> None:
    flip(store / "results/r/000008/value/c/0")
    repair(store)
    assert (store / "zarr.json").read_bytes() == (stages[7] / "zarr.json").read_bytes()
    assert not (store / "commits/dropped.json").exists()


@pytest.mark.parametrize(
    "path", ["sample/c/0", SHARDS[1], "commits/000001.json", "checkpoints/000000/model.safetensors"]
)
def test_damage_in_the_first_commit_is_refused_and_changes_nothing(store: Path, path: str) -> None:
    flip(store / path)
    flip(store / SHARDS[6])
    before = files_of(store)
    refused(lambda: repair(store), f"reaches the first commit, on which all others stand .{path}.*nothing was changed")
    assert files_of(store) == before


@settings(deadline=None, max_examples=60)
@given(damaged=st.sets(st.integers(2, 8)))
def test_what_is_lost_is_exactly_what_does_not_stand(stages: list[Path], damaged: set[int]) -> None:
    root = Root.read(stages[8])
    lost = {c.number for c in root.lost(damaged)}
    gap = min(damaged & {1, 2, 4, 6}, default=9)
    assert lost == damaged | {n for n in range(gap, 9) if n not in INPUTS or INPUTS[n] >= gap}
    after = root.without(root.lost(damaged))
    assert [c.number for c in after.commits] == list(range(1, len(after.commits) + 1))
    assert {c.number for c in after.commits if c.kind != DROPPED} == set(range(1, 9)) - lost
    again = Root.decode(after.encode(), stages[8])
    assert again == after
    assert again.lost(()) == ()
    assert all(spec.path in after.nodes for spec in after.schema.arrays)
    if not lost:
        assert after.encode() == root.encode()


def test_a_damaged_root_is_made_anew_from_its_copy(store: Path, stages: list[Path]) -> None:
    good = (store / "zarr.json").read_bytes()
    assert (store / "commits/root.json").read_bytes() == good
    for damage in (lambda: flip(store / "zarr.json"), lambda: (store / "zarr.json").unlink()):
        damage()
        command = f"zarr.json is .*; run: featdyn verify {store} --repair"
        for call in (Run, RunWriter.open, verify, gc):
            refused(lambda call=call: call(store), command)
        create = lambda: RunWriter.create(store, SCHEMA, static=STATIC, attributes={})  # noqa: E731
        refused(create, "a store is there already|is missing")  # and does not clear what is left of it
        found = repair(store)
        assert (found.source, found.verdict.lost) == ("commits/root.json", ())
        assert (store / "zarr.json").read_bytes() == good
        assert verify(store).sound
    shutil.copy(stages[7] / "zarr.json", store / "commits/root.json")  # the writer was killed before it wrote the copy
    flip(store / "zarr.json")
    repair(store)
    assert (store / "zarr.json").read_bytes() == good  # and it costs no commit
    flip(store / "zarr.json")
    flip(store / SHARDS[6])
    assert repair(store).verdict.lost == ("checkpoint 3", "results/r/000008")
    assert Run(store).checkpoints == 3


def test_a_damaged_root_without_any_copy(store: Path) -> None:
    good = (store / "zarr.json").read_bytes()
    (store / ".zarr.json.new").write_bytes(good)
    (store / "commits/root.json").write_bytes(good[:100])
    flip(store / "zarr.json")
    assert repair(store).source == ".zarr.json.new"
    assert (store / "zarr.json").read_bytes() == (store / "commits/root.json").read_bytes() == good
    (store / "commits/root.json").unlink()
    (store / "commits/root.1.json").unlink()
    flip(store / "zarr.json")
    assert repair(store).source.startswith("the manifests of 4 checkpoints and of results/r/000003")
    assert (store / "zarr.json").read_bytes() == (store / "commits/root.json").read_bytes() == good
    (store / "commits/root.json").unlink()
    (store / "commits/root.1.json").unlink()
    for name in ("zarr.json", "commits/000001.json"):
        flip(store / name)
    before = files_of(store)
    refused(
        lambda: repair(store), "damaged, and there is no whole copy of it.*each array can still be opened by its own"
    )
    assert files_of(store) == before


def test_a_sample_is_said_and_finds_damage_when_it_draws_it(store: Path) -> None:
    whole = verify(store)
    assert (whole.seed, whole.of) == (None, whole.files)
    flip(store / SHARDS[2])
    found = {seed: verify(store, sample=0.3, seed=seed) for seed in range(20)}
    assert {v.sound for v in found.values()} == {True, False}
    assert all(8 < v.files < v.of == whole.of for v in found.values())
    assert verify(store, sample=0.3, seed=7) == found[7]
    drawn = verify(store, sample=0.3)
    assert verify(store, sample=0.3, seed=drawn.seed) == drawn
    assert not verify(store, sample=1.0).sound
    flip(store / "commits/000004.json")  # manifests are always checked
    assert not any(verify(store, sample=1e-9, seed=seed).sound for seed in range(5))
    with pytest.raises(ValueError, match="sample must be above 0"):
        verify(store, sample=0.0)


def test_gc_takes_what_is_ours_and_leaves_what_is_not(store: Path, tmp_path: Path) -> None:
    before = tree(store)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.9.0.0").write_bytes(b"mine")
    own = {
        "checkpoint/c.4": 1,
        "layers/a/activation/c.4.0.0": 2,
        "checkpoints/000004/model.safetensors": 3,
        "commits/000009.json": 4,
        "results/t/000009/x/c/0/0": 5,
        "results/t/000009/x/zarr.json": 6,
        ".zarr.json.new": 7,
        "layers/.zarr.json.new": 8,
        "commits/root.1.json": 9,
        "commits/.root.json.new": 10,
    }
    mine = [
        "notes.txt",
        "layers/a/notes.txt",
        "extra/zarr.json",
        "extra/c/0",
        "checkpoints/best.pt",
        "results/t.csv",
        "link",
    ]
    mine += ["layers/a/activation/c.5.0.0"]  # a link, though its name is one of ours
    for path, size in own.items():
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(bytes(size))
    for path in mine[:-2]:
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_text("mine")
    (store / "link").symlink_to(tmp_path / "elsewhere")
    (store / mine[-1]).symlink_to(tmp_path / "elsewhere" / "c.9.0.0")
    with_all = files_of(store)
    found = gc(store, dry_run=True)
    assert (found.removed, found.foreign) == (own, tuple(sorted(mine)))
    assert files_of(store) == with_all
    run = Run(store)
    assert gc(store) == found
    assert found.bytes == 55
    kept = {p for p in tree(store) if p not in before}
    assert {p for p in kept if not (store / p).is_dir() or (store / p).is_symlink()} == set(mine)
    assert (tmp_path / "elsewhere" / "c.9.0.0").read_bytes() == b"mine"
    assert gc(store).removed == {}
    assert verify(store).sound
    np.testing.assert_array_equal(run.tree["layers/a/activation"][3, 2], [3, 2])
    with RunWriter.open(store):
        refused(lambda: gc(store), "is being written by")
        refused(lambda: repair(store), "is being written by")
    flip(store / "commits/000003.json")
    refused(lambda: gc(store), "commits/000003.json: the content does not match its checksum; run: featdyn verify")
    for call in (gc, repair):
        refused(lambda call=call: call(tmp_path / "elsewhere"), "not a featdyn store")
    assert not (tmp_path / "elsewhere" / ".featdyn.lock").exists()


@pytest.mark.parametrize("kill", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_repair_and_a_gc_that_fail_at_any_operation_can_be_done_again(store: Path, folder: Path, kill: bool) -> None:
    flip(store / SHARDS[6])
    flip(store / "results/r/000003/value/c/0")
    old, whole = (store / "zarr.json").read_bytes(), Path(shutil.copytree(store, folder / "whole.zarr"))
    repair(whole)
    new = (whole / "zarr.json").read_bytes()
    gc(whole)
    cleared = files_of(whole)
    for call in (repair, gc):
        at, finished = 0, False
        while not finished:
            at += 1
            path = Path(shutil.copytree(store, folder / call.__name__ / f"{at}.zarr"))
            if call is gc:
                repair(path)
            faults = Faults(at, kill=kill)
            with suppress(Killed, StoreError), faults.installed():
                call(path)
            assert (path / "zarr.json").read_bytes() in ((old, new) if call is repair else (new,)), at
            repair(path)
            gc(path)
            assert files_of(path) == cleared, at  # an empty folder may stay
            shutil.rmtree(path)
            finished = faults.count < at
        assert at > 10


def test_what_was_mapped_before_a_repair_stays_readable(store: Path) -> None:
    path = SHARDS[6].replace("checkpoint/c.3", "layers/a/activation/c.3.0.0")
    mapped = Run(store).block("layers/a/activation", 3, 0)
    flip(store / "checkpoint/c.3")
    repair(store)
    with RunWriter.open(store) as writer, writer.checkpoint() as checkpoint:
        fill(checkpoint)
    assert (store / path).exists()
    np.testing.assert_array_equal(mapped, [[3, 0], [3, 1]])


def test_the_commands(store: Path, featdyn: Callable[..., tuple[int, str, str]]) -> None:
    name = str(store)
    flip(store / "results/r/000005/value/c/0")
    flip(store / SHARDS[6])
    code, out, _ = featdyn("verify", name)
    assert (code, out.splitlines()[-1]) == (
        1,
        f"featdyn verify {name} --repair would drop: results/r/000005, checkpoint 3, results/r/000008",
    )
    code, out, _ = featdyn("verify", name, "--sample", "0.5", "--seed", "3")
    assert "drawn with seed 3" in out
    assert featdyn("verify", name, "--sample", "0.5", "--repair")[0] == 2
    assert featdyn("verify", name, "--seed", "3")[0] == 2
    assert featdyn("verify", name, "--sample", "0")[0] == 2
    code, out, err = featdyn("verify", name, "--repair")
    assert (code, err) == (0, "")
    assert "dropped: results/r/000005, checkpoint 3, results/r/000008; 3 checkpoints are left" in out
    assert "the old zarr.json is commits/root.1.json" in out
    code, out, _ = featdyn("gc", name, "--dry-run")
    assert "would remove checkpoint/c.3\n" in out
    assert (store / "checkpoint/c.3").exists()
    (store / "mine.txt").write_text("mine")
    code, out, _ = featdyn("gc", name, "--json")
    assert json.loads(out)["foreign"] == ["mine.txt"]
    assert not (store / "checkpoint/c.3").exists()
    assert "not ours, left alone: mine.txt\n" in featdyn("gc", name)[1]
    code, out, _ = featdyn("verify", name, "--repair", "--json")
    assert (code, json.loads(out)["changed"]) == (0, False)
    flip(store / SHARDS[1])
    code, out, err = featdyn("verify", name, "--repair")
    assert (code, err.count("\n")) == (1, 1)
