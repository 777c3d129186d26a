"""A compaction that is stopped, overtaken or looked at while it goes on, in a folder and in a bucket."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, commit_result, compact, gc, verify
from featdyn.store.root import FORMAT, Root
from featdyn.testing.sample_run import RESULT
from tests.engine.attacked_acts import folder_world
from tests.engine.faults import Killed
from tests.engine.runs import refused
from tests.engine.test_store_compact import ARCHIVE
from tests.engine.worlds import BucketWorld, World


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The files of a store of format 1."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [name for name in archive.namelist() if name.startswith("none.zarr/")]
        found = {name.removeprefix("none.zarr/"): archive.read(name) for name in names}
    return {name: content for name, content in found.items() if not name.startswith(".featdyn")}


def plain(values: Any) -> bytes | list[Any]:
    found = np.asarray(values)
    return found.tobytes() if found.dtype.kind in "biuf" else found.tolist()


def read(store: Any) -> dict[str, bytes | list[Any]]:
    """Return every value; of growing arrays block by block too, which must be the same."""
    run = Run(store)
    found = {}
    for name, node in run.nodes.items():
        if node["node_type"] == "array":
            found[name] = plain(run.values(name))
    for spec in run.schema.arrays:
        blocks = range(run.schema.blocks if spec.sample_axis is not None else 1)
        parts = [[run.block(spec.path, t, block) for block in blocks] for t in range(run.checkpoints)]
        rows = [np.concatenate(some, spec.sample_axis) if spec.sample_axis is not None else some[0] for some in parts]
        assert plain(rows) == found[spec.path]
    return found


def calls_of(make: Callable[[], World], files: dict[str, bytes]) -> tuple[int, dict[str, bytes | list[Any]]]:
    with make() as world:
        world.load(files)
        values = read(world.url)
        with world.trouble(10**9, "kill") as counted:
            compact(world.url)
        assert Root.read(world.url).format == FORMAT
        return counted.count, values


@pytest.mark.parametrize("make", [folder_world, BucketWorld])
def test_who_reads_meanwhile_sees_the_same_values(make: Callable[[], World], files: dict[str, bytes]) -> None:
    total, values = calls_of(make, files)
    for at in range(2, total, max(1, total // 6)):
        with make() as world:
            world.load(files)
            before, seen = Run(world.url), []

            def look(world: World = world, before: Run = before, seen: list[bool] = seen) -> None:
                seen.append(read(world.url) == values)
                seen.append(before.block("layers/stem/activation", 1, 2).shape == (1, 2, 3))
                seen.append(plain(before.values("step")) == values["step"])

            with world.trouble(at, "EIO" if make is folder_world else "error", look):
                compact(world.url)
            assert seen == [True] * 3
            assert plain(before.values("step")) == values["step"]
            assert read(world.url) == values


@pytest.mark.parametrize("how", ["kill", "done", "error", "lost", "repeated"])
def test_over_what_an_interrupted_one_left_in_a_bucket(files: dict[str, bytes], how: str) -> None:
    total, values = calls_of(BucketWorld, files)
    for at in range(2, total + 1, max(1, total // 7)):
        with BucketWorld() as world:
            world.load(files)
            with suppress(Killed, StoreError), world.trouble(at, how):
                compact(world.url)
            world.clock.expire()
            assert verify(world.url).sound
            assert read(world.url) == values
            compact(world.url)
            assert Root.read(world.url).format == FORMAT
            gc(world.url)
            assert verify(world.url).sound
            assert read(world.url) == values


@pytest.mark.parametrize("how", ["error", "late"])
@pytest.mark.parametrize("other", ["compacts", "records", "collects"])
def test_one_that_is_stopped_and_overtaken_harms_nobody(files: dict[str, bytes], how: str, other: str) -> None:
    """Its process sleeps at a request until its lease has run out, and wakes when another has done its work."""
    (total, values), came = calls_of(BucketWorld, files), 0
    for at in count(2, max(1, total // 7)):
        with BucketWorld() as world:
            world.load(files)
            done: list[str] = []

            def another(world: World = world, done: list[str] = done) -> None:
                world.clock.expire()
                if other != "records":
                    compact(world.url)
                if other == "collects":
                    gc(world.url)
                if other == "records":
                    commit_result(world.url, "r", RESULT)
                done.append(other)

            with suppress(Killed, StoreError), world.trouble(at, how, another) as calls:
                compact(world.url)
            if how == "late":
                another()
                world.arrive()
            world.clock.expire()
            verdict = verify(world.url)
            assert verdict.problems == ()
            found = read(world.url)
            assert {name: found[name] for name in values} == values
            # A sleeper that renews its lease just then, on a busy machine, is waited for, and the other may not come.
            assert len(Run(world.url).results("r")) == (other == "records" and bool(done))
            came += len(done)
        if at > total:
            assert came
            assert calls.count < at
            return


def test_a_training_that_writes_meanwhile_refuses_it_and_goes_on(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    values = read(tmp_path)
    with RunWriter.open(tmp_path) as writer:
        refused(lambda: compact(tmp_path), "is being written by")
        writer.result("r", RESULT)
    assert compact(tmp_path)
    found = read(tmp_path)
    assert {name: found[name] for name in values} == values
