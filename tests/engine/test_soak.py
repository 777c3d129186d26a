"""Writers killed by SIGKILL at random moments: no committed byte is lost, no half commit seen, no error unclear."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from featdyn.store import Run, gc, verify
from featdyn.store.root import COPY
from tests.engine.forked import start
from tests.engine.runs import refused
from tests.engine.small_run import check, record, record_in_short_lives

LIFE = "ccrccrcrc"


def files_of(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def moment(path: Path) -> str:
    """Tell from what a killed writer left what it was doing."""
    if not path.exists():
        return "before its folder was there"
    if not (path / "zarr.json").exists():
        return "before the first commit"
    commits = len(Run(path).commits)
    garbage = gc(path, dry_run=True)
    assert not garbage.foreign
    if ".zarr.json.new" in garbage.removed:
        return "writing a root"
    if f"commits/{commits + 1:06d}.json" in garbage.removed:
        return "between manifest and root"
    behind = not (path / COPY).exists() or (path / COPY).read_bytes() != (path / "zarr.json").read_bytes()
    if behind or any(name.endswith(".new") for name in garbage.removed):
        return "after a commit, writing copies of it"
    return "writing a commit's files" if garbage.removed else "between commits, opening or ending"


def soak(folder: Path, kills: int, seed: int = 0) -> Counter[str]:
    """Kill writers so many times, each run until it is whole; return how often at which moment."""
    here, there = multiprocessing.Pipe()
    nursery = start(record_in_short_lives, LIFE, there)

    def live(path: Path, seconds: float | None = None) -> int:
        here.send((path, seconds))
        return here.recv()

    try:
        return _soak(folder, live, kills, seed)
    finally:
        nursery.kill()
        nursery.join()


def _soak(folder: Path, live: Callable[..., int], kills: int, seed: int) -> Counter[str]:
    whole = folder / "whole.zarr"
    record(whole, LIFE)
    durations = []
    for trial in range(3):
        begun = time.monotonic()
        assert live(folder / f"timed{trial}.zarr") == 0
        durations.append(time.monotonic() - begun)
    duration, expected = min(durations), files_of(whole)
    generator, moments, done, number = random.Random(seed), Counter(), 0, 0
    while done < kills:
        number += 1
        path, known = folder / f"{number}.zarr", 0
        while known < len(LIFE) and done < kills:
            status = live(path, generator.uniform(0, duration))
            assert status in (0, -signal.SIGKILL)
            if status:
                done += 1
                moments[moment(path)] += 1
            if not (path / "zarr.json").exists():
                assert not known
                refused(lambda path=path: Run(path), "no such folder|first checkpoint never came")
                continue
            run = Run(path)
            check(run)
            assert verify(path).sound
            assert len(run.commits) >= known  # what was committed once stays
            known = len(run.commits)
            for commit in run.commits:  # and is what an undisturbed run writes
                for record_ in (commit.manifest, *commit.files(path)):
                    assert (path / record_.path).read_bytes() == expected[record_.path]
        record(path, LIFE)
        gc(path)
        found = files_of(path)
        assert found.keys() == expected.keys()
        assert all(found[name] == expected[name] for name in expected if not name.startswith(".featdyn."))
        shutil.rmtree(path)
    return moments


@pytest.mark.slow
def test_ten_kills(folder: Path) -> None:
    assert sum(soak(folder, 10).values()) == 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hundred_kills(folder: Path) -> None:
    moments = soak(folder, 500)
    print(*(f"{count:4} {name}" for name, count in moments.most_common()), sep="\n")
    assert sum(moments.values()) == 500
    assert len(moments) >= 5  # they did fall at different moments
