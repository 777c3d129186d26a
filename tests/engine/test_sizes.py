"""Sizes and times in words, what a process has, and what recording takes of a run: beside a clock and psutil."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featdyn.capture import meter
from featdyn.capture.meter import Meter
from featdyn.capture.recording_needs import RecordingNeeds
from featdyn.compute import plan
from featdyn.compute.plan import Limits, Plan, available, resident
from featdyn.errors import StoreError
from featdyn.sizes import counted, duration, singular, size
from featdyn.store.cost import Cost, cost_of, keep
from featdyn.store.files import Folder

BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SECONDS = {"s": 1, "min": 60, "h": 3600}


@given(st.integers(0, 2**55))
def test_a_size_is_what_it_says_in_the_largest_unit_of_which_there_is_one(n: int) -> None:
    number, unit = size(n).split()
    assert float(number) * BYTES[unit] == pytest.approx(n, abs=0.051 * BYTES[unit])
    assert unit == "B" or "." in number
    assert float(number) >= 1 or n == 0
    assert unit == "TiB" or float(number) <= 1024


def test_sizes_at_their_bounds() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536, 2**20 - 1, 2**20, 2**30, 2**40, 2**50)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1024.0 KiB", "1.0 MiB", "1.0 GiB", "1.0 TiB", "1024.0 TiB",
    ]  # fmt: skip


@given(st.floats(0.001, 1e7))
def test_a_time_is_what_it_says_to_two_digits(seconds: float) -> None:
    number, unit = duration(seconds).split()
    assert float(number.replace(",", "")) * SECONDS[unit] == pytest.approx(seconds, rel=0.051)
    assert seconds < 1 or float(number.replace(",", "")) >= 1
    assert "e" not in number or seconds < 1e-3


def test_times_at_their_bounds() -> None:
    assert [duration(s) for s in (0.25, 59, 60, 90, 3599, 3600, 99 * 3600, 360_000, 3.6e7)] == [
        "0.25 s", "59 s", "1 min", "1.5 min", "60 min", "1 h", "99 h", "100 h", "10,000 h",
    ]  # fmt: skip


def test_one_thing_is_said_in_the_singular() -> None:
    said = [counted(n, "layer") for n in (0, 1, 2, 1200)]
    assert said == ["0 layers", "1 layer", "2 layers", "1,200 layers"]
    assert singular("1 layers x 11 cuts x 1.1 parts, 1 sets") == "1 layer x 11 cuts x 1.1 parts, 1 set"


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs /proc")
def test_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resident() == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    assert available() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    monkeypatch.setattr(plan, "Path", lambda _: Path("/nowhere"))
    assert (resident(), available()) == (0, None)


def test_what_fits_to_the_byte() -> None:
    two = Plan("work", 2, 0, task={"a": 30}, state={"b": 5}, result={"c": 7})
    assert two.fits(Limits(limit=2 * 35 + 7 + 100, base=100, threads=2, here=True))
    assert not two.fits(Limits(limit=2 * 35 + 7 + 99, base=100, threads=2, here=True))
    assert two.fits(Limits(limit=2 * 35 + 100, base=100, threads=2, here=False))
    assert two.fits(Limits(limit=None, base=100, threads=2, here=True))
    two.announce(177, 100, threads=2, here=True)
    with pytest.raises(
        Exception, match=re.escape("needs 177 B of memory in a process (100 B of it is taken already; 2 at")
    ):
        two.announce(176, 100, threads=2, here=True)


def test_a_recording_fits_to_the_byte() -> None:
    needs = RecordingNeeds({"a": 100, "b": 20}, state=8, checkpoints=2, memory=0, free=256)
    assert needs.disk == 256
    needs.check("here")
    replace(needs, free=None).check("in a bucket")
    with pytest.raises(StoreError, match="here: needs 256 B, 255 B are free"):
        replace(needs, free=255).check("here")


class Clock:
    """Seconds that pass when told so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(meter, "perf_counter", made)
    return made


def test_recording_is_counted_once_where_it_is_within_itself(clock: Clock) -> None:
    taken = Meter()
    clock.now += 10  # training
    for _ in range(2):
        with taken:
            clock.now += 2
            with taken:
                clock.now += 3
            clock.now += 1
        clock.now += 4  # training
    assert taken.cost == Cost(recording=12.0, run=30.0)
    assert taken.cost.share == 0.4
    assert str(taken.cost) == "recording has taken 40.0% of the run's time (12 of 30 s)"
    assert Cost().share == 0.0


def test_a_run_goes_on_with_what_the_store_has_and_tells_at_most_once_a_minute(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Folder(tmp_path)
    assert cost_of(place) is None
    keep(Cost(recording=5.0, run=100.0), place)
    assert cost_of(place) == Cost(5.0, 100.0)
    taken = Meter()
    clock.now += 8  # to set up, which is recording
    taken.follow(place)
    clock.now += 51.5
    taken.tell(place)
    assert capsys.readouterr().err == ""  # the first minute is not over
    clock.now += 0.5
    taken.tell(place)
    assert capsys.readouterr().err.endswith("recording has taken 8.1% of the run's time (13 of 160 s)\n")
    assert cost_of(place) == Cost(13.0, 160.0)
    clock.now += 59
    taken.tell(place)
    assert capsys.readouterr().err == ""
    clock.now += 1
    taken.quiet = True
    taken.tell(place)
    assert capsys.readouterr().err == ""
    taken.quiet = False
    taken.tell(place)
    assert "(13 of 220 s)" in capsys.readouterr().err
