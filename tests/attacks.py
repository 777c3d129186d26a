"""The table of attacks in the store's SPEC.md: what is promised, what was tried against it, how often, what came of it.

``python -m tests.attacks [FILE]`` tries all of them, in minutes, prints the table, and writes it between the marks of a
file; it ends with 1 where a promise was broken. ``--every 40`` tries each fortieth only.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, commit_result, datasets, exists, gc, repair, verify
from featdyn.store.place import FileRecord
from featdyn.testing import sample_run
from featdyn.testing.sample_run import RESULT, check, fill, record
from tests.engine.buckets import contents, without_takeovers
from tests.engine.faults import Killed
from tests.engine.worlds import ERRORS, BucketWorld, FolderWorld, PowerWorld, World

SPEC = Path(__file__).parents[1] / "engine/featdyn/store/SPEC.md"
MARKS = ("<!-- attacks: python -m tests.attacks engine/featdyn/store/SPEC.md -->\n", "<!-- end of attacks -->\n")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
WHOLE = "ccrcr"  # the run that all go on to
Broken = str | None  # what was broken in one trial


@dataclass(frozen=True)
class Act:
    """Something that changes a store, and can be done again when it failed."""

    name: str
    plan: str  # of the store before
    do: Callable[[Any], object]
    damaged: int | None = None  # a checkpoint's commit whose tensors are damaged before
    left: bool = False  # whether a killed writer has left files before

    def prepare(self, world: World) -> None:
        if self.plan:
            record(world.url, self.plan)
        if self.damaged is not None:
            files = Run(world.url).commits[self.damaged - 1].files(world.url)
            path = next(r.path for r in files if r.path.endswith(".safetensors"))
            world.spoil(path, b"W" + Run(world.url).place.read(path)[1:])
        if self.left:
            writer = RunWriter.open(world.url)
            fill(writer.checkpoint())
            world.gone(writer._lock)

    def committed(self, world: World) -> list[FileRecord]:
        """Return all files that are committed and not damaged."""
        commits = Run(world.url).commits if self.plan else ()
        return [r for c in commits if c.number != self.damaged for r in (c.manifest, *c.files(world.url))]

    def finish(self, world: World) -> dict[str, bytes]:
        """Go on to the end of the whole run; return its files."""
        world.clock.expire()
        self.do(world.url)
        record(world.url, WHOLE)
        gc(world.url)
        return {path: _plain(content) for path, content in contents(world.url).items()}


def _plain(content: bytes) -> bytes:
    return without_takeovers(content) if b'"root_crc32c"' in content else content


def analyse(url: Any) -> None:
    if not Run(url).results("r"):
        commit_result(Run(url), "r", RESULT, patience=0)


ACTS = (
    Act("a first checkpoint", "", partial(record, plan="c")),
    Act("a checkpoint", "ccr", partial(record, plan="ccrc")),
    Act("a result", "cc", analyse),
    Act("a repair", "ccrc", repair, damaged=4),
    Act("a collection of garbage", "cc", gc, left=True),
)


def folder_world(kind: Callable[[Path], World] = FolderWorld) -> World:
    return kind(Path(tempfile.mkdtemp(dir=MEMORY)))


def power_world() -> World:
    return folder_world(PowerWorld)


def trials(make: Callable[[], World], act: Act, hows: tuple[str, ...], share: bool, every: int) -> Iterator[Broken]:
    """Yield what is broken after each of some faults at each call of an act, one trial after the other.

    With ``share`` each call meets one of the faults only; ``every`` is how many calls there are to one that is tried.
    """
    with make() as world:
        act.prepare(world)
        files, begun, kept = contents(world.url) if act.plan else {}, len(act.plan), act.committed(world)
        act.do(world.url)
        done = len(Run(world.url).commits)
        expected = act.finish(world)
    for number, how in enumerate(hows):
        for at in count(1 + number % every, every) if not share else count(1 + number * every, every * len(hows)):
            with make() as world:
                world.load(files)
                said, calls = _done(world, act, at, how)
                yield said or _wrong(world, act, kept, begun) or _after(world, act, done, expected, said == "")
            if calls.count < at:
                break


def _done(world: World, act: Act, at: int, how: str) -> tuple[Broken, Any]:
    """Return what is wrong with how an act ended, "" where it was done, None where it was refused or killed."""
    said: Broken = ""
    with suppress(Killed), world.trouble(at, how) as calls:
        said = None
        try:
            act.do(world.url)
            said = ""
        except StoreError as error:
            said = None if "\n" not in str(error) else f"an error of several lines: {error}"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
    return said, calls


def _wrong(world: World, act: Act, kept: list[FileRecord], begun: int) -> Broken:
    """Return what a reader finds wrong."""
    if not exists(world.url):
        return "the store is gone" if begun else None
    try:
        run, verdict = Run(world.url), verify(world.url)
        gone = next(filter(None, map(run.place.check, kept)), None)
        check(run)
    except (StoreError, AssertionError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    if gone or (verdict.problems and verdict.damaged != (act.damaged,)) or verdict.unknown:
        return gone or (verdict.problems + verdict.unknown)[0]
    return None


def _after(world: World, act: Act, done: int, expected: dict[str, bytes], returned: bool) -> Broken:
    """Return what is wrong with what was reported, or with what the next writer ends with."""
    if returned and len(Run(world.url).commits) != done:
        return "what was reported as done is not there"
    try:
        found = act.finish(world)
    except StoreError as error:
        return f"nobody can go on: {error}"
    different = sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path))
    return f"the next writer ends with another {different[0]}" if different else None


def takeovers(how: str, every: int) -> Iterator[Broken]:
    """Yield what is broken when a writer in a bucket is stopped at each request until its lease has run out.

    Another one commits other values meanwhile; then ``late`` lets the request arrive, ``meanwhile`` the writer go on.
    """
    for at in count(1, every):
        with BucketWorld() as world:
            record(world.url, "c")
            kept: list[FileRecord] = []

            def another(world: World = world, kept: list[FileRecord] = kept) -> None:
                world.clock.expire()
                with mock.patch.object(sample_run, "fill", other_values):
                    for _ in range(3):  # who meets what the first one writes stops, and is started again
                        with suppress(StoreError):
                            record(world.url, "cc" + "r" * (len(Run(world.url).commits) > 1))
                            break
                        world.clock.expire()
                commits = Run(world.url).commits
                kept += [r for c in commits for r in (c.manifest, *c.files(world.url))]

            with suppress(Killed, StoreError), world.trouble(at, how, another) as calls:
                record(world.url, "cc")
            if how == "late":
                another()
                world.arrive()
            place = Run(world.url).place
            gone = next(filter(None, map(place.check, kept)), None)
            yield gone or next(iter(verify(world.url).problems), None)
            if calls.count < at and not calls.dead:  # one that is held back is not counted
                return


def other_values(checkpoint: Any) -> None:
    """Write a checkpoint as the sample run's, with other values."""
    checkpoint.write("checkpoint", np.array(checkpoint.index))
    for block, rows in ((0, 2), (1, 1)):
        checkpoint.write("layers/a/activation", np.full((rows, 2), 7, np.float32), block)
    checkpoint.put(f"checkpoints/{checkpoint.index:06d}/model.safetensors", [b"other weights"])


def signals(number: signal.Signals, every: int) -> Iterator[Broken]:
    """Yield what is broken when a real process that records is killed, or stopped for a time, at a random moment."""
    generator = random.Random(0)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        begun = time.monotonic()
        record(Path(folder, "whole.zarr"), WHOLE)
        duration, expected = time.monotonic() - begun, contents(Path(folder, "whole.zarr"))
        for trial in range(-(-400 // every)):
            url = Path(folder, f"{trial}.zarr")
            child = os.fork()
            if not child:
                with suppress(BaseException):
                    record(url, WHOLE)
                os._exit(0)
            ended = os.pidfd_open(child)
            over = select.select([ended], [], [], generator.uniform(0, duration))[0]
            os.kill(child, number)
            broken = _wrong_now(url, stopped=number == signal.SIGSTOP and not over)
            os.kill(child, signal.SIGCONT)
            os.waitpid(child, 0)
            os.close(ended)
            record(url, WHOLE)
            gc(url)
            yield broken or (None if contents(url) == expected else "the next writer ends with other bytes")


def _wrong_now(url: Path, *, stopped: bool) -> Broken:
    """Return what is wrong while a writer is stopped, or gone: a reader sees whole commits, a writer is refused."""
    if not exists(url):
        return None
    try:
        check(Run(url))
        if not verify(url).sound:
            return verify(url).problems[0]
        RunWriter.open(url).close()
    except StoreError as error:
        return None if "is being written by" in str(error) else str(error)
    return None


def rows() -> dict[tuple[str, str], Callable[[int], Iterator[Broken]]]:
    """Return what tries each row of the table: its promise and its attack."""
    stays = "what is committed stays, whole; whoever comes next ends with the same bytes"
    durable = f"{stays}; what was reported is there"
    found: dict[tuple[str, str], Callable[[int], Iterator[Broken]]] = {}

    def add(
        promise: str, attack: str, make: Callable[[], World], hows: tuple[str, ...], *, share: bool = False
    ) -> None:
        for act in ACTS:
            found[promise, f"{act.name}, {attack}"] = partial(trials, make, act, hows, share)

    add(stays, "killed at each change of a folder", folder_world, ("kill",))
    add(stays, f"each change of a folder fails ({', '.join(ERRORS)})", folder_world, ERRORS)
    reading = tuple(f"{code} reading" for code in ERRORS)
    add(stays, f"each look at a file fails (one of {', '.join(ERRORS)})", folder_world, reading, share=True)
    kept = "of what was not synced the least is kept, torn files, any part"
    add(durable, f"power lost at each change of a folder ({kept})", power_world, PowerWorld.HOW)
    lost = "not done, its answer lost, repeated, or cut short"
    add(stays, f"each request to a bucket fails ({lost})", BucketWorld, ("error", "lost", "repeated", "short"))
    add(stays, "killed before or after each request to a bucket", BucketWorld, ("kill", "done"))
    asleep = "no committed file is written over or removed by who was thought dead"
    found[asleep, "a bucket's writer sleeps at each request, another takes over, then it goes on"] = partial(
        takeovers, "error"
    )
    found[asleep, "each request is held back until another has taken over and committed"] = partial(takeovers, "late")
    found[stays, "SIGKILL of a process that writes a folder, at random"] = partial(signals, signal.SIGKILL)
    found[f"a second writer is refused, no reader is; {stays}", "SIGSTOP of such a process, at random"] = partial(
        signals, signal.SIGSTOP
    )
    return found


def table(every: int, only: str = "") -> tuple[str, bool]:
    """Return the table in Markdown, and whether every promise was kept."""
    lines, kept = ["| promise | attack | tries | result |\n|---|---|---:|---|\n"], True
    for (promise, attack), attempts in rows().items():
        if only not in attack:
            continue
        outcomes = [*attempts(every)]
        broken = [outcome for outcome in outcomes if outcome]
        result = f"BROKEN {len(broken)} times: {broken[0]}" if broken else "kept"
        lines.append(f"| {promise} | {attack} | {len(outcomes)} | {result} |\n")
        print(lines[-1], end="", file=sys.stderr, flush=True)
        kept &= not broken
    if every > 1:
        lines.append(f"\nOf the calls one in {every} was tried.\n")
    return "".join(lines), kept


def main() -> None:
    """Try all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--every", type=int, default=1, help="try each so many-th call only")
    parser.add_argument("--only", default="", help="rows whose attack holds this text")
    options = parser.parse_args()
    logging.getLogger("featdyn").setLevel(logging.ERROR)  # what may not outlast a power cut is tried here
    encode, known = datasets.encode, {}

    def encoded(dataset: Any, path: str) -> Any:  # equal runs, over and over
        key = path, str(dataset.attrs)
        if key not in known:
            known[key] = encode(dataset, path)
        return known[key]

    with mock.patch.object(datasets, "encode", encoded):
        text, kept = table(options.every, options.only)
    if options.file:
        inside = re.compile(f"(?<={re.escape(MARKS[0])}).*(?={re.escape(MARKS[1])})", re.DOTALL)
        options.file.write_text(inside.sub(lambda _: text, options.file.read_text()))
    else:
        print(text, end="")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
