"""Writers that sleep, are stopped or are killed while others come, and what must hold then."""

from __future__ import annotations

import fcntl
import os
import random
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, exists, gc, repair, verify
from featdyn.store.lock import NAMES
from featdyn.store.record import FileRecord
from featdyn.testing import sample_run
from featdyn.testing.sample_run import check, record
from tests.engine.attacked_acts import MEMORY, WHOLE, Act, Broken, after, folder_world, reference, wrong
from tests.engine.buckets import contents
from tests.engine.faults import Killed
from tests.engine.worlds import BucketWorld, World


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
        checkpoint.write("norm", np.full(rows, 7, np.float32), block)
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


def stops(act: Act, every: int) -> Iterator[Broken]:
    """Yield what is broken when a real process stops itself (SIGSTOP) at each change of a folder, and goes on later.

    While it is stopped readers see whole commits. From when there is a lock's file on it must be held, as the system
    says, and others who would write must hear by whom.
    """
    known = reference(folder_world, act)
    for at in count(1 + every // 2, every):
        with folder_world() as world:
            world.load(known.files)
            child = os.fork()
            if not child:
                code = 1
                with suppress(BaseException), world.trouble(at, "kill", _stop) as calls:
                    act.do(world.url)
                    code = 0 if calls.count >= at else 2
                os._exit(code)
            stopped = os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1])
            said = None
            if stopped:
                said = wrong(world, act, known) or _told(world.url, child)
                os.kill(child, signal.SIGCONT)
                status = os.waitpid(child, 0)[1]
            code = os.waitstatus_to_exitcode(status)
            if code == 2:
                return
            said = said or ("the process that went on failed" if code else None)
            yield said or wrong(world, act, known) or after(world, act, known, returned=True)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _told(url: Path, holder: int) -> Broken:
    """Return what is wrong with what others hear who would write while a process is stopped."""
    there = [url / name for name in NAMES if (url / name).exists()]
    if there and not any(map(_locked, there)):
        return "nobody has the lock"
    others: list[Callable[[Path], object]] = [lambda url: record(url, ""), *((repair, gc) if exists(url) else ())]
    for other in others if there else ():
        try:
            other(url)
        except StoreError as error:
            if f"is being written by process {holder} on" not in str(error):
                return f"another one hears: {error}"
        else:
            return "another one writes, too"
    return None


def _locked(path: Path) -> bool:
    """Whether some process has a lock on a file, as the system says."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
