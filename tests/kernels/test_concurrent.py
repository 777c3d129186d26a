"""Every operation from many threads and processes at once, as Dask calls them: the same bits as serially."""

from __future__ import annotations

import functools
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import dask
import numpy as np
import pytest
import torch
from torch import nn

from featdyn_kernels import eigh, kde, moebius, moments, pairwise, set_threads, stitch

THREADS = 2  # of one call: enough for a call to share out its rows


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@functools.cache
def bank() -> stitch.SuffixBank:
    torch.manual_seed(0)

    def suffix() -> nn.Module:
        layers = [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(16, 10)).eval()

    return stitch.SuffixBank([suffix() for _ in range(3)])


X, Y, LABELS = normal(3000, 3), normal(2500, 3, seed=1), np.arange(3000) % 2 == np.arange(5)[:, None] % 2
SYMMETRIC = normal(40, 20, 20) + normal(40, 20, 20).transpose(0, 2, 1)
TABLES = normal(40, 2**12)
OPERATIONS: dict[str, Callable[[], Any]] = {
    "kde.log_density": lambda: kde.log_density(X, Y, 0.3),
    "kde.log_density_many": lambda: kde.log_density_many(X[:600], X, 0.3, LABELS.astype(float)),
    "kde.scott": lambda: kde.scott(X),
    "kde.silverman": lambda: kde.silverman(X),
    "pairwise.mmd2": lambda: pairwise.mmd2(X, Y, 1.0),
    "pairwise.mmd2_many": lambda: pairwise.mmd2_many(X, LABELS, 1.0),
    "pairwise.energy_distance": lambda: pairwise.energy_distance(X, Y),
    "pairwise.energy_distance_many": lambda: pairwise.energy_distance_many(X, LABELS),
    "pairwise.median_bandwidth": lambda: pairwise.median_bandwidth(X, max_points=100),
    "pairwise.sliced_wasserstein": lambda: pairwise.sliced_wasserstein(X, Y, directions=16),
    "pairwise.sliced_wasserstein_many": lambda: pairwise.sliced_wasserstein_many(X, LABELS, directions=16),
    "moments.accumulate": lambda: vars(moments.accumulate(normal(9000, 40), normal(9000, 3), np.arange(9000) % 3)),
    "eigh.eigh": lambda: eigh.eigh([SYMMETRIC, normal(2, 9, 9)]),
    "eigh.eigvalsh": lambda: eigh.eigvalsh(SYMMETRIC),
    "eigh.gram_eigh": lambda: eigh.gram_eigh(normal(30, 12, 20)),
    "moebius.moebius": lambda: moebius.moebius(TABLES),
    "moebius.moebius_adjoint": lambda: moebius.moebius_adjoint(TABLES),
    "moebius.zeta": lambda: moebius.zeta(TABLES),
    "moebius.zeta_adjoint": lambda: moebius.zeta_adjoint(TABLES),
    "moebius.interactions": lambda: moebius.interactions(TABLES),
    "moebius.sparsify": lambda: vars(moebius.sparsify(TABLES[:, : 2**6], bound=0.1, iterations=40)),
    "stitch.SuffixBank": lambda: bank().run(normal(200, 16, 8, 8), np.arange(200) % 10),
}


def call(name: str) -> list[bytes]:
    """Return the bits of a result, whatever it is made of."""
    found, bits = [OPERATIONS[name]()], []
    while found:
        part = found.pop()
        if isinstance(part, dict | list | tuple):
            found.extend(part.values() if isinstance(part, dict) else part)
        elif part is not None:
            bits.append(np.asarray(part).tobytes())
    return bits


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    set_threads(THREADS)
    yield
    set_threads(None)


@functools.cache
def serial(name: str) -> list[bytes]:
    return call(name)


def test_every_operation_is_here():
    modules = {m.__name__.rpartition(".")[2]: m for m in (eigh, kde, moebius, moments, pairwise, stitch)}
    callables = {f"{name}.{f}" for name, module in modules.items() for f in module.__all__}
    results = {"eigh.PrecisionWarning", "moebius.SparseModel", "moments.Moments", "stitch.Stitched"}
    assert set(OPERATIONS) == callables - results


LONG = {"moebius.sparsify": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG.get(name, ())) for name in OPERATIONS])
def test_many_threads(name):
    expected = serial(name)
    start = threading.Barrier(4)

    def work(_: int) -> list[list[bytes]]:
        start.wait()
        return [call(name) for _ in range(2)]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(work, range(4)):
            assert results == [expected] * 2


def test_dask_threads():
    names = 3 * list(OPERATIONS)
    expected = [serial(name) for name in names]
    results = dask.compute([dask.delayed(call)(name) for name in names], scheduler="threads", num_workers=4)[0]
    assert [n for n, result, wanted in zip(names, results, expected, strict=True) if result != wanted] == []


# Spawned, as Dask's workers are. In a forked child torch waits for threads of a pool that were not forked with it.
def test_processes():
    expected = {name: serial(name) for name in OPERATIONS}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, initializer=set_threads, initargs=(THREADS,)) as pool:
        results = dict(zip(OPERATIONS, pool.map(call, OPERATIONS), strict=True))
    assert [name for name in OPERATIONS if results[name] != expected[name]] == []
