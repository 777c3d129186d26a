"""The small run that any place is tested with, recorded by processes that are killed, late or in each other's way."""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from featdyn.errors import StoreError
from featdyn.store import Run, RunWriter, lease
from featdyn.testing.sample_run import NAMES, PLAN, RESULT, SAMPLES, SCHEMA, STATIC, check, fill, norm, record

__all__ = ["CHECKPOINTS", "NAMES", "PLAN", "RESULT", "SAMPLES", "SCHEMA", "STATIC", "check", "fill", "norm", "record"]

CHECKPOINTS = PLAN.count("c")


def record_in_short_lives(plan: str, asked: Connection) -> None:
    """For each (path, seconds) that is asked, record in a process that is killed after so long; answer how it ended.

    They are forked from this process, which has done it all before: they start with their first touch of the disk.
    """
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder, "run.zarr"), plan)
    while True:
        path, seconds = asked.recv()
        child = os.fork()
        if not child:
            try:
                record(path, plan)
                os._exit(0)
            finally:
                os._exit(1)
        ended = os.pidfd_open(child)
        select.select([ended], [], [], seconds)
        os.kill(child, signal.SIGKILL)  # one that has ended feels nothing, and is not yet gone
        os.close(ended)
        asked.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def record_without_end(url: str, late: float, environment: dict[str, str], errors: str, said: Connection) -> None:
    """Record in the bucket that an environment leads to, by a clock that is late, and complain into a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    os.environ.update(environment)
    lease.now = lambda: time.time() + late
    said.send("ready")
    record(url, "c" * 10_000)


def record_until(path: Path, stop: Path) -> None:
    """Record until there is a file ``stop``, slowly enough for others to look on."""
    plan = ""
    while not stop.exists():
        plan += "ccr"[len(plan) % 3]
        record(path, plan)
        time.sleep(0.05)


def record_patiently(path: str, plan: str, log: str, environment: dict[str, str] | None = None) -> None:
    """Record beside others who do the same: one commit at a time, and on when another has the store."""
    os.environ.update(environment or {})
    store, refusals = path if "://" in path else Path(path), set()
    for number in range(1, len(plan) + 1):
        while True:
            try:
                record(store, plan[:number])
                break
            except StoreError as error:
                refusals.add(str(error).replace(path, "STORE"))
                time.sleep(0.001)
    Path(log, str(os.getpid())).write_text("\n".join(refusals))


def fork_and_wait(path: str, said: Connection) -> None:
    """Write a checkpoint half, fork a child that lives until it is killed, say its number, and wait for an end."""
    writer = RunWriter.open(path)
    checkpoint = writer.checkpoint()
    checkpoint.write("checkpoint", np.array(checkpoint.index))
    child = os.fork()
    if not child:
        said.close()
        signal.pause()
    said.send(child)
    said.recv()


def fork_and_fail(path: str) -> None:
    """Fork a child that leaves the writer's block by an error; what the parent has and wrote must stay."""
    with RunWriter.open(path) as writer, writer.checkpoint() as checkpoint:
        fill(checkpoint)
        child = os.fork()
        if not child:
            refusals = 0
            try:
                with writer, checkpoint:
                    for call in (
                        lambda: checkpoint.write("checkpoint", np.array(7)),
                        lambda: writer.result("r", RESULT),
                    ):
                        try:
                            call()
                        except StoreError:
                            refusals += 1
                    raise ZeroDivisionError
            except ZeroDivisionError:
                os._exit(refusals)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        refusal = ""
        try:
            RunWriter.open(path)
        except StoreError as error:
            refusal = str(error)
        assert f"is being written by process {os.getpid()}" in refusal  # the child did not give its parent's lock back


def read_and_truncate(path: str) -> None:
    """Read shards and tensors, cut their files short, as a disk that fails would, and look at what was read."""
    run = Run(path)
    block = run.block("layers/big/activation", 0, 0)
    part = run.block("layers/big/activation", 0, 0, rows=slice(5, 9))
    state = run.state(0)
    for name in ("layers/big/activation/c.0.0.0", "checkpoints/000000/model.safetensors"):
        os.truncate(Path(path, name), 0)
    assert block.sum() == block.size
    assert part.sum() == 4 * block.shape[1]
    assert state["weight"].sum() == 2**20
    try:
        run.block("layers/big/activation", 0, 0)
    except StoreError as error:
        assert "cannot be read" in str(error)  # noqa: PT017
    else:
        raise AssertionError


def serve_workers(said: Connection) -> None:
    """Be a Dask scheduler with a worker, say where, and wait for an end."""
    import distributed

    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp"
    ) as cluster:
        said.send(cluster.scheduler_address)
        said.recv()
