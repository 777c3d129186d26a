"""Every benchmark runs, on tiny shapes, and its checks can fail."""

import importlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import ceilings, harness

ROOT = Path(__file__).parent.parent
CEILINGS = {"copy": 1e10, "matmul-float32": 1e11}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(harness, "TINY", True)


def usable(peer):
    """Whether a peer is there; KeOps compiles each formula for a minute."""
    return "keops" not in peer and ("zarrs" not in peer or find_spec("zarrs") is not None)


@pytest.mark.parametrize("operation", harness.operations())
def test_every_benchmark_checks_and_times_its_contenders(operation):
    results = []
    for case in importlib.import_module(f"bench.{operation}").cases("cpu"):
        case.peers = {name: call for name, call in case.peers.items() if usable(name)}
        results.append(harness.measure(case, "cpu", CEILINGS, 1))
        assert json.loads(json.dumps(results[-1])) == results[-1]
        assert harness.show(operation, results[-1]).startswith(f"{operation}: ")
        assert all(ratio > 0 for ratio in results[-1]["ratios"].values())
    assert results
    assert len({result["case"] for result in results}) == len(results)


@pytest.mark.parametrize(
    "module", ["scale", "paper", "requests", "commits", "language_model", "architectures", "three_phases", "__main__"]
)
def test_the_other_benchmarks_load(module):
    importlib.import_module(f"bench.{module}")


def test_a_wrong_contender_is_found():
    case = harness.Case("sum", lambda: 3, {"wrong": lambda: 4}, lambda found: np.testing.assert_equal(found, 3))
    with pytest.raises(AssertionError):
        harness.measure(case, "cpu", {}, 1)


def test_a_ceiling_that_the_processor_lacks_is_left_out(monkeypatch):
    monkeypatch.setattr(ceilings, "ELEMENTS", 2**10)
    monkeypatch.setattr(ceilings, "SIDE", 8)
    for there in (False, True):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda there=there: there, raising=False)
        assert ("matmul-bfloat16" in ceilings.measure("cpu")) == there
    case = harness.Case("x", lambda: 0, {}, lambda found: None, ceiling="matmul-bfloat16", amount=1.0)
    assert "ceiling" not in harness.measure(case, "cpu", {"copy": 1.0}, 1)


def test_an_unknown_operation_is_one_line():
    run = subprocess.run(
        [sys.executable, "-m", "bench", "nothing"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 2
    assert "unknown operation nothing; there are " in run.stderr
