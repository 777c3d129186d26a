"""Leases, locks and object stores by the clock: what holds until when, and what is said of an answer."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from featdyn.errors import StoreError
from featdyn.store import lease, locate, right
from featdyn.store.lease import NAME, SECONDS, Lease
from featdyn.store.lock import RANKS, TURN, WriterLock
from featdyn.store.record import Version
from tests.engine.buckets import Clock
from tests.engine.dict_place import Dictionary
from tests.engine.test_store_turns import failing


class Counting(Dictionary):
    """Puts of the lease, by what was put."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[bytes] = []

    def put_if(self, path: str, content: bytes, before: Version) -> Version:
        done = super().put_if(path, content, before)
        self.puts.append(content)
        return done


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(lease, "now", found)
    monkeypatch.setattr(lease, "RENEWED", 1e6)
    return found


def test_a_lease_is_renewed_as_soon_as_it_does_not_last_as_long_as_is_asked(clock: Clock) -> None:
    client = Counting()
    held = Lease(client, "r")
    held.acquire()
    client.puts.clear()
    for passed, lasting, renewed in (
        (SECONDS - 0.25, 0.0, 0), (0.0, 0.125, 0), (0.0, 0.25, 1), (0.0, 0.25, 0),  # to its end, not a moment less
        (SECONDS, 0.0, 1), (3 * SECONDS, 0.0, 1),
    ):  # fmt: skip
        clock.time += passed
        held.check(lasting) if lasting else held.check()
        assert len(client.puts) == renewed
        client.puts.clear()
    with pytest.raises(StoreError, match="lease ended, as it could not be renewed for 60 s"):
        held.check(SECONDS)  # which no lease lasts
    held.release()
    assert len(set(client.puts)) == len(client.puts)


def test_no_two_versions_of_a_lease_are_the_same_bytes(clock: Clock) -> None:
    """Of which many object stores make the version."""
    client = Counting()
    held = Lease(client, "r")
    held.acquire()
    for _ in range(3):
        held._renew()
    held.release()
    assert len(client.puts) > 4
    assert len(set(client.puts)) == len(client.puts)


@pytest.mark.parametrize(("left", "free"), [(0.6, False), (0.0, True), (-1.0, True)])
def test_a_lease_is_free_when_its_time_is_over(clock: Clock, left: float, free: bool) -> None:
    client = Dictionary()
    first, second = Lease(client, "r"), Lease(client, "r")
    first.acquire()
    assert (first.taken_over, first.sure) == (False, True)
    clock.time += SECONDS - left
    if not free:
        with pytest.raises(right.HeldError, match=r"if it is gone already, try again in 1 s"):
            second.acquire()
        return
    second.acquire()
    assert (second.taken_over, second.sure) == (True, False)  # the first may be about to replace the root
    second.sure = True
    second.release()
    third = Lease(client, "r")
    third.acquire()
    assert (third.taken_over, third.sure) == (False, True)
    third.release()


class Busy(right.Lock):
    """A right that another has, so many times."""

    def __init__(self, times: float) -> None:
        self.left, self.tried = times, 0

    @property
    def held(self) -> bool:
        return self.left <= 0

    def try_acquire(self) -> None:
        self.tried += 1
        if not self.held:
            self.left -= 1
            raise right.HeldError("busy")

    def release(self) -> None:
        pass


@pytest.mark.parametrize("patience", [None, 0.0, 0.5, 10.0])
def test_a_right_is_waited_for_as_long_as_is_said_and_asked_for_more_and_more_seldom(
    monkeypatch: pytest.MonkeyPatch, patience: float | None
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(right, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept)))
    never = Busy(float("inf"))
    with pytest.raises(right.HeldError):
        never.acquire() if patience is None else never.acquire(patience)
    waited, longest = sum(slept), max(slept, default=0.0)
    assert (waited == 0) == (not patience)
    assert (patience or 0.0) <= waited <= (patience or 0.0) + longest
    assert never.tried == len(slept) + 1
    assert slept == sorted(slept)
    assert longest <= 0.5  # nobody who is free is kept waiting longer
    soon = Busy(2)
    slept.clear()
    if patience:
        soon.acquire(patience)
        assert (soon.tried, sum(slept) < 0.1) == (3, True)


def test_the_files_of_locks_can_be_read_by_all_and_changed_by_their_owner(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with WriterLock(tmp_path) as lock:
            assert isinstance(lock, WriterLock)
            assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o644
            assert (tmp_path / NAME).read_text().startswith(f"process {os.getpid()} on ")
            assert not (tmp_path / RANKS).exists()
            lock.invite()
            assert (tmp_path / RANKS).exists()
            lock.remove()
            assert not (tmp_path / NAME).exists()
            assert not (tmp_path / TURN).exists()
        from featdyn.store.lease_file import LeaseFile

        LeaseFile(tmp_path).put_if("lock", b"mine", None)
        assert stat.S_IMODE((tmp_path / "lock.1").stat().st_mode) == 0o644
    finally:
        os.umask(before)


ANSWERS: dict[str, tuple[int, str]] = {
    "status code: 500 Internal Server Error": (errno.EIO, "the object store answered 500 Internal Server Error"),
    "status code: 503 Slow Down: <Code>Busy</Code>": (errno.EIO, "the object store answered 503 Slow Down: Busy"),
    "status code: 408 Request Timeout": (errno.EIO, "the object store answered 408 Request Timeout"),
    "status code: 429 Too Many Requests": (errno.EIO, "the object store answered 429 Too Many Requests"),
    "status code: 400 Bad Request": (errno.EINVAL, "the object store answered 400 Bad Request"),
    "status code: 409 Conflict": (errno.EINVAL, "the object store answered 409 Conflict"),
    "status code: 401 Unauthorized": (errno.EACCES, "access denied (401 Unauthorized): check the credentials"),
    "status code: 403 Forbidden: <Code>AccessDenied</Code>": (
        errno.EACCES, "access denied (403 Forbidden: AccessDenied): check the credentials",
    ),
    "x kind: Connect y": (errno.EIO, "cannot be reached: check the network, and AWS_ENDPOINT_URL if it is set"),
    "x kind: Timeout y": (errno.EIO, "no answer in time: check the network"),
    "status code: 404 Not Found: <Code>NoSuchBucket</Code>": (errno.EINVAL, "no such bucket"),
    "something odd\nin two lines": (errno.EIO, "something odd"),
    "x" * 200: (errno.EIO, "x" * 200),
    "x" * 201: (errno.EIO, "x" * 200),
}  # fmt: skip


@pytest.mark.parametrize("text", ANSWERS)
def test_what_an_object_store_answers_is_a_line_and_whether_it_may_pass(text: str) -> None:
    client = pytest.importorskip("featdyn.store.client")
    with pytest.raises(OSError) as raised, client.plainly():
        raise ValueError(text)
    assert (raised.value.errno, raised.value.strerror) == ANSWERS[text]


@pytest.mark.parametrize("patience", [0.0, 0.05, 0.1, 1.0, 20.0])
def test_pauses_double_up_to_a_bound_and_end_in_time(monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    client = pytest.importorskip("featdyn.store.client")
    now = [100.0]
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: now[0]))
    found = []
    for pause in client.pauses(patience):
        found.append(pause)
        now[0] += pause
    assert now[0] - 100 <= patience
    expected = [min(client.PAUSE * 2**i, client.LONGEST) for i in range(len(found))]
    assert found == pytest.approx(expected)
    assert sum(found) + min(client.PAUSE * 2 ** len(found), client.LONGEST) >= patience or not patience


@pytest.mark.parametrize(
    ("environment", "allowed"),
    [({}, False), ({"AWS_ALLOW_HTTP": "true"}, True), ({"AZURE_ALLOW_HTTP": "YES"}, True),
     ({"GOOGLE_ALLOW_HTTP": "1"}, True), ({"AWS_ALLOW_HTTP": "false"}, False), ({"AWS_ALLOW_HTTP": ""}, False)],
)  # fmt: skip
def test_a_client_is_as_patient_as_is_asked_and_speaks_http_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], allowed: bool
) -> None:
    client = pytest.importorskip("featdyn.store.client")
    for name in ("AWS", "AZURE", "GOOGLE"):
        monkeypatch.delenv(f"{name}_ALLOW_HTTP", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(client, "from_url", lambda url, **how: made.append((url, how)))
    client.connect("s3://bucket/a?b#c%20", {"timeout": 7, "retries": 2, "during": 11})
    ((url, how),) = made
    assert url == "s3://bucket/a%3Fb%23c%2520"
    assert (how["client_options"]["allow_http"], how["client_options"]["timeout"]) == (allowed, "7s")
    assert (how["retry_config"]["max_retries"], how["retry_config"]["retry_timeout"].total_seconds()) == (2, 11)
    backoff = how["retry_config"]["backoff"]
    assert backoff["init_backoff"] < backoff["max_backoff"]


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_what_is_written_renews_a_lease_only_where_it_would_not_last(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "bucket":
        pytest.importorskip("obstore")
        place = locate(f"memory://waiting{os.getpid()}")
    else:
        fcntl = pytest.importorskip("fcntl")
        monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
        place = locate(tmp_path)

    def leases() -> dict[str, bytes]:
        return {path: place.read(path) for path in place.listing() if path.startswith(NAME)}

    with place.lock():
        held = leases()
        assert held
        clock.time += SECONDS - 0.5
        place.write("a", [b"x"])
        place.replace("b", b"y")
        assert leases() == held
        assert place.snapshot(b"", {}).read_only
        clock.time += 0.5
        place.write("c", [b"x"])
        renewed = leases()
        assert renewed != held
        clock.time += SECONDS - 25  # a delete in a bucket has no condition, and has to be over before the lease is
        place.remove("a")
        assert (leases() != renewed) == (kind == "bucket")
