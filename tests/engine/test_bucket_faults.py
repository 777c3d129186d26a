"""A writer in a bucket that dies or fails at any request leaves whole commits, and can be continued."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, client, exists, gc, lease, locate, repair, verify
from featdyn.testing import sample_run
from tests.engine import small_run
from tests.engine.buckets import Clock, Faults, Late, Short, contents, without_takeovers
from tests.engine.faults import Killed
from tests.engine.runs import encode_once, refused

from obstore.exceptions import GenericError  # isort: skip
from obstore.store import MemoryStore  # isort: skip


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let time pass on demand, no lease be renewed in the background, and zarr encode each dataset once."""
    found = Clock()
    encode_once(monkeypatch)
    monkeypatch.setattr(lease, "now", found)
    monkeypatch.setattr(lease, "RENEWED", 1e6)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of the same run in a folder."""
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    small_run.record(path)
    return contents(path)


def check(url: str, whole: dict[str, bytes]) -> int:
    """Check that a store holds some commits of the whole run; return how many."""
    if not exists(url):
        refused(lambda: Run(url), "nothing there|first checkpoint never came")
        return 0
    run = Run(url)
    for t in range(run.checkpoints):
        np.testing.assert_array_equal(run.block("layers/a/activation", t, 1), [[t, 2]])
        np.testing.assert_array_equal(run.block("norm", t, 1), [small_run.norm(t, 2)])
    np.testing.assert_array_equal(run.values("checkpoint"), np.arange(run.checkpoints))
    assert verify(url).sound
    for commit in run.commits:
        for record in (commit.manifest, *commit.files(url)):
            assert run.place.read(record.path) == whole[record.path]
    return len(run.commits)


def equal(url: str, whole: dict[str, bytes]) -> bool:
    found = contents(url)
    for name in ("zarr.json", "commits/root.json"):
        found[name] = without_takeovers(found[name])
    return found == whole


HOW = ["error", "lost", "repeated", "kill", "done"]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("how", "every"),  # who is killed is at each request; the others may miss one
    [("kill", 1)] + [case for how in HOW if how != "kill" for case in ((how, 2), pytest.param(how, 1, marks=SLOW))],
)
def test_a_fault_at_requests(clock: Clock, whole: dict[str, bytes], how: str, every: int) -> None:
    at, seen = 1 - every, set()
    while True:
        at += every
        store = MemoryStore()
        faults, message = Faults(store, at, how), ""
        try:
            with faults.installed() as url:
                small_run.record(url)
        except (Killed, StoreError) as error:
            message = str(error) or "killed"
        if faults.count < at:  # all are done
            break
        assert how != "repeated" or not message  # what the client repeats by itself is no error
        assert "\n" not in message
        assert message in ("", "killed") or "cannot be reached" in message, message
        with Faults(store).installed() as url:
            seen.add(check(url, whole))
            clock.expire()
            small_run.record(url)
            assert equal(url, whole), at
    assert at > 50
    # A lost answer: to a conditional put it is read back, and what only follows a commit is made up for with the next.
    assert seen == {"repeated": {3}, "lost": {0, 3}}.get(how, {0, 1, 2, 3})


def test_faults_in_a_row(clock: Clock, whole: dict[str, bytes]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        store = MemoryStore()
        for _ in range(4):
            try:
                with Faults(store, int(generator.integers(1, 120)), str(generator.choice(HOW))).installed() as url:
                    small_run.record(url)
            except (Killed, StoreError):
                pass
            with Faults(store).installed() as url:
                check(url, whole)
            clock.expire()
        with Faults(store).installed() as url:
            small_run.record(url)
            assert equal(url, whole)


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let what is recorded from now on have other values."""

    def fill(checkpoint: Any) -> None:
        t = checkpoint.index
        checkpoint.write("checkpoint", np.array(t))
        for block in range(small_run.SCHEMA.blocks):
            rows = range(small_run.SAMPLES)[small_run.SCHEMA.block_slice(block)]
            checkpoint.write("layers/a/activation", np.array([[7, row] for row in rows], np.float32), block)
            checkpoint.write("norm", np.array([7.0 for _ in rows], np.float32), block)
        checkpoint.put(f"checkpoints/{t:06d}/model.safetensors", [b"other weights %d" % t])

    return lambda: monkeypatch.setattr(sample_run, "fill", fill)


@pytest.mark.parametrize(
    ("arrival", "first", "every"),  # of the requests that are held back, each third arrives first, 17th or last
    [(1, 1, 3), (17, 2, 3), (10**6, 3, 3)]
    + [pytest.param(arrival, 1, 1, marks=SLOW) for arrival in (1, 10, 17, 20, 24, 29, 40, 10**6)],
)
def test_no_request_of_a_writer_that_was_stopped_spoils_what_the_next_one_commits(
    clock: Clock, other: Callable[[], None], monkeypatch: pytest.MonkeyPatch, arrival: int, first: int, every: int
) -> None:
    """A request is held back; another writer takes over and writes other values; meanwhile it arrives."""
    mine, at, stopped = sample_run.fill, first - every, 0
    while True:
        at += every
        monkeypatch.setattr(sample_run, "fill", mine)
        store = MemoryStore()
        late = Late(store, at)
        try:
            with late.installed() as url:
                small_run.record(url)
            break
        except Killed:
            pass
        clock.expire()
        other()

        class During(Faults):
            def __getattr__(self, name: str) -> Callable[..., Any]:
                call = super().__getattr__(name)

                def arriving(*args: Any, **keywords: Any) -> Any:
                    if self.count + 1 == arrival and not late.arrived:  # noqa: B023
                        late.arrive()  # noqa: B023
                    return call(*args, **keywords)

                return arriving

        for _ in range(3):  # who finds an object of a writer that is still there stops, and is started again
            try:
                with During(store).installed() as url:
                    small_run.record(url)
                break
            except StoreError as error:
                assert re.search("open the store again|is being written|a store is there already", str(error))  # noqa: PT017
                stopped += 1
                clock.expire()
        if not late.arrived:
            late.arrive()
        with Faults(store).installed() as url:
            run = Run(url)
            assert verify(url).sound, (at, late.held)
            assert run.checkpoints == small_run.CHECKPOINTS
    assert at > 50
    assert stopped <= 12  # it is rare that the next writer has to be started again


def test_a_writer_that_lost_its_lease_stops(clock: Clock) -> None:
    with Faults(MemoryStore()).installed() as url:
        small_run.record(url, "c")
        with RunWriter.open(url) as writer:
            refused(
                lambda: RunWriter.open(url), r"is being written by process \d+ on .*\(if it is gone already, try aga"
            )
            clock.expire()
            with RunWriter.open(url) as second:
                before = contents(url)
                refused(lambda: writer.checkpoint().write("checkpoint", np.array(1)), "this writer's lease ended")
                with pytest.raises(StoreError, match="this writer's lease ended"), writer.checkpoint() as checkpoint:
                    small_run.fill(checkpoint)
                refused(lambda: writer.result("r", small_run.RESULT), "this writer's lease ended")
                assert contents(url) == before
                with second.checkpoint() as checkpoint:
                    small_run.fill(checkpoint)
        assert Run(url).checkpoints == 2
        assert verify(url).sound


def test_a_writer_whose_clock_is_wrong_does_not_overwrite_rows_that_another_has_committed(clock: Clock) -> None:
    store = MemoryStore()
    with Faults(store).installed() as url:
        small_run.record(url, "c")
        first = RunWriter.open(url)
        first.place._lease.check = lambda lasting=0.0: None  # type: ignore[method-assign]
        checkpoint = first.checkpoint()
        checkpoint.write("norm", np.array([7.0, 7.0], np.float32), 0)
        first.place._client._store = Faults(store, 1)
        with pytest.raises(StoreError, match="cannot be reached"):
            checkpoint.write("norm", np.array([8.0, 8.0], np.float32), 0)
        clock.expire()
        small_run.record(url, "cc")
        first.place._client._store = store
        for block in (0, 1):
            with pytest.raises(StoreError, match="another writer"):
                checkpoint.write("norm", np.array([7.0] * (2 - block), np.float32), block)
        run = Run(url)
        assert run.block("norm", 1, 0).tolist() == [small_run.norm(1, 0), small_run.norm(1, 1)]
        assert verify(url).sound


def test_a_writer_that_slept_goes_on_if_nobody_came(clock: Clock) -> None:
    with Faults(MemoryStore()).installed() as url:
        small_run.record(url, "c")
        with RunWriter.open(url) as writer:
            clock.expire()
            with writer.checkpoint() as checkpoint:
                small_run.fill(checkpoint)
        RunWriter.open(url).close()  # given back, so at once
        assert Run(url).checkpoints == 2


def test_a_lease_is_renewed_while_its_process_works(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(lease, "RENEWED", 0.005)
    renewed, renew = threading.Event(), lease.Lease._renew

    def renewing(self: lease.Lease) -> None:
        renew(self)
        renewed.set()

    monkeypatch.setattr(lease.Lease, "_renew", renewing)
    with Faults(MemoryStore()).installed() as url:
        small_run.record(url, "c")
        with RunWriter.open(url):
            for _ in range(4):
                clock.time += lease.SECONDS / 2
                renewed.clear()
                assert renewed.wait(240)
                renewed.clear()
                assert renewed.wait(240)  # one that began after the clock was set
                refused(lambda: RunWriter.open(url), "is being written by")


def test_a_server_without_conditional_puts_is_refused() -> None:
    class Careless(Faults):
        def __getattr__(self, name: str) -> Callable[..., Any]:
            call = super().__getattr__(name)
            if name != "put":
                return call
            return lambda *args, mode=None, **keywords: call(*args, **keywords)

    with Careless(MemoryStore()).installed() as url:
        refused(lambda: small_run.record(url), "this object store has no conditional puts")
        assert contents(url) == {}


def test_after_a_commit_that_failed_the_writer_goes_no_further(clock: Clock) -> None:
    store = MemoryStore()
    with Faults(store).installed() as url:
        small_run.record(url, "c")
        with RunWriter.open(url) as writer:
            faults = Faults(store)
            writer.place._client._store = faults
            # Nobody knows whether the root was put: the request for it fails, and so does the one to read it back.
            faults.__dict__["put"] = _failing_root(store.put)
            faults.__dict__["get"] = _failing_root(store.get)
            with pytest.raises(StoreError, match="cannot be reached"), writer.checkpoint() as checkpoint:
                small_run.fill(checkpoint)
            refused(lambda: writer.result("r", small_run.RESULT), "open the store again")
        refused(lambda: RunWriter.open(url), "is being written by")  # a put may be under way: the lease runs out
        clock.expire()
        small_run.record(url)
        assert Run(url).checkpoints == 2
        assert verify(url).sound


def _failing(*args: Any, **keywords: Any) -> Any:
    from obstore.exceptions import GenericError

    raise GenericError("kind: Connect")


def _failing_root(request: Callable[..., Any]) -> Callable[..., Any]:
    def failing(path: str, *args: Any, **keywords: Any) -> Any:
        return _failing() if path == "zarr.json" else request(path, *args, **keywords)

    return failing


class Outage(Faults):
    """An object store that fails to answer what is asked of some objects, so many times in a row."""

    def __init__(self, store: MemoryStore, said: str, times: float, path: str = "") -> None:
        super().__init__(store)
        self.said, self.left, self.path = said, times, path

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = super().__getattr__(name)

        def failing(*args: Any, **keywords: Any) -> Any:
            if self.path in str(args[:1]) and name != "put" and self.left > 0:
                self.left -= 1
                raise GenericError(self.said)
            return call(*args, **keywords)

        return failing


PASSING = ["status code: 503 Service Unavailable: <Code>SlowDown</Code>", "kind: Timeout", "connection reset by peer"]
LASTING = ["status code: 403 Forbidden: <Code>AccessDenied</Code>", "NoSuchBucket"]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long reads have waited, in no time."""
    found: list[float] = []
    time = SimpleNamespace(sleep=found.append, monotonic=lambda: sum(found))
    monkeypatch.setattr(client, "time", time)
    return found


@pytest.mark.parametrize("said", PASSING)
def test_a_read_is_tried_again_with_growing_pauses(clock: Clock, slept: list[float], said: str) -> None:
    store = MemoryStore()
    with Faults(store).installed() as url:
        small_run.record(url)
    for path in ("zarr.json", "commits/000002.json", "checkpoint/c.1"):
        with Outage(store, said, 3, path).installed() as url:
            assert verify(url).sound
        assert slept == [client.PAUSE, 2 * client.PAUSE, 4 * client.PAUSE]
        slept.clear()


@pytest.mark.parametrize("said", PASSING + LASTING)
@pytest.mark.parametrize("path", ["checkpoint/c.1", "commits/000002.json", "results/", "zarr.json"])
def test_what_does_not_answer_is_not_damaged(clock: Clock, slept: list[float], said: str, path: str) -> None:
    store = MemoryStore()
    with Faults(store).installed() as url:
        small_run.record(url)
        before = contents(url)
    with Outage(store, said, math.inf, path).installed() as url:
        if path == "zarr.json":
            refused(lambda: verify(url), "answered 503|no answer in time|connection reset|access denied|no such bucket")
        else:
            verdict = verify(url)
            assert (verdict.problems, len(verdict.unknown)) == ((), 1)
        waited = sum(slept)
        # For a stated time, and not anew for each request; what will not pass is not waited for.
        assert waited == 0 if said in LASTING else 0 < waited <= client.READING
        refused(lambda: repair(url), "answered 503|no answer in time|connection reset|access denied|no such bucket")
        clock.expire()
        for tool in (gc, RunWriter.open):
            with suppress(StoreError):
                tool(url)
            clock.expire()
    with Faults(store).installed() as url:
        after = contents(url)
        assert all(after[name] == before[name] for name in before if name not in ("zarr.json", "commits/root.json"))
        assert Run(url).checkpoints == 2
        assert verify(url).sound


def test_an_answer_that_was_cut_short_is_none(clock: Clock, slept: list[float]) -> None:
    store = MemoryStore()
    with Faults(store).installed() as url:
        small_run.record(url)
        place = locate(url)
        whole = place.read("checkpoint/c.1")

        place._client._store = SimpleNamespace(get=lambda path: Short(store.get(path)))
        with pytest.raises(OSError, match="cut short"):
            place.read("checkpoint/c.1")
        assert len(whole) == 8


@pytest.mark.parametrize("plan", ["c", "ccr"])
def test_the_two_places_hold_the_same(tmp_path: Path, plan: str) -> None:
    with Faults(MemoryStore()).installed() as url:
        small_run.record(url, plan)
        small_run.record(tmp_path / "run.zarr", plan)
        assert contents(url) == contents(tmp_path / "run.zarr")
