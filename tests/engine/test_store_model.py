"""Any order of commits, kills, reads, damage, repairs and clearing, against a dictionary of what must be there."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, gc, repair, verify
from featdyn.store.lock import NAME, TURN
from featdyn.store.root import COPY, Root
from tests.engine.faults import Faults, Killed
from tests.engine.runs import refused
from tests.engine.small_run import SCHEMA, STATIC, fill

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
idle = precondition(lambda self: self.writer is None and self.model)
writing = precondition(lambda self: self.writer is not None)
writing_on = precondition(lambda self: self.writer is not None and self.model)


@dataclass(frozen=True)
class Entry:
    """What one commit holds: the checkpoint of this number, or the result of this name, value and input."""

    checkpoint: int | None = None
    result: str = ""
    value: float = 0.0
    source: int = 0


class Store(RuleBasedStateMachine):
    """``model`` is commit number to what it holds; a number that is missing in between was dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = tempfile.TemporaryDirectory(dir=MEMORY)
        self.path = Path(self.memory.name) / "run.zarr"
        self.model: dict[int, Entry] = {}
        self.writer: RunWriter | None = None
        self.readers: list[tuple[Run, dict[int, Entry]]] = []

    def teardown(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.memory.cleanup()

    @property
    def checkpoints(self) -> int:
        return sum(e.checkpoint is not None for e in self.model.values())

    # Writing

    @initialize(kinds=st.sampled_from(["", "c", "cr", "ccrcrr", "crcrcrc", "crrccrrcc"]))
    def start_with(self, kinds: str) -> None:
        if kinds:
            self.begin_or_resume()
        for number, kind in enumerate(kinds, 1):
            if kind == "c":
                self.record()
            else:
                known = [n for n, e in self.model.items() if e.checkpoint is not None]
                self.add_result("rs"[number % 2], number, known[-1 - number % min(2, len(known))])
        if len(kinds) % 2:
            self.stop()

    @precondition(lambda self: self.writer is None)
    @rule()
    def begin_or_resume(self) -> None:
        if self.model:
            self.writer = RunWriter.open(self.path)
        else:
            self.writer = RunWriter.create(self.path, SCHEMA, static=STATIC, attributes={"n": 1})

    @writing
    @rule()
    def stop(self) -> None:
        self.writer.close()
        self.writer = None

    @writing
    @rule()
    def record(self) -> None:
        self.model[max(self.model, default=0) + 1] = Entry(self.checkpoints)
        with self.writer.checkpoint() as checkpoint:
            fill(checkpoint)

    @writing_on
    @rule(name=st.sampled_from("rs"), value=st.integers(0, 9), data=st.data())
    def analyse(self, name: str, value: int, data: st.DataObject) -> None:
        self.add_result(name, value, data.draw(st.sampled_from(sorted(self.model, reverse=True))))

    def add_result(self, name: str, value: int, source: int) -> None:
        number = max(self.model) + 1
        entry = Entry(None, f"results/{name}/{number:06d}", value, source)
        assert self.writer.result(name, dataset(entry)) == entry.result
        self.model[number] = entry

    @writing
    @rule(at=st.integers(1, 70), kill=st.booleans(), as_result=st.booleans())
    def die_or_fail(self, at: int, kill: bool, as_result: bool) -> None:
        number = max(self.model, default=0) + 1
        entry = Entry(self.checkpoints)
        if as_result and self.model:
            entry = Entry(None, f"results/r/{number:06d}", at, number - 1)
        with suppress(Killed, StoreError), Faults(at, kill=kill).installed():
            if entry.checkpoint is None:
                self.writer.result("r", dataset(entry))
            else:
                with self.writer.checkpoint() as checkpoint:
                    fill(checkpoint)
        if kill:
            self.writer._lock.release()  # as the system does when the process is gone
        else:
            self.writer.close()
        self.writer = None
        if (self.path / "zarr.json").exists() and len(Root.read(self.path).commits) == number:
            self.model[number] = entry

    @writing
    @rule()
    def nobody_else_may_write(self) -> None:
        calls = [lambda: RunWriter.create(self.path, SCHEMA, static=STATIC, attributes={})]
        if self.model:
            calls = [lambda call=call: call(self.path) for call in (RunWriter.open, repair, gc)]
        for call in calls:
            refused(call, "is being written by")

    # Reading

    @rule()
    def read(self) -> None:
        if self.model:
            check(Run(self.path), self.model)
        else:
            refused(lambda: Run(self.path), r"no such folder|first checkpoint never came")

    @precondition(lambda self: self.model)
    @rule()
    def keep_a_reader(self) -> None:
        self.readers = [*self.readers[-2:], (Run(self.path), dict(self.model))]

    @rule()
    def read_what_was_opened_before(self) -> None:
        for run, known in self.readers:
            check(run, known)

    # Damage

    @idle
    @rule(data=st.data(), how=st.sampled_from(["flip", "cut", "lose"]))
    def damage_and_repair(self, data: st.DataObject, how: str) -> None:
        commits = Root.read(self.path).commits
        order = sorted(self.model, key=lambda n: (self.model[n].checkpoint is not None, -n))  # more often results
        commit = commits[data.draw(st.sampled_from(order)) - 1]
        record = data.draw(st.sampled_from([commit.manifest, *commit.files(self.path)]))
        content = (self.path / record.path).read_bytes()
        spoil(self.path / record.path, how, data.draw(st.integers(0, 8 * len(content) - 1)))
        verdict = verify(self.path)
        assert [problem.split(": ")[0] for problem in verdict.problems] == [record.path]
        assert verdict.damaged == (commit.number,)
        if commit.number == 1:
            refused(lambda: repair(self.path), "reaches the first commit")
            (self.path / record.path).write_bytes(content)
            return
        expected = standing(self.model, commit.number)
        assert len(verdict.lost) == len(self.model) - len(expected)
        found = repair(self.path)
        assert found.verdict == verdict
        self.readers = [(run, known) for run, known in self.readers if known.items() <= expected.items()]
        self.model = expected

    @idle
    @rule(how=st.sampled_from(["flip", "cut", "lose"]), place=st.integers(0, 10**6))
    def damage_the_root_and_repair(self, how: str, place: int) -> None:
        if not (self.path / COPY).exists() or (self.path / COPY).read_bytes() != (self.path / "zarr.json").read_bytes():
            return  # a writer was killed before it wrote the copy: a repair would drop back by that commit
        good = (self.path / "zarr.json").read_bytes()
        spoil(self.path / "zarr.json", how, place % (8 * len(good)))
        refused(lambda: Run(self.path), f"damaged|newer|missing|run: featdyn verify {self.path} --repair")
        assert repair(self.path).source == COPY
        assert (self.path / "zarr.json").read_bytes() == good

    @idle
    @rule()
    def clear(self) -> None:
        (self.path / "mine.txt").write_text("mine")
        found = gc(self.path)
        assert found.foreign == ("mine.txt",)
        (self.path / "mine.txt").unlink()
        root = Root.read(self.path)
        named = {"zarr.json", COPY, NAME, TURN, *(f"{p}/zarr.json" for p in root.nodes)}
        for commit in root.commits:
            named |= {commit.manifest.path, *(record.path for record in commit.files(self.path))}
        there = {p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()}
        assert there <= named
        assert named - there <= {COPY, *(p for p in named if p.endswith("/zarr.json"))}  # of a writer that was killed

    @invariant()
    def everything_committed_is_sound(self) -> None:
        if self.model:
            verdict = verify(self.path)
            assert verdict.sound
            assert verdict.commits == max(self.model)


def dataset(entry: Entry) -> xr.Dataset:
    return xr.Dataset({"value": ("probe", np.arange(3.0) + entry.value)}, attrs={"input_commit": entry.source})


def spoil(path: Path, how: str, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.unlink()
    if how != "lose":
        path.write_bytes(content if how == "flip" else content[: place // 8])


def standing(model: dict[int, Entry], damaged: int) -> dict[int, Entry]:
    """Return what stands of a model when one commit is damaged."""
    if model[damaged].checkpoint is None:
        return {n: e for n, e in model.items() if n != damaged}
    return {n: e for n, e in model.items() if (n if e.checkpoint is not None else e.source) < damaged}


def check(run: Run, model: dict[int, Entry]) -> None:
    """Check that a run holds what the model says, and nothing more."""
    checkpoints = [e.checkpoint for e in model.values() if e.checkpoint is not None]
    results: dict[str, Any] = {e.result: e for e in model.values() if e.result}
    assert run.checkpoints == len(checkpoints) == run.tree.sizes["checkpoint"]
    assert checkpoints == run.values("checkpoint").tolist()
    assert [c.name for c in run.commits if c.kind == "result"] == list(results)
    for t in checkpoints:
        for block, rows in ((0, [0, 1]), (1, [2])):
            np.testing.assert_array_equal(run.block("layers/a/activation", t, block), [[t, row] for row in rows])
    for path, entry in results.items():
        np.testing.assert_array_equal(run.values(f"{path}/value"), np.arange(3.0) + entry.value)


TestStore = Store.TestCase
TestStore.settings = settings(deadline=None, max_examples=20, stateful_step_count=25)


@pytest.mark.slow
class TestStoreAtLength(Store.TestCase):
    """The same, of more and longer lives."""

    settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
