"""What tests share: one small recorded run, to be read only, and workers, of which processes take seconds to start."""

from __future__ import annotations

import fcntl
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine.forked import forked_workers

if TYPE_CHECKING:
    from featdyn.compute import Workers
    from featdyn.store import Run
    from tests.engine.question_run import Held

SMALL = (
    "training.epochs=2",
    "training.batch_size=128",
    "checkpoints.first_epoch=2",
    "probes.train=40",
    "probes.test=33",
    "probes.corrupted=7",
    "capture.batch=32",
)


@pytest.fixture
def featdyn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, standard output, standard error)."""
    from featdyn.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["featdyn", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where there is one, for tests in which thousands of small files come and go."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.fixture(scope="session", autouse=True)
def no_power_is_cut() -> Iterator[None]:
    """Sync nothing: thousands of files wait for the disk else. Power is cut by ``faults.Disk``, which knows."""
    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_minute_passes() -> Iterator[None]:
    """Neither say what recording costs nor keep a first part of a result, however long a busy machine takes."""
    from featdyn.analysis import context
    from featdyn.capture import meter

    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(context, "KEPT_EVERY", math.inf)
        changes.setattr(meter, "perf_counter", lambda: 0.0)
        yield


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The digits recipe, two epochs, with a consistency result; one for all processes that share the suite."""
    from featdyn import analyze
    from featdyn.training import load
    from featdyn.training.stage import train

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if hasattr(request.config, "workerinput") else folder
    store, whole = folder / "small" / "run.zarr", folder / "small.whole"
    with (folder / "small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            train(load("digits", SMALL), store)
            analyze(store, "consistency")
            whole.touch()
    return store


@pytest.fixture(scope="session")
def question_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Held]:
    """Where a run with what people ask after lies, and what was written into it."""
    from tests.engine import question_run

    path = tmp_path_factory.mktemp("questions") / "run.zarr"
    return path, question_run.write(path)[1]


@pytest.fixture(scope="module")
def written(question_store: tuple[Path, Held]) -> tuple[Run, Held]:
    """Return that run, opened anew for each file of tests, and what was written into it."""
    from featdyn.store import Run

    return Run(question_store[0]), question_store[1]


@pytest.fixture(scope="session")
def processes() -> Iterator[Workers]:
    """Two worker processes."""
    with forked_workers(workers=2) as found:
        yield found


@pytest.fixture
def clusters(processes: Workers) -> Iterator[dict[str, Workers]]:
    """Workers by the name of their scheduler.

    Threads are opened anew for each test, in no time: while they are open, kernels are serial in the whole process.
    """
    from featdyn.compute import workers

    with workers(scheduler="threads", workers=2) as threads:
        yield {"threads": threads, "processes": processes}


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket on an S3-compatible server of this process, and the environment that leads there."""
    import logging
    import urllib.request

    pytest.importorskip("obstore")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/runs", method="PUT")).close()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        yield "s3://runs"
    server.stop()


@pytest.fixture
def url(s3: str, request: pytest.FixtureRequest) -> str:
    """A prefix of its own for each test, with what keys may hold."""
    return f"{s3}/größe a=0.5,[x]?lr=1#2 %20 {abs(hash(request.node.nodeid))}/run.zarr"
