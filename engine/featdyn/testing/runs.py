"""The life of a run at a place: recorded, read, asked, damaged, repaired, cleared; and one that can only be read."""

# ruff: noqa: D102  the names of tests say what is promised

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from functools import partial

import numpy as np
import pytest

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, commit_result, exists, gc, repair, verify
from featdyn.store.lock import is_lock
from featdyn.store.place import Place
from featdyn.store.right import Lock
from featdyn.testing.sample_run import RESULT, SCHEMA, STATIC, check, fill, record

PLAN = "ccrc"


def contents(place: Place) -> dict[str, bytes]:
    """Return every file of a place but those of locks."""
    return {path: place.read(path) for path in place.listing() if not is_lock(path)}


def refused(call: Callable[[], object], message: str = "") -> None:
    """Check that a call is refused in one line."""
    with pytest.raises(StoreError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def create(place: Place) -> RunWriter:
    """Begin a run."""
    return RunWriter.create(place, SCHEMA, static=STATIC, attributes={"n": 1})


class RunTests:
    """What SPEC.md promises of a run, at an empty ``place``."""

    def test_a_run_is_seen_commit_by_commit(self, place: Place) -> None:
        refused(lambda: Run(copy(place)), f"{place.absent}|not a featdyn store")
        assert not exists(copy(place))
        seen: list[Run] = []
        for number in range(1, len(PLAN) + 1):
            with RunWriter.open(place) if exists(place) else create(place) as writer:
                if PLAN[number - 1] == "r":
                    assert writer.result("r", RESULT) == f"results/r/{number:06d}"
                else:
                    with writer.checkpoint() as checkpoint:
                        fill(checkpoint)
                        if seen:
                            assert len(Run(copy(place)).commits) == number - 1
                        else:
                            assert not exists(copy(place))
            seen.append(Run(copy(place)))
            for commits, run in enumerate(seen, 1):  # what was opened before does not move
                assert len(run.commits) == commits
                check(run)
                np.testing.assert_array_equal(run.tree["layers/a/activation"], run.values("layers/a/activation"))
        assert [run.checkpoints for run in seen] == [1, 2, 2, 3]
        verdict = verify(copy(place))
        assert (verdict.sound, verdict.commits) == (True, len(PLAN))

    def test_results_are_committed_between_checkpoints_or_refused(self, place: Place) -> None:
        record(place, "c")
        run = Run(copy(place))
        with RunWriter.open(copy(place)) as writer:
            if writer.place.turn() is writer._lock:
                refused(lambda: commit_result(run, "r", RESULT, patience=0), "is being written by")
            else:
                assert commit_result(run, "r", RESULT) == "results/r/000002"
            with writer.checkpoint() as checkpoint:
                fill(checkpoint)
        path = commit_result(run, "r", RESULT)
        after = Run(copy(place))
        assert (after.results("r")[-1], after.result("r").attrs["input_commit"]) == (path, 1)
        check(after)
        assert verify(copy(place)).sound

    def test_nothing_is_left_of_a_run_without_a_commit(self, place: Place) -> None:
        with create(place) as writer:
            writer.checkpoint().write("checkpoint", np.array(0))
        assert not exists(copy(place))
        record(copy(place), "c")
        check(Run(copy(place)))

    def test_what_is_there_is_not_written_over(self, place: Place) -> None:
        record(place, "c")
        before = contents(place)
        refused(lambda: create(copy(place)), "a store is there already")
        with RunWriter.open(copy(place)):
            for tool in (RunWriter.open, repair, gc):
                refused(partial(tool, copy(place)), "is being written by")
            check(Run(copy(place)))  # who reads needs no lock
        assert contents(place) == before

    def test_what_is_no_run_is_left_alone(self, place: Place) -> None:
        place.make()
        with place.lock():
            place.write("notes.txt", [b"mine"])
        before = contents(place)
        refused(lambda: create(copy(place)), "not empty and not a featdyn store")
        for tool in (Run, RunWriter.open, verify, repair, gc):
            refused(partial(tool, copy(place)), "not a featdyn store")
        assert contents(place) == before

    def test_readers_while_a_writer_writes(self, place: Place) -> None:
        record(place, "c")
        begun, done, seen, errors = threading.Event(), threading.Event(), set(), []

        def read() -> None:
            try:
                while not done.is_set():
                    run = Run(copy(place))
                    check(run)
                    seen.add(len(run.commits))
                    begun.set()
            except BaseException as error:
                errors.append(error)
                begun.set()

        thread = threading.Thread(target=read)
        thread.start()
        begun.wait()
        for number in range(2, 7):
            record(copy(place), "ccrccr"[:number])
        done.set()
        thread.join()
        assert not errors
        assert seen
        assert verify(copy(place)).sound

    def test_what_a_killed_writer_left_is_written_anew_or_cleared(
        self, place: Place, abandon: Callable[[Lock], None]
    ) -> None:
        record(place, "cc")
        before = contents(place)
        writer = RunWriter.open(copy(place))
        fill(writer.checkpoint())
        abandon(writer._lock)
        check(Run(copy(place)))
        garbage = gc(copy(place), dry_run=True)
        assert garbage.removed
        assert not garbage.foreign
        assert gc(copy(place)).removed == garbage.removed
        assert contents(place).keys() == before.keys()
        assert (Run(copy(place)).checkpoints, verify(copy(place)).sound) == (2, True)
        writer = RunWriter.open(copy(place))
        fill(writer.checkpoint())
        abandon(writer._lock)
        record(copy(place), "ccc")
        check(Run(copy(place)))
        assert (Run(copy(place)).checkpoints, gc(copy(place)).removed) == (3, {})

    @pytest.mark.parametrize("damaged", [2, 3, 4])
    def test_damage_is_named_and_a_repair_loses_no_more_than_it_must(self, place: Place, damaged: int) -> None:
        record(place, PLAN)
        undisturbed, commit = contents(place), Run(copy(place)).commits[damaged - 1]
        for record_ in (commit.manifest, commit.files(copy(place))[-1]):
            content = bytearray(undisturbed[record_.path])
            content[0] ^= 1
            with place.lock():
                place.replace(record_.path, bytes(content))
            verdict = verify(copy(place))
            assert [problem.partition(": ")[0] for problem in verdict.problems] == [record_.path]
            assert (verdict.damaged, verdict.unknown) == ((damaged,), ())
            found = repair(copy(place))
            assert (found.changed, found.verdict.problems) == (True, verdict.problems)
            run = Run(copy(place))
            kept = {2: (1, []), 3: (3, []), 4: (2, ["results/r/000003"])}[damaged]
            assert (run.checkpoints, run.results("r"), verify(copy(place)).sound) == (*kept, True)
            check(run)
            gc(copy(place))
            if damaged == 3:
                return  # its number is not given again
            record(copy(place), PLAN)
            assert contents(place) == undisturbed
            assert verify(copy(place)).sound

    def test_damage_in_the_first_commit_changes_nothing(self, place: Place) -> None:
        record(place, PLAN)
        path = Run(copy(place)).commits[0].files(copy(place))[0].path
        with place.lock():
            place.replace(path, b"damaged")
        before = contents(place)
        refused(lambda: repair(copy(place)), "reaches the first commit")
        assert contents(place) == before


class ReadOnlyTests:
    """What is promised where nothing can be written; ``place`` holds what ``record(place, PLAN)`` wrote."""

    PLAN = PLAN

    @pytest.fixture
    def place(self) -> Place:
        """Return the place, of which nothing can be changed."""
        raise NotImplementedError

    def test_a_run_is_read(self, place: Place) -> None:
        run = Run(place)
        assert (run.checkpoints, run.results("r")) == (3, ["results/r/000003"])
        check(run)
        assert verify(place).sound

    def test_who_would_write_is_refused_in_one_line_and_changes_nothing(self, place: Place) -> None:
        before, run = contents(place), Run(place)
        tools: list[Callable[[], object]] = [
            lambda: RunWriter.open(copy(place)),
            lambda: repair(copy(place)),
            lambda: gc(copy(place)),
            lambda: commit_result(run, "r", RESULT),
        ]
        for tool in tools:
            refused(tool, "cannot be written")
        assert contents(copy(place)) == before
