"""A cluster as ``docs/how-to/cluster.md`` describes it: its commands run, and a loss costs no more than it says."""

from __future__ import annotations

import multiprocessing
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from featdyn.analysis import context
from featdyn.store import Run, verify
from tests.engine import nodes
from tests.engine.forked import start

pytest.importorskip("distributed")
TEXT = (Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for language, block in BLOCKS if not language for line in block.splitlines()]
OURS = [command[1:] for command in COMMANDS if command[0] == "featdyn"]
ADDRESS = "tcp://127.0.0.1:8786"


class Nodes:
    """A scheduler and workers, in processes and folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, multiprocessing.Pipe()
        self.processes: list[BaseProcess] = []
        self.scheduler = self._start(nodes.schedule, 0)
        self.workers = [self._work(name) for name in ("one", "two")]

    def _start(self, target: Callable[..., object], *arguments: object) -> str:
        self.processes.append(start(target, *arguments, self.said[1]))
        assert self.said[0].poll(120)
        return str(self.said[0].recv())

    def _work(self, name: str) -> str:
        return self._start(nodes.work, self.scheduler, str(self.folder / name))

    def lose(self, number: int) -> None:
        """Kill one process: 0 is the scheduler."""
        self.processes[number].kill()
        self.processes[number].join()

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """One that no test harms."""
    found = Nodes(tmp_path_factory.mktemp("nodes"))
    yield found
    found.close()


@pytest.fixture
def run(small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the small run, in the current folder, which workers do not share."""
    shutil.copytree(small_store, tmp_path / "run.zarr")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run.zarr"


def test_the_page_shows_commands():
    assert len(OURS) == 4
    assert sum(ADDRESS in command for command in OURS) == 3
    for language, block in BLOCKS:
        if language == "python":
            compile(block, "cluster.md", "exec")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "dask" and c[1] != "cuda"], ids=" ".join)
def test_dask_takes_its_commands(command):
    """Options are known; they are not run, as others may have the port."""
    from distributed.cli import dask_scheduler, dask_worker

    main = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}[command[1]]
    with main.make_context(command[1], command[2:], resilient_parsing=False):
        pass


ALONE = [c for c in OURS if ADDRESS in c and "interactions" not in c]  # which the last test asks


def test_of_a_lost_scheduler_dask_says_nothing_itself(cluster):
    import logging

    from featdyn.compute import workers

    logger = logging.getLogger("distributed.client")
    before = logger.level
    with workers(scheduler=cluster.scheduler):
        assert not logger.isEnabledFor(logging.ERROR)
    assert logger.level == before


@pytest.mark.parametrize("command", ALONE, ids=" ".join)
def test_its_commands_run_on_two_workers(featdyn, cluster, run, command):
    code, _, err = featdyn(*(cluster.scheduler if part == ADDRESS else part for part in command))
    assert code == 0, err
    assert verify(run).sound


LOST = {1: 2, 3: 0}
"""After how many kept parts which process is lost: a worker, then the scheduler."""


def interactions(scheduler: str | None) -> list[str]:
    """Return the command that keeps what it has; without Dask where there is no scheduler."""
    found = next(c for c in OURS if "interactions" in c)
    return [p for p in found if p not in ("--scheduler", ADDRESS)] + (["--scheduler", scheduler] if scheduler else [])


def same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Check that two results are the same but for rounding: here kernels may use more threads than a worker."""
    assert set(found) == set(expected)
    for name in expected:
        if expected[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-3)


def test_a_worker_and_then_the_scheduler_are_lost(featdyn, run, tmp_path, monkeypatch):
    """A worker costs nothing; without a scheduler what is committed stays, and the same command goes on from there."""
    monkeypatch.setattr("featdyn.compute.cluster.PATIENCE", 20.0)
    monkeypatch.setattr(context, "KEPT_EVERY", 0.0)
    kept: list[int] = []
    keep = context.Context.keep
    lost = Nodes(tmp_path / "first")

    def losing(self, first):
        self._kept = 0.0  # a minute has passed
        keep(self, first)
        kept.append(len(Run(run).commits))
        if len(kept) in LOST:
            lost.lose(LOST[len(kept)])

    with monkeypatch.context() as patch:
        patch.setattr(context.Context, "keep", losing)
        code, _, err = featdyn("analyze", *interactions(lost.scheduler)[1:])
    lost.close()
    assert code == 1
    lines = [line for line in err.splitlines() if "lost" in line or "rror" in line]
    assert len(lines) == 1, err
    assert re.match("featdyn: .*the connection to the cluster was lost", lines[0])
    assert len(kept) >= 3
    assert len(Run(run).commits) == kept[-1]
    assert verify(run).sound
    before = Run(run).result("interactions")
    assert len(kept) <= before.sizes["t"] < Run(run).checkpoints
    again = Nodes(tmp_path / "second")
    code, _, err = featdyn("analyze", *interactions(again.scheduler)[1:])
    again.close()
    assert code == 0, err
    found = Run(run).result("interactions")
    assert found.sizes["t"] == Run(run).checkpoints
    np.testing.assert_array_equal(found["v"][:, : before.sizes["t"]], before["v"])  # what was kept is used
    code, _, err = featdyn("analyze", *interactions(None)[1:], "--fresh")
    assert code == 0, err
    same(found, Run(run).result("interactions"))
