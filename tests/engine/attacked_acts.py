"""A fault at each call of what changes a store, and what must hold after it, whoever comes next."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, commit_result, compact, exists, gc, repair, verify
from featdyn.store.record import FileRecord
from featdyn.testing.sample_run import RESULT, SCHEMA, STATIC, check, fill, record
from tests.engine.buckets import contents, without_takeovers
from tests.engine.faults import Killed
from tests.engine.worlds import FolderWorld, PowerWorld, World

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
    old: bool = False  # whether the store before is of format 1

    def prepare(self, world: World) -> None:
        if self.old:
            begin_of_format_1(world.url)
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


def begin_of_format_1(url: Any) -> None:
    """Record a first checkpoint as it was done before small arrays were gathered."""
    schema = replace(SCHEMA, arrays=tuple(replace(spec, span=1) for spec in SCHEMA.arrays))
    with RunWriter.create(url, schema, static=STATIC, attributes={"n": 1}) as writer:
        writer._root = replace(writer._root, format=1)
        with writer.checkpoint() as checkpoint:
            fill(checkpoint)


ACTS = (
    Act("a first checkpoint", "", partial(record, plan="c")),
    Act("a checkpoint", "ccr", partial(record, plan="ccrc")),
    Act("a result", "cc", analyse),
    Act("a repair", "ccrc", repair, damaged=4),
    Act("a collection of garbage", "cc", gc, left=True),
    Act("a compaction", "ccr", compact, old=True),
)


def folder_world(kind: Callable[[Path], World] = FolderWorld) -> World:
    return kind(Path(tempfile.mkdtemp(dir=MEMORY)))


def power_world() -> World:
    return folder_world(PowerWorld)


@dataclass(frozen=True)
class Known:
    """How things are before an act, and how they must be in the end."""

    files: dict[str, bytes]  # of the store before
    kept: list[FileRecord]  # of these, what is committed and whole
    done: int  # commits after the act
    expected: dict[str, bytes]  # files in the end, when whoever comes next has gone on


def reference(make: Callable[[], World], act: Act) -> Known:
    """Do an act, and all that follows, undisturbed."""
    with make() as world:
        act.prepare(world)
        files, kept = contents(world.url) if act.plan else {}, act.committed(world)
        act.do(world.url)
        done = len(Run(world.url).commits)
        return Known(files, kept, done, act.finish(world))


def trials(make: Callable[[], World], act: Act, hows: tuple[str, ...], share: bool, every: int) -> Iterator[Broken]:
    """Yield what is broken after each of some faults at each call of an act, one trial after the other.

    With ``share`` each call meets one of the faults only; ``every`` is how many calls there are to one that is tried.
    Where two faults leave the same files, what comes after that is done once.
    """
    known, judged = reference(make, act), {}
    for number, how in enumerate(hows):
        for at in count(1 + number % every, every) if not share else count(1 + number * every, every * len(hows)):
            with make() as world:
                world.load(known.files)
                said, calls = _done(world, act, at, how)
                left = said, world.state()
                if left not in judged:
                    judged[left] = said or wrong(world, act, known) or after(world, act, known, returned=said == "")
                yield judged[left]
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


def wrong(world: World, act: Act, known: Known) -> Broken:
    """Return what a reader finds wrong."""
    if not exists(world.url):
        return "the store is gone" if act.plan else None
    try:
        run, verdict = Run(world.url), verify(world.url)
        gone = next(filter(None, map(run.place.check, known.kept)), None)
        check(run)
    except (StoreError, AssertionError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    if gone or (verdict.problems and verdict.damaged != (act.damaged,)) or verdict.unknown:
        return gone or (verdict.problems + verdict.unknown)[0]
    return None


def after(world: World, act: Act, known: Known, *, returned: bool) -> Broken:
    """Return what is wrong with what was reported, or with what the next writer ends with."""
    if returned and len(Run(world.url).commits) != known.done:
        return "what was reported as done is not there"
    try:
        found = act.finish(world)
    except StoreError as error:
        return f"nobody can go on: {error}"
    paths = found.keys() | known.expected.keys()
    different = sorted(path for path in paths if found.get(path) != known.expected.get(path))
    return f"the next writer ends with another {different[0]}" if different else None
