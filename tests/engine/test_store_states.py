"""Writers, readers, analyses, repairs and collections in any order, each call of which may fail, against a dictionary.

Whatever happens, no committed byte is gone or changed, no wrong byte is read as right, and every error is a clear line.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, client, commit_result, exists, gc, publish, repair, verify
from featdyn.store.gathered import Rows
from featdyn.store.root import NAME
from featdyn.testing.sample_run import SAMPLES, SCHEMA, STATIC
from tests.engine.faults import Killed
from tests.engine.worlds import BucketWorld, FolderWorld, World

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
WRITERS = st.sampled_from([0, 1])
begun = precondition(lambda self: self.model)


@dataclass(frozen=True)
class Entry:
    """What one commit holds, told from all others by its value; a result was computed from the commit ``source``."""

    value: int
    source: int | None = None  # None: a checkpoint

    def write(self, writer: RunWriter) -> None:
        if self.source is not None:
            writer.result("r", self.dataset().assign_attrs(input_commit=self.source))
            return
        with writer.checkpoint() as checkpoint:
            checkpoint.write("checkpoint", np.array(checkpoint.index))
            for block in range(SCHEMA.blocks):
                rows = range(SAMPLES)[SCHEMA.block_slice(block)]
                values = np.array([[self.value, row] for row in rows], np.float32)
                checkpoint.write("layers/a/activation", values, block)
                checkpoint.write("norm", values.sum(1), block)
            checkpoint.put(f"checkpoints/{checkpoint.index:06d}/model.safetensors", [b"weights %d" % self.value])

    def dataset(self) -> xr.Dataset:
        return xr.Dataset({"value": ("probe", np.arange(3.0) + self.value)})


class Store(RuleBasedStateMachine):
    """``model`` is commit number to what it holds; a number that is missing in between was dropped."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[int, Entry] = {}
        self.writers: list[RunWriter | None] = [None, None]
        self.readers: list[tuple[Run, dict[int, Entry]]] = []
        self.values, self.tried, self.done = 0, [], []

    def teardown(self) -> None:
        for writer in filter(None, self.writers):
            self.world.gone(writer._lock)
        self.world.__exit__()

    # What somebody does, and what has become of it

    def attempt(self, call: Callable[[], Any], entry: Entry | None = None, trouble: Any = None) -> str:
        """Let somebody do something, perhaps in trouble; return "done", "killed", or how it was refused."""
        if entry is not None:
            self.tried.append(entry)
        try:
            with trouble or nullcontext():
                call()
        except Killed:
            return "killed"
        except StoreError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return str(error)
        if entry is not None:
            self.done.append(entry)
        return "done"

    def settle(self) -> None:
        """Learn which of the commits that were tried have come: all that were reported, and nothing else."""
        found = Run(self.world.url) if exists(self.world.url) else None
        known = max(self.model, default=0)
        for commit in found.commits[known:] if found else ():
            path = f"{commit.name}/value"
            value = found.values(path)[0] if commit.kind == "result" else found.block(LAYER, int(commit.name), 0)[0, 0]
            come = [e for e in self.tried if e.value == value and (e.source is None) == (commit.kind == "checkpoint")]
            assert come, f"nobody wrote {commit.label}"
            self.model[commit.number] = come[0]
            self.tried.remove(come[0])
        assert all(entry in self.model.values() for entry in self.done), "a commit that was reported is gone"
        self.done.clear()

    def entry(self, result: bool) -> Entry:
        self.values += 1
        return Entry(self.values, max(self.model) - self.values % len(self.model) if result and self.model else None)

    def troubled(self, data: st.DataObject, most: int = 60) -> Any:
        how = data.draw(st.sampled_from(["none", "none", *self.world.HOW]))
        return None if how == "none" else self.world.trouble(data.draw(st.integers(1, most)), how)

    def opened(self) -> RunWriter:
        if exists(self.world.url):
            return RunWriter.open(self.world.url)
        return RunWriter.create(self.world.url, SCHEMA, static=STATIC, attributes={"n": 1})

    def lose(self, number: int) -> None:
        """Let the process of a writer be gone, with all that it was about to do but what is on its way."""
        writer, self.writers[number] = self.writers[number], None
        if writer is not None:
            self.world.gone(writer._lock)

    # Writers

    @initialize(kinds=st.sampled_from(["", "c", "cr", "ccrc", "crrccr"]))
    def start_with(self, kinds: str) -> None:
        for kind in kinds:
            self.open(0)
            self.commit(0, kind == "r")
        assert len(self.model) == len(kinds)
        self.keep_a_reader()
        if len(kinds) % 2 == 0:
            self.stop(0)

    @rule(number=WRITERS)
    def open(self, number: int, trouble: Any = None) -> None:
        if self.writers[number] is not None:
            return

        def take() -> None:
            self.writers[number] = self.opened()

        said = self.attempt(take, trouble=trouble)
        if said == "killed":
            self.lose(number)
            self.world.clock.expire()

    @rule(number=WRITERS, data=st.data())
    def open_in_trouble(self, number: int, data: st.DataObject) -> None:
        self.open(number, self.troubled(data))

    @rule(number=WRITERS, result=st.booleans())
    def commit(self, number: int, result: bool, trouble: Any = None) -> None:
        writer = self.writers[number]
        if writer is None:
            return
        entry = self.entry(result)
        said = self.attempt(lambda: entry.write(writer), entry, trouble)
        self.settle()
        if said == "killed":
            self.lose(number)
        elif said != "done":
            self.stop(number)  # as people do, and open it again

    @rule(number=WRITERS, result=st.booleans(), data=st.data())
    def commit_in_trouble(self, number: int, result: bool, data: st.DataObject) -> None:
        self.commit(number, result, self.troubled(data))

    @rule(number=WRITERS, at=st.integers(1, 60), data=st.data())
    def commit_while_others_are_busy(self, number: int, at: int, data: st.DataObject) -> None:
        """At any call of a commit the other writer comes, maybe as the first one sleeps, or an analysis or a reader."""
        others = st.sampled_from(["takes over", "comes", "analyses", "reads", "collects", "repairs"])
        other = data.draw(others)

        def meanwhile() -> None:
            if other == "takes over":
                self.world.clock.expire()
            if other in ("takes over", "comes"):
                self.open(1 - number)
                if (writer := self.writers[1 - number]) is not None:
                    entry = self.entry(False)
                    if self.attempt(lambda: entry.write(writer), entry) != "done":
                        self.stop(1 - number)
            elif other == "analyses":
                self.analyse()
            elif other == "reads":
                self.keep_a_reader()
            else:
                self.attempt(lambda: (gc if other == "collects" else repair)(self.world.url))

        self.commit(number, False, self.world.trouble(at, self.world.HOW[0], meanwhile))

    @rule(number=WRITERS)
    def stop(self, number: int) -> None:
        writer, self.writers[number] = self.writers[number], None
        if writer is not None:
            self.attempt(writer.close)

    @rule(number=WRITERS)
    def kill(self, number: int) -> None:
        self.lose(number)

    @rule()
    def time_passes(self) -> None:
        self.world.clock.expire()

    @rule()
    def what_was_late_arrives(self) -> None:
        self.world.arrive()
        self.settle()

    # Analyses and readers

    @rule()
    def analyse(self, trouble: Any = None) -> None:
        if not self.readers:
            return
        run, entry = self.readers[-1][0], self.entry(True)
        entry = Entry(entry.value, run.commits[-1].number)
        self.attempt(lambda: commit_result(run, "r", entry.dataset(), patience=0), entry, trouble)

    @rule(data=st.data())
    def analyse_in_trouble(self, data: st.DataObject) -> None:
        self.analyse(self.troubled(data, 40))
        self.world.clock.expire()
        self.settle()

    @rule()
    def keep_a_reader(self) -> None:
        if self.model and exists(self.world.url):
            run = Run(self.world.url)
            known = dict(self.model)
            if len(run.commits) == max(known):
                self.readers = [*self.readers[-2:], (run, known)]

    @begun
    @rule(data=st.data())
    def read_in_trouble(self, data: st.DataObject) -> None:
        self.attempt(lambda: check(Run(self.world.url), self.model), trouble=self.troubled(data, 30))
        self.attempt(lambda: verify(self.world.url), trouble=self.troubled(data, 30))

    @rule()
    def read_what_was_opened_before(self) -> None:
        for run, known in self.readers:
            check(run, known)

    # Who is alone

    @rule(result=st.booleans())
    def go_on_alone(self, result: bool) -> None:
        """What failed, or was left by whoever is gone, keeps nobody from going on."""
        self.alone()
        self.open(0)
        assert self.writers[0] is not None
        known = max(self.model, default=0)
        self.commit(0, result)
        assert max(self.model) > known
        assert self.writers[0] is not None

    def alone(self) -> None:
        for number in (0, 1):
            self.stop(number)
        self.world.clock.expire()

    @begun
    @rule(data=st.data(), how=st.sampled_from(["flip", "cut", "lose"]))
    def damage_and_repair(self, data: st.DataObject, how: str) -> None:
        self.alone()
        self.world.arrive()
        self.settle()
        url, commits = self.world.url, Run(self.world.url).commits
        order = sorted(self.model, key=lambda n: (self.model[n].source is None, -n))  # more often results
        number = data.draw(st.sampled_from(order))
        listing = commits[number - 1].listing(url)
        record = data.draw(st.sampled_from([commits[number - 1].manifest, *listing.files, *listing.rows]))
        content = (place := Run(url).place).read(record.path)
        self.world.spoil(record.path, spoiled(content, how, data.draw(st.integers(0, 8 * len(content) - 1))))
        verdict = verify(url)
        if isinstance(record, Rows):  # which the manifests hold, too
            assert verdict.damaged == ()
            assert verdict.sound or verdict.mendable == (record.path,)  # or a bit of what is not committed
            self.attempt(lambda: repair(url), trouble=self.troubled(data))
            self.alone()
            assert self.attempt(lambda: repair(url)) == "done"
            return
        assert [problem.split(": ")[0] for problem in verdict.problems] == [record.path]
        trouble = self.troubled(data)
        if number == 1:
            assert self.attempt(lambda: repair(url), trouble=trouble) != "done"
            self.world.spoil(record.path, content)
            assert place.check(record) is None
            return
        self.attempt(lambda: repair(url), trouble=trouble)
        self.alone()
        assert self.attempt(lambda: repair(url)) == "done"
        self.model = standing(self.model, number)
        self.readers = [(run, known) for run, known in self.readers if known.items() <= self.model.items()]
        self.tried.clear()  # what is late for a root that was repaired is refused

    @begun
    @rule(data=st.data(), how=st.sampled_from(["flip", "cut", "lose"]))
    def damage_the_root_and_repair(self, data: st.DataObject, how: str) -> None:
        self.alone()
        self.world.arrive()
        self.open(0)  # by which its copies follow it
        self.alone()
        self.settle()
        content = Run(self.world.url).place.read(NAME)
        self.world.spoil(NAME, spoiled(content, how, data.draw(st.integers(0, 8 * len(content) - 1))))
        assert self.attempt(lambda: Run(self.world.url)) != "done"
        self.attempt(lambda: repair(self.world.url), trouble=self.troubled(data))
        self.alone()
        assert self.attempt(lambda: repair(self.world.url)) == "done"

    @begun
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        self.attempt(lambda: gc(self.world.url), trouble=self.troubled(data))
        self.world.clock.expire()

    # What holds at any time

    @invariant()
    def nothing_committed_is_gone_or_changed(self) -> None:
        self.settle()
        if not self.model:
            assert not exists(self.world.url)
            return
        verdict = verify(self.world.url)
        assert (verdict.sound, verdict.commits) == (True, max(self.model))
        check(Run(self.world.url), self.model)


LAYER = "layers/a/activation"


def spoiled(content: bytes, how: str, bit: int) -> bytes | None:
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return {"flip": bytes(flipped), "cut": content[: bit // 8], "lose": None}[how]


def standing(model: dict[int, Entry], damaged: int) -> dict[int, Entry]:
    """Return what stands of a model when one commit is damaged."""
    if model[damaged].source is not None:
        return {n: e for n, e in model.items() if n != damaged}
    return {n: e for n, e in model.items() if (n if e.source is None else e.source) < damaged}


def check(run: Run, model: dict[int, Entry]) -> None:
    """Check that a run holds what the model says, and nothing more."""
    checkpoints = [e for e in model.values() if e.source is None]
    results = {f"results/r/{n:06d}": e for n, e in model.items() if e.source is not None}
    assert run.checkpoints == len(checkpoints)
    assert run.values("checkpoint").tolist() == [*range(len(checkpoints))]
    assert run.results("r") == list(results)
    for t, entry in enumerate(checkpoints):
        for block, rows in ((0, [0, 1]), (1, [2])):
            np.testing.assert_array_equal(run.block(LAYER, t, block), [[entry.value, row] for row in rows])
            np.testing.assert_array_equal(run.block("norm", t, block), [entry.value + row for row in rows])
    for path, entry in results.items():
        np.testing.assert_array_equal(run.values(f"{path}/value"), np.arange(3.0) + entry.value)
        assert run.nodes[path]["attributes"]["input_commit"] == entry.source


class InFolder(Store):
    """In a folder."""

    def __init__(self) -> None:
        super().__init__()
        self.world = FolderWorld(Path(tempfile.mkdtemp(dir=MEMORY)))


class InBucket(Store):
    """In a bucket."""

    def __init__(self) -> None:
        super().__init__()
        self.world = BucketWorld()


KINDS = pytest.mark.parametrize("machine", [InFolder, InBucket])
QUICK = settings(deadline=None, max_examples=12, stateful_step_count=20, suppress_health_check=[*HealthCheck])


@KINDS
def test_any_life(machine: type[Store]) -> None:
    run_state_machine_as_test(machine, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@KINDS
def test_many_long_lives(machine: type[Store]) -> None:
    run_state_machine_as_test(machine, settings=settings(QUICK, max_examples=50, stateful_step_count=40))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "owner", "check", "without"),
    [
        (InFolder, publish.Publisher, "_catch_up", lambda self: None),
        (InBucket, client.Client, "put_if", lambda self, path, content, before: _put(self, path, content)),
    ],
)
def test_a_check_that_is_missing_is_found(
    monkeypatch: pytest.MonkeyPatch, machine: type[Store], owner: type, check: str, without: Callable[..., Any]
) -> None:
    """A writer that does not look what others committed; an object store that puts whatever the condition says."""
    monkeypatch.setattr(owner, check, without)
    with pytest.raises((AssertionError, StoreError)):
        run_state_machine_as_test(machine, settings=settings(QUICK, max_examples=200, phases=[Phase.generate]))


def _put(self: client.Client, path: str, content: bytes) -> Any:
    self._store.put(path, content)
    return client._version(self._store.head(path))[0]
