"""The plain path, which serves beside versions of Numba that the SIMD kernels were not tested with."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featdyn_kernels import _versions, eigh, kde, moebius, moments, pairwise, paths, stitch
from featdyn_kernels.kde import reference as kde_reference
from featdyn_kernels.pairwise import reference as pairwise_reference

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((40, 3)).astype(np.float32), RNG.standard_normal((33, 3)).astype(np.float32) + 0.5
MEMBERS = np.arange(40) < np.array([[12], [25]])
WEIGHTS = RNG.uniform(0, 1, (3, 40)) * (RNG.uniform(0, 1, (3, 40)) > 0.3)
MAPS = RNG.standard_normal((6, 5, 40)).astype(np.float16)
TABLE = RNG.standard_normal((2, 16)).astype(np.float32)

CALLS = {
    "kde": lambda: kde.log_density(Y, X, 0.7, WEIGHTS[0]),
    "kde many": lambda: kde.log_density_many(Y, X, 0.7, WEIGHTS),
    "kde leave one out": lambda: kde.leave_one_out(X, 0.7, WEIGHTS[0]),
    "mmd": lambda: pairwise.mmd2(X, Y, [0.5, 2.0]),
    "mmd many": lambda: pairwise.mmd2_many(X, MEMBERS),
    "energy": lambda: pairwise.energy_distance(X, Y),
    "energy many": lambda: pairwise.energy_distance_many(X, MEMBERS),
    "sliced": lambda: pairwise.sliced_wasserstein(X, Y, directions=20),
    "sliced many": lambda: pairwise.sliced_wasserstein_many(X, MEMBERS, p=1.0, directions=20),
    "moments": lambda: moments.accumulate(X, Y[:1].repeat(40, 0), np.arange(40) % 3).scatter,
    "moments of maps": lambda: moments.accumulate(MAPS).scatter,
    "moments of bfloat16": lambda: moments.accumulate(torch.from_numpy(X).bfloat16()).scatter.numpy(),
    "paths": lambda: paths.squared_distances(X.reshape(4, 10, 3)),
    "moebius": lambda: moebius.moebius(TABLE),
    "sparsest interactions": lambda: moebius.sparsify(TABLE, bound=0.05, iterations=2000, tolerance=1e-4).l1,
    "eigh": lambda: eigh.eigh((X.T @ X)[None])[0],
}


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setenv("FEATDYN_PLAIN", "1")
    assert not _versions.simd()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_both_paths_say_the_same(name, monkeypatch):
    assert _versions.simd(), "the pinned Numba is one that was tested"
    expected = CALLS[name]()
    monkeypatch.setenv("FEATDYN_PLAIN", "1")
    monkeypatch.setattr(kde_reference, "HELD", 300)  # so that the rows go in several blocks
    monkeypatch.setattr(pairwise_reference, "HELD", 300)
    found = CALLS[name]()
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=3e-3 if "sparsest" in name else 2e-5, atol=2e-5)


@pytest.mark.usefixtures("plain")
def test_stitching_runs_the_modules():
    suffixes = [nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)) for _ in range(3)]
    bank = stitch.SuffixBank(suffixes)
    assert bank.path.name == "general"
    assert "Numba" in bank.path.why
    found = bank.run(X, np.arange(40) % 4)
    logits = torch.stack([suffix(torch.from_numpy(X)) for suffix in suffixes]).detach()
    np.testing.assert_array_equal(found.predictions, logits.argmax(-1))
    expected = [nn.functional.cross_entropy(z, torch.arange(40) % 4, reduction="none") for z in logits]
    np.testing.assert_allclose(found.loss, torch.stack(expected), rtol=1e-5)


def test_no_private_part_of_numba_is_loaded():
    code = """
import sys, numpy as np
from featdyn_kernels import eigh, kde, moebius, moments, pairwise, paths
x = np.random.default_rng(0).standard_normal((20, 2))
kde.log_density(x, x, 1.0); pairwise.mmd2(x, x + 1); pairwise.sliced_wasserstein(x, x + 1); moments.accumulate(x)
moments.accumulate(x.reshape(2, 5, 4))
paths.squared_distances(x[None]); moebius.moebius(np.ones(4)); eigh.eigh(x.T @ x)
print({"numba", "llvmlite"} & set(sys.modules))"""
    environment = {**os.environ, "FEATDYN_PLAIN": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("found", ["0.69.0", "0.6.8", None])
def test_an_untested_version_is_told_and_takes_the_plain_path(found, monkeypatch):
    def version(name):
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(_versions, "version", version)
    _versions._tested.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=rf"tested with Numba .*, which here is {found or 'not there'}"):
            assert not _versions.simd()
        assert not _versions.simd()  # told once
    finally:
        _versions._tested.cache_clear()


def test_the_pinned_version_is_one_that_was_tested():
    pinned = (Path(__file__).parents[2] / "constraints.txt").read_text().split("numba==")[1].split()[0]
    assert pinned.rpartition(".")[0] in _versions.TESTED
