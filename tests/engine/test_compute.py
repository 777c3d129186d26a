"""Work on workers: the same results wherever it is done, within the memory that was planned."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import operator
import os
import shutil
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import distributed
import numpy as np
import pytest
from hypothesis import given, settings

import featdyn_kernels
from featdyn import analyze
from featdyn.compute import SERIAL, Plan, Workers, fold, same, workers
from featdyn.compute.address import check
from featdyn.compute.serial import Serial
from featdyn.compute.tree import runs
from featdyn.errors import ComputeError, FeatdynError, RecipeError, StoreError
from featdyn.extras import MissingExtra
from featdyn.store import Run, RunWriter
from tests.engine.forked import forked_workers, start
from tests.engine.runs import write_run
from tests.engine.small_run import fill, record, serve_workers
from tests.strategies import sizes


@settings(deadline=None)
@given(sizes(1, 300), sizes(1, 64))
def test_a_fold_is_one_tree_however_it_is_cut(count, length):
    def joined(a, b):
        return f"({a} {b})"

    whole = fold(joined, map(str, range(count)))
    parts = [fold(joined, map(str, run)) for run in runs(count, length)]
    assert fold(joined, parts) == whole
    assert [i for run in runs(count, length) for i in run] == list(range(count))
    longest = max(map(len, runs(count, length)))
    assert longest == count <= length or (longest <= length < 2 * longest and longest.bit_count() == 1)
    assert whole.count("(") == count - 1


def test_a_fold_holds_few_values():
    held = most = 0

    def make(i):
        nonlocal held, most
        held += 1
        most = max(most, held)
        return i

    def combine(a, b):
        nonlocal held
        held -= 1
        return a + b

    assert fold(combine, map(make, range(1000))) == sum(range(1000))
    assert most <= 11
    with pytest.raises(ValueError, match="no values"):
        fold(combine, [])


def scaled(state: float, item: float) -> float:
    return state * item


def total(state: float, value: float) -> tuple[float, float]:
    return state, value


GROUPS = [[0.1 * i + j for i in range(n)] for j, n in enumerate((1, 2, 7, 64, 101))]


@pytest.mark.parametrize("where", ["serial", "threads", "processes"])
def test_map_and_fold_are_the_same_everywhere(clusters, where):
    found = SERIAL if where == "serial" else clusters[where]
    with found.stage(1.1, functools.partial(same, 1.1)) as stage:
        assert list(stage.map(scaled, range(50))) == [1.1 * i for i in range(50)]
        sums = list(stage.fold(scaled, GROUPS, operator.add, total))
        assert sums == [(1.1, fold(operator.add, (1.1 * x for x in group))) for group in GROUPS]
        assert list(stage.map(scaled, [])) == []


def failing(state: int, item: int) -> int:
    if item == state:
        raise FeatdynError(f"item {item}")
    return item


def test_an_error_of_a_task_arrives_as_it_was(clusters):
    for found in clusters.values():
        with found.stage(3, functools.partial(same, 3)) as stage:
            results = stage.map(failing, range(100))
            assert [next(results) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(FeatdynError, match="item 3"):
                next(results)


def threads_here(state: None, item: int) -> tuple[int, int]:
    import torch

    return featdyn_kernels.get_threads(), torch.get_num_threads()


def test_kernels_are_serial_on_workers_that_are_parallel_themselves(clusters):
    for found in clusters.values():
        with found.stage(None, functools.partial(same, None)) as stage:
            assert set(stage.map(threads_here, range(4))) == {(1, 1)}


def test_threads_leave_kernels_as_they_were():
    before = featdyn_kernels.get_threads()
    with workers(scheduler="threads", workers=2):
        assert featdyn_kernels.get_threads() == 1
    assert featdyn_kernels.get_threads() == before


class Lent:
    """A state that notices two tasks at once."""

    made = 0

    def __init__(self) -> None:
        Lent.made += 1
        self.used = False


def used(state: Lent, item: int) -> bool:
    assert not state.used
    state.used = True
    time.sleep(0.005)
    state.used = False
    return True


def test_each_thread_has_a_state_of_its_own():
    with workers(scheduler="threads", workers=3) as found:
        Lent.made = 0
        with found.stage(Lent(), Lent) as stage:
            assert all(stage.map(used, range(40)))
        assert Lent.made == 3


def meet(folder: Path, name: object, number: int) -> None:
    """Wait in a task until so many of different names have come to a folder."""
    (folder / str(name)).touch()
    until = time.monotonic() + 240
    while len(list(folder.iterdir())) < number:
        assert time.monotonic() < until, "the others do not come"
        time.sleep(0.005)


def met(state: Path, item: int) -> tuple[int, int]:
    meet(state, os.getpid(), 2 if item < 5 else 3)
    return item, os.getpid()


def test_a_worker_killed_in_the_middle_changes_nothing(tmp_path):
    before = dict(os.environ)
    with workers(scheduler="processes", workers=2) as found:
        assert os.environ == before  # theirs says how many threads each has
        with found.stage(tmp_path, functools.partial(same, tmp_path)) as stage:
            results = stage.map(met, range(60))
            first = [next(results) for _ in range(5)]
            os.kill(first[-1][1], signal.SIGKILL)
            rest = list(results)
        assert [item for item, _ in first + rest] == list(range(60))
        assert len({pid for _, pid in first + rest}) == 3  # a new worker took the place, and found the state
    assert os.environ == before


def test_a_scheduler_lost_in_the_middle_of_an_analysis_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("featdyn.compute.cluster.PATIENCE", 20.0)
    run, (here, there) = write_run(tmp_path / "run.zarr"), multiprocessing.Pipe()
    cluster = start(serve_workers, there)
    with workers(scheduler=here.recv()) as found:
        found.client._timeout = 1.0  # from now on: nobody comes back
        with pytest.raises(ComputeError, match="the connection to the cluster was lost") as caught:
            analyze(run, "spectra", workers=found, progress=lambda *_: cluster.kill())
        assert "\n" not in str(caught.value)
        with pytest.raises(ComputeError, match="the connection to the cluster was lost"):
            analyze(run, "spectra", workers=found)
    cluster.join()
    assert Run(run.path).commits == run.commits


def dying(state: None, item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_ends_every_worker_is_one_line():
    with (
        forked_workers(workers=1) as found,
        found.stage(None, functools.partial(same, None)) as stage,
        pytest.raises(ComputeError, match=r"ended every worker that took it.* --memory-limit"),
    ):
        list(stage.map(dying, [0]))


def test_a_cluster_that_exists_is_used_and_left_alone():
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        (worker,) = cluster.workers.values()
        before = set(worker.plugins)
        with workers(scheduler=cluster.scheduler_address) as found:
            with found.stage(2, functools.partial(same, 2)) as stage:
                assert list(stage.map(scaled, range(4))) == [0, 2, 4, 6]
                assert set(worker.plugins) > before
            assert set(worker.plugins) == before  # what tasks need is held as long as they run
            with pytest.raises(ComputeError, match="own workers and limits"):
                workers(scheduler=cluster.scheduler_address, workers=3)
        assert client.submit(operator.add, 1, 2).result() == 3
    featdyn_kernels.set_threads(None)


def visible(state: Path, item: int) -> str:
    meet(state, os.environ["CUDA_VISIBLE_DEVICES"], 2)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_one_worker_for_each_gpu(monkeypatch, tmp_path):
    from featdyn.compute import local

    monkeypatch.setattr(local, "visible_gpus", lambda: ["2", "5"])
    with workers(gpus="all") as found, found.stage(tmp_path, functools.partial(same, tmp_path)) as stage:
        assert set(stage.map(visible, range(20))) == {"2", "5"}


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"scheduler": "dask"}, RecipeError, "must be threads, processes or an address"),
        ({"scheduler": "threads", "gpus": "all"}, ComputeError, "leave --scheduler out"),
        ({"workers": 2}, ComputeError, "--workers needs --scheduler"),
        ({"workers": 0, "scheduler": "threads"}, RecipeError, "workers"),
        ({"memory_limit": "much"}, RecipeError, "memory_limit"),
        ({"scheduler": "tcp://127.0.0.1:1"}, ComputeError, "no workers"),
        ({"scheduler": "tls://127.0.0.1:1"}, ComputeError, "no workers"),
        ({"scheduler": "tcp://"}, ComputeError, "write tcp://host:8786"),
        ({"scheduler": "tcp://host"}, ComputeError, "write tcp://host:8786"),
        ({"scheduler": "tcp://127.0.0.1:99999"}, ComputeError, "write tcp://host:8786"),
        ({"scheduler": "xyz://a"}, ComputeError, "no such kind of address; write tcp://host:8786"),
    ],
)
def test_options_that_are_wrong_are_one_line(options, error, line, monkeypatch):
    monkeypatch.setattr("featdyn.compute.cluster.PATIENCE", 0.5)
    with pytest.raises(error, match=line) as caught:
        workers(**options)
    assert "\n" not in str(caught.value)


def test_without_dask_there_is_one_line(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "featdyn.compute.cluster", raising=False)  # an earlier test may have loaded it
    with pytest.raises(MissingExtra, match=r"pip install 'featdyn\[scale\]'"):
        workers(scheduler="threads")


PLAN = Plan("work", tasks=3, reads=10, task={"blocks": 100}, state={"weights": 20}, result={"points": 5})


def test_what_a_plan_adds_up_to():
    assert PLAN.peak() == 125
    assert PLAN.peak(4) == 4 * 120 + 5
    assert PLAN.peak(4, here=False) == 4 * 120


def test_a_plan_is_said_and_refused_where_it_does_not_fit(clusters, caplog):
    with caplog.at_level(logging.INFO, "featdyn"):
        SERIAL.admit(PLAN)
        for found in clusters.values():
            found.admit(PLAN)
    assert caplog.text.count("work; 3 tasks, 10 B to read; at most") == 3
    large = Plan("work", 1, 0, task={"blocks": 2**50})
    everywhere: list[Workers] = [SERIAL, Serial(2**20), *clusters.values()]
    for found in everywhere:
        with pytest.raises(
            ComputeError, match=r"work: needs (1024|2048)\.0 TiB of memory .*blocks.* raise --memory-limit"
        ):
            found.admit(large)


def test_a_limit_counts_what_the_process_has_already():
    with pytest.raises(ComputeError, match="taken already"):
        Serial(1000).admit(Plan("work", 1, 0))


def test_a_process_works_on_one_task_at_once_and_collects_where_it_is_the_callers(clusters):
    assert SERIAL.limits()[1:] == (0, 1, True)
    limit, base, *rest = Serial(2**40).limits()
    assert (limit, rest) == (2**40, [1, True])
    assert base > 2**20
    assert {name: found.limits()[2:] for name, found in clusters.items()} == {
        "threads": (2, True), "processes": (1, False),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "is_one"),
    [
        (struct.pack("<Q", 2**20), True),
        (struct.pack("<Q", 2**20 + 1), False),
        (struct.pack("<Q", 3) + b"abc", True),
        (struct.pack("<Q", 3)[:7], False),
    ],
)
def test_a_scheduler_begins_with_the_length_of_its_greeting(said, is_one):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            connection.sendall(said)
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        if is_one:
            check(address, 60.0)
        else:
            with pytest.raises(ComputeError, match="what answers there is no Dask scheduler"):
                check(address, 60.0)
        thread.join()


def test_results_keep_their_dtype_and_size(clusters):
    values = np.arange(7, dtype=np.float16)
    for found in clusters.values():
        with found.stage(values, functools.partial(same, values)) as stage:
            for array in stage.map(operator.mul, [np.float16(2)] * 3):
                assert array.dtype == np.float16
                np.testing.assert_array_equal(array, 2 * values)


@pytest.mark.parametrize(
    ("says", "line"),
    [
        (b"", "nothing there speaks as a Dask scheduler does: is it the dashboard's port"),  # waits to be asked
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no Dask scheduler"),
        (None, "what answers there is no Dask scheduler"),  # hangs up
    ],
)
def test_what_is_no_scheduler_is_found_out_before_dask_tries(says, line, monkeypatch):
    monkeypatch.setattr("featdyn.compute.cluster.PATIENCE", 240.0 if says != b"" else 0.5)
    monkeypatch.setattr("featdyn.compute.cluster.Client", None)
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            if says is None:
                connection.close()
            else:
                connection.sendall(says)
                kept.append(connection)  # stays open

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ComputeError, match=line):
            workers(scheduler=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    for connection in kept:
        connection.close()


def test_two_clients_of_one_cluster_each_get_what_they_asked_for():
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", protocol="tcp"
        ) as cluster,
        workers(scheduler=cluster.scheduler_address) as one,
        workers(scheduler=cluster.scheduler_address) as two,
        one.stage(2, functools.partial(same, 2)) as first,
        two.stage(3, functools.partial(same, 3)) as second,
    ):
        assert list(first.map(scaled, range(3))) == [0, 2, 4]
        assert list(second.map(scaled, range(3))) == [0, 3, 6]
        assert list(first.map(scaled, range(3))) == [0, 2, 4]
    featdyn_kernels.set_threads(None)


def commits(run: Run, item: int) -> int:
    return len(run.commits)


def test_a_worker_that_sees_another_store_or_none_is_one_line(tmp_path):
    store = tmp_path / "run.zarr"
    record(store, "cc")
    run = Run(store)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        workers(scheduler=cluster.scheduler_address) as found,
    ):
        with found.stage(run, functools.partial(same, run)) as stage:
            assert list(stage.map(commits, [0])) == [2]
        with found.stage(run, functools.partial(same, run)) as stage:
            shutil.rmtree(store)
            with pytest.raises(StoreError, match=r"does not see the store that it was sent: .*no such folder"):
                list(stage.map(commits, [0]))
        record(store, "c")
        with RunWriter.open(store) as writer, writer.checkpoint() as checkpoint:
            fill(checkpoint)
            checkpoint.put("checkpoints/000001/model.safetensors", [b"other weights"])
        with (
            found.stage(run, functools.partial(same, run)) as stage,
            pytest.raises(StoreError, match="sees another store at"),
        ):
            list(stage.map(commits, [0]))
    featdyn_kernels.set_threads(None)


def test_where_the_system_does_not_say_which_processors_all_are_used(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("FEATDYN_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert featdyn_kernels.cores() == featdyn_kernels.get_threads() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert featdyn_kernels.cores() == 1
