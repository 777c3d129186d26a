"""Who may write at a place: one at a time, and who comes after one that is gone."""

# ruff: noqa: D102  the names of tests say what is promised

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy

import pytest

from featdyn.errors import StoreError
from featdyn.store.place import Place
from featdyn.store.right import HeldError, Lock


def locked(place: Place) -> Lock:
    """Return the lock of a place, taken."""
    place.make()
    lock = place.lock()
    lock.acquire()
    return lock


class WriterTests:
    """What :class:`~featdyn.store.place.Place` says of its lock and its turn."""

    @pytest.fixture
    def abandon(self) -> Callable[[Lock], None]:
        """Return how a process that holds a lock is gone: here the system gives the lock back."""
        return lambda lock: lock.release()

    def test_a_second_writer_is_refused_in_one_line(self, place: Place) -> None:
        first, second = locked(place), copy(place).lock()
        for _ in range(2):
            with pytest.raises(HeldError, match="is being written by") as caught:
                second.acquire()
            assert "\n" not in str(caught.value)
            assert (first.held, second.held) == (True, False)
        first.check()
        first.release()
        first.release()  # again: nothing happens
        second.acquire()
        assert (first.held, second.held, second.taken_over) == (False, True, False)
        second.release()

    def test_of_many_writers_at_once_one_gets_the_place(self, place: Place) -> None:
        place.make()
        locks = [copy(place).lock() for _ in range(6)]
        together, got = threading.Barrier(len(locks)), []

        def take(lock: Lock) -> None:
            together.wait()
            with suppress(HeldError):
                lock.acquire()
                got.append(lock)

        threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [lock.held for lock in locks].count(True) == len(got) == 1
        for lock in got:
            lock.release()

    def test_who_waits_gets_it_when_it_is_given_back(self, place: Place) -> None:
        first, second = locked(place), copy(place).turn()
        if first is not place.turn():  # the turn is a lock of its own
            first.release()
            first = place.turn()
            first.acquire()
        with pytest.raises(HeldError):
            second.acquire(0.01)
        timer = threading.Timer(0.05, first.release)
        timer.start()
        second.acquire(30)
        timer.join()
        assert second.held
        second.release()

    def test_who_comes_after_one_that_is_gone_writes_over_what_was_left(
        self, place: Place, abandon: Callable[[Lock], None]
    ) -> None:
        first = locked(place)
        place.write("a/b", [b"left"])
        time.sleep(0.002)  # a clock that tells them apart
        abandon(first)
        after = copy(place)
        with after.lock() as second:
            record = after.write("a/b", [b"anew"])
            after.settle(["a/b"])
            if first.held and first is not second:  # it sleeps, and does not know
                calls: list[Callable[[], object]] = [
                    lambda: place.write("a/b", [b"late"]),
                    lambda: place.replace("root", b"late"),
                    lambda: place.publish("root", b"late", place.version("root")),
                    lambda: place.remove("a/b"),
                ]
                for call in calls:
                    with pytest.raises(StoreError, match="this writer's lease ended"):
                        call()
                first.release()
                second.check()
            assert after.check(record) is None
            assert after.fetch("root") is None
