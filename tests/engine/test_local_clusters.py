"""What is asked of Dask for each way to run on this machine: workers, threads, memory, and their environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dask
import pytest
import torch

import featdyn_kernels
from featdyn.compute import local
from featdyn.compute.options import ComputeOptions
from featdyn.errors import ComputeError

CORES = 12


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the cluster that was started last was asked for; none is started."""
    found: dict[str, Any] = {}

    @contextmanager
    def start(**options: Any) -> Iterator[str]:
        found.clear()
        found.update(options)
        found["environment"] = dask.config.get("distributed.nanny.pre-spawn-environ", {})
        found["spills"] = [
            dask.config.get(f"distributed.worker.memory.{when}") for when in ("target", "spill", "pause")
        ]
        found["threads here"] = torch.get_num_threads()
        yield "cluster"

    monkeypatch.setattr(local, "LocalCluster", start)
    monkeypatch.setattr(local, "SpecCluster", start)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "3", "7"])
    monkeypatch.setattr(featdyn_kernels, "cores", lambda: CORES)
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    return found


def start(**options: Any) -> None:
    with local.cluster(ComputeOptions(**options)) as found:
        assert found == "cluster"


@pytest.mark.parametrize(("limit", "wanted"), [(None, "auto"), ("3GiB", 3 * 2**30)])
def test_processes_share_the_cores_and_each_has_the_limit(
    asked: dict[str, Any], limit: str | None, wanted: Any
) -> None:
    start(scheduler="processes", memory_limit=limit)
    assert (asked["n_workers"], asked["threads_per_worker"], asked["processes"]) == (CORES, 1, True)
    assert asked["memory_limit"] == wanted
    assert asked["environment"]["OMP_NUM_THREADS"] == "1"
    start(scheduler="processes", workers=5, memory_limit=limit)
    assert (asked["n_workers"], asked["threads_per_worker"]) == (5, 1)
    assert {asked["environment"][f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"2"}
    assert asked["environment"]["FEATDYN_THREADS"] == "2"
    start(scheduler="processes", workers=50)
    assert asked["environment"]["OMP_NUM_THREADS"] == "1"
    assert asked["spills"] == [False] * 3


@pytest.mark.parametrize(("limit", "wanted"), [(None, "auto"), ("3GiB", 3 * 2**30)])
def test_threads_are_of_one_worker_here_whose_kernels_are_serial(
    asked: dict[str, Any], limit: str | None, wanted: Any
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        start(scheduler="threads", memory_limit=limit)
        assert (asked["n_workers"], asked["threads_per_worker"], asked["processes"]) == (1, CORES, False)
        assert (asked["memory_limit"], asked["threads here"]) == (wanted, 1)
        start(scheduler="threads", workers=3)
        assert (asked["n_workers"], asked["threads_per_worker"]) == (1, 3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("limit", "wanted"), [(None, "auto"), ("3GiB", 3 * 2**30)])
def test_each_gpu_has_a_process_of_one_thread_with_the_limit_and_its_share_of_the_cores(
    asked: dict[str, Any], limit: str | None, wanted: Any
) -> None:
    start(gpus="all", memory_limit=limit)
    assert list(asked["workers"]) == ["0", "3", "7"]
    for device, worker in asked["workers"].items():
        options = worker["options"]
        assert (options["nthreads"], options["memory_limit"]) == (1, wanted)
        assert options["env"]["CUDA_VISIBLE_DEVICES"] == device
        assert options["env"]["OMP_NUM_THREADS"] == "4"


def test_with_dask_cuda_the_limit_is_handed_on(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=local.SpecCluster))
    start(gpus="all", memory_limit="1GiB")
    assert (asked["CUDA_VISIBLE_DEVICES"], asked["memory_limit"]) == (["0", "3", "7"], 2**30)
    start(gpus="all")
    assert asked["memory_limit"] == "auto"
    monkeypatch.setattr(local, "visible_gpus", list)
    with pytest.raises(ComputeError, match="torch finds no GPU"):
        start(gpus="all")


def test_gpus_are_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local.visible_gpus() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,MIG-1,2,9")
    assert local.visible_gpus() == ["5", "MIG-1", "2"]
