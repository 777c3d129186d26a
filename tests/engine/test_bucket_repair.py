"""Repair and garbage collection in a bucket: as in a folder, and safe from what fails, is late or comes meanwhile."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from featdyn.capture.open_store import open_store
from featdyn.capture.ranks import Ranks
from featdyn.errors import StoreError
from featdyn.store import Run, RunPart, RunWriter, gc, lease, locate, repair, verify
from tests.engine import small_run
from tests.engine.buckets import Clock, Faults, Late, contents, without_takeovers
from tests.engine.faults import Killed
from tests.engine.runs import refused
from tests.engine.test_capture import make_probes

from obstore.store import MemoryStore  # isort: skip

PLAN = "ccrc"
ROOTS = ("zarr.json", "commits/root.json")
DAMAGE = {
    "layers/a/activation/c.2.1.0": b"torn",  # the last checkpoint: goes alone
    "checkpoint/c.1": None,  # takes the result and the last checkpoint with it
    "results/r/000003/value/c/0": b"",  # goes alone, and leaves its number
    "commits/000004.json": b"{}",
    "zarr.json": b"{",
}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(lease, "now", found)
    monkeypatch.setattr(lease, "RENEWED", 1e6)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a folder, beside what a killed writer left."""
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    small_run.record(path, PLAN)
    (path / "layers/a/activation/c.3.0.0").write_bytes(b"left")
    (path / "notes.txt").write_text("mine")
    return path


def upload(folder: Path) -> MemoryStore:
    store = MemoryStore()
    for path, content in contents(folder).items():
        store.put(path, content)
    return store


def damage(store: MemoryStore, folder: Path, path: str) -> None:
    content = DAMAGE[path]
    if content is None:
        store.delete(path)
        (folder / path).unlink()
    else:
        store.put(path, content)
        (folder / path).write_bytes(content)


def known(found: dict[str, bytes]) -> dict[str, bytes]:
    """Return the same without what tells how often a writer took over."""
    return found | {name: without_takeovers(found[name]) for name in ROOTS if name in found}


@pytest.mark.parametrize("path", DAMAGE)
def test_a_bucket_is_repaired_and_cleared_as_a_folder_is(whole: Path, tmp_path: Path, path: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run.zarr"))
    store = upload(folder)
    damage(store, folder, path)
    with Faults(store).installed() as url:
        assert repair(url) == repair(folder)
        assert contents(url) == contents(folder)
        assert verify(url).sound
        assert gc(url, dry_run=True) == gc(folder, dry_run=True)
        found = gc(url)
        assert found == gc(folder)
        assert "layers/a/activation/c.3.0.0" in found.removed
        assert found.foreign == ("notes.txt",)
        assert contents(url) == contents(folder)
        for place in (url, folder):
            small_run.record(place, PLAN)
        assert contents(url) == contents(folder)
        assert verify(url).sound
        assert Run(url).checkpoints == 3


SLOW = pytest.mark.slow  # the other kinds go the same ways through the code


@pytest.mark.parametrize("how", [pytest.param("error", marks=SLOW), pytest.param("lost", marks=SLOW), "kill", "done"])
def test_a_fault_at_every_request_of_a_repair_and_of_gc(clock: Clock, whole: Path, tmp_path: Path, how: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run.zarr"))
    store = upload(folder)
    damage(store, folder, "checkpoint/c.1")
    before = contents(folder)
    repair(folder)
    gc(folder)
    at, seen = 0, set()
    while True:
        at += 1
        store = MemoryStore()
        for name, content in before.items():
            store.put(name, content)
        faults = Faults(store, at, how)
        with suppress(Killed, StoreError), faults.installed() as url:
            repair(url)
            gc(url)
        if faults.count < at:
            break
        with Faults(store).installed() as url:
            run = Run(url)
            seen.add(len(run.commits))
            assert verify(url).sound == (len(run.commits) == 1)
            clock.expire()
            repair(url)
            gc(url)
            assert known(contents(url)) == known(contents(folder)), at
    assert at > 40
    assert seen == {1, 4}


def begun() -> MemoryStore:
    """Return a bucket that holds a run of one checkpoint."""
    store = MemoryStore()
    with Faults(store).installed() as url:
        small_run.record(url, "c")
    return store


@pytest.mark.parametrize(
    ("tool", "soon"),
    [
        (gc, True),
        (repair, False),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((gc, False), (repair, True))),
    ],
)
def test_no_request_of_a_writer_that_was_stopped_spoils_what_comes_after_it(clock: Clock, tool, soon: bool) -> None:
    """Each request of a writer in turn is held back; it arrives after gc or a repair, or when the run has gone on."""
    at = 0
    while True:
        at += 1
        store = begun()
        late = Late(store, at)
        try:
            with late.installed() as url:
                small_run.record(url, "cc")
            break
        except Killed:
            clock.expire()
        with Faults(store).installed() as url:
            tool(url)
            if not soon:
                small_run.record(url, "ccr")
            before = contents(url)
            late.arrive()
            after = contents(url)
            assert after["zarr.json"] == before["zarr.json"], (at, late.held)
            assert soon or after["commits/root.json"] == before["commits/root.json"], (at, late.held)
            small_run.record(url, "ccr")
            assert (Run(url).checkpoints, verify(url).sound) == (2, True)
            assert locate(url).read("zarr.json") == locate(url).read("commits/root.json")
    assert at > 25


def test_who_fails_while_it_takes_over_leaves_the_next_one_a_warning(clock: Clock) -> None:
    at = 0
    while True:
        at += 1
        store = begun()
        late = LateRoot(store)
        with suppress(Killed), late.installed() as url:
            small_run.record(url, "cc")
        clock.expire()
        faults = Faults(store, at)
        with suppress(StoreError), faults.installed() as url:
            RunWriter.open(url).close()
        clock.expire()
        with Faults(store).installed() as url:
            gc(url)
            late.arrive()
            assert (Run(url).checkpoints, verify(url).sound) == (1, True), at
        if faults.count < at:
            break
    assert at > 10


def test_a_delete_needs_a_lease_that_outlasts_it(clock: Clock, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Faults(upload(whole)).installed() as url, RunWriter.open(url) as writer:
        clock.time += lease.SECONDS - 20
        monkeypatch.setattr(lease.Lease, "_renew", lambda self: None)  # it does not get through
        writer.place.replace("notes.txt", b"a put may still be made")
        refused(lambda: writer.place.remove("notes.txt"), "this writer's lease ended")
        assert writer.place.exists("notes.txt")


def test_gc_removes_nothing_without_its_lease_or_of_another_root(
    clock: Clock, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = upload(whole)
    with Faults(store).installed() as url:
        before, place = contents(url), type(locate(url))
        listing = place.listing

        def slow(self):
            clock.time += lease.SECONDS + 1
            with RunWriter.open(url):  # who comes as the lease has run out
                return listing(self)

        def careless(self):
            store.put("zarr.json", without_takeovers(before["zarr.json"]) + b"\n")
            return listing(self)

        monkeypatch.setattr(place, "listing", slow)
        refused(lambda: gc(url), "another writer has come meanwhile: nothing was removed|lease ended")
        monkeypatch.setattr(place, "listing", careless)
        refused(lambda: gc(url), "another writer has come meanwhile: nothing was removed")
        monkeypatch.undo()
        found = contents(url)
        assert found.keys() == before.keys()
        assert all(found[name] == before[name] for name in found if name not in ROOTS)


class LateRoot(Late):
    """Holds the first replacement of a root back."""

    def __getattr__(self, name):
        call = super().__getattr__(name)

        def late(path=None, *args, **keywords):
            if name == "put" and path == "zarr.json" and not self.dead:
                self.at = self.count + 1
            return call(path, *args, **keywords) if path is not None else call(*args, **keywords)

        return late


class Several(Ranks):
    """Rank 0 of two, as far as it gets alone."""

    def __init__(self) -> None:
        super().__init__()
        self.several = True

    def first(self, work):
        return work()


def test_several_ranks_are_refused_before_anything_is_there() -> None:
    message = "several processes cannot record into one store in a bucket: give a folder that all ranks share"
    with Faults(MemoryStore()).installed() as url:
        given = Several(), url, small_run.SCHEMA, make_probes(), [], {}
        refused(lambda: open_store(*given, overwrite=False, accept_changes=False), message)
        refused(lambda: RunPart(url, small_run.SCHEMA, 0, ""), message)
        assert locate(url).empty()
        with RunWriter.create(url, small_run.SCHEMA, static={}, attributes={}) as writer:
            refused(writer.invite, message)
