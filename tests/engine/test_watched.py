"""How often a store that is watched is looked at, by a clock that is told, and what is shown while it is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from featdyn.errors import StoreError
from featdyn.report import watched
from featdyn.report.watched import Shown, Watched


class World:
    """A store, a clock, and how long a look takes."""

    def __init__(self, *, lasting: bool) -> None:
        self.now, self.takes, self.looks, self.made = 100.0, 0.0, 0, 0
        self.place = SimpleNamespace(lasting=lasting)
        self.commits = [self.commit(1)]
        self.lost = False

    @staticmethod
    def commit(number: int, document: str = "") -> Any:
        return SimpleNamespace(number=number, document=document or f"commit {number}")

    def run(self, store: Any) -> Any:
        assert store in ("store", self.place)
        self.looks += 1
        self.now += self.takes
        if self.lost:
            raise StoreError("gone")
        return SimpleNamespace(place=self.place, commits=list(self.commits), name="r")

    def show(self, run: Any, known: Any) -> Shown:
        self.made += 1
        return Shown("r", run.commits[-1].number, [], [], {}, {})


@pytest.fixture
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(lasting=getattr(request, "param", False))
    monkeypatch.setattr(watched, "Run", made.run)
    monkeypatch.setattr(watched, "_show", made.show)
    monkeypatch.setattr(watched, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def looks(world: World, found: Watched, after: float) -> bool:
    """Return whether who asks so many seconds later makes it look."""
    world.now, before = world.now + after, world.looks
    found.look()
    return world.looks > before


@pytest.mark.parametrize(("world", "every"), [(False, 1.0), (True, 10.0)], indirect=["world"])
def test_a_folder_is_looked_at_each_second_and_a_bucket_every_ten(world: World, every: float) -> None:
    found = Watched("store")
    assert world.looks == 1
    assert not looks(world, found, every - 0.01)
    assert looks(world, found, 0.01)
    assert not looks(world, found, every - 0.01)
    assert looks(world, found, 0.01)


def test_looking_takes_a_fifth_of_the_time_at_most(world: World) -> None:
    found = Watched("store")
    world.takes = 3.0
    assert looks(world, found, 1.0)
    assert not looks(world, found, 11.99)  # four times what that took
    assert looks(world, found, 0.01)
    world.takes = 0.1
    assert looks(world, found, 12.0)
    assert not looks(world, found, 0.99)
    assert looks(world, found, 0.01)


def test_only_what_is_new_is_made_and_a_problem_is_shown_until_it_is_over(world: World) -> None:
    found = Watched("store")
    assert looks(world, found, 1.0)
    assert world.made == 1  # nothing is new
    world.commits.append(world.commit(2))
    assert looks(world, found, 1.0)
    assert (world.made, found.look().commit) == (2, 2)
    world.lost = True
    assert looks(world, found, 1.0)
    assert (found.look().problem, found.look().commit, world.made) == ("gone", 2, 2)
    world.lost = False
    assert looks(world, found, 1.0)
    assert (found.look().problem, world.made) == ("", 2)
    world.commits[-1] = world.commit(2, "another")  # dropped, and written anew
    assert looks(world, found, 1.0)
    assert world.made == 3
    del world.commits[-1]
    assert looks(world, found, 1.0)
    assert (world.made, found.look().commit) == (4, 1)


def test_what_differs_has_another_tag(world: World) -> None:
    shown = Shown("r", 1, [], [], {}, {"a": "x"})
    tags = {shown.tag, Shown("r", 2, [], [], {}, {"a": "x"}).tag, Shown("r", 1, [], [], {}, {"a": "x"}, "p").tag}
    assert len(tags | {Shown("r", 1, [], [], {}, {"a": "y"}).tag}) == 4
    assert Shown("r", 1, [], [], {}, {"a": "x"}).tag == shown.tag
    assert all(len(tag) >= 16 for tag in tags)
