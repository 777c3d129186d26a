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

from bench import ceilings, harness, table

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


OTHERS = (
    "cold",
    "scale",
    "growth",
    "gpu_validate",
    "paper",
    "requests",
    "commits",
    "language_model",
    "architectures",
    "__main__",
)
OF_STUDIES = ("richness_speed", "resi")


@pytest.mark.parametrize("module", [*OTHERS, *OF_STUDIES])
def test_the_other_benchmarks_load(module):
    importlib.import_module(f"bench.{module}")


@pytest.mark.slow
def test_questions_from_cold_read_only_what_they_need(tmp_path):
    """Answers agree, the second call measures nothing anew, and no block is read that holds no answer."""
    pytest.importorskip("duckdb")
    from bench import cold

    size = (4, 20, 1030)  # two blocks of samples, each too large to be gathered
    rows = cold.measure(tmp_path / "cold", size, 1)
    assert {row["contender"] for row in rows} >= {"query", "sql", "DuckDB over Parquet"}
    for row in rows:
        if "blocks" in row:
            assert row["blocks"]["read"] == row["blocks"]["needed"]
            assert (row["blocks"]["beyond"], row["blocks"]["all"]) == (0, 8)
    assert cold.measure(tmp_path / "cold", size, 1) == rows


def test_ours_must_be_right_and_a_wrong_peer_is_not_timed():
    def case(ours, peer):
        peers = {"right": lambda: 3, "peer": lambda: peer}
        return harness.Case("sum", lambda: ours, peers, lambda found: np.testing.assert_equal(found, 3))

    with pytest.raises(AssertionError):
        harness.measure(case(4, 3), "cpu", {}, 1)
    found = harness.measure(case(3, 4), "cpu", {}, 1)
    assert set(found["ratios"]) == {"right"}
    assert "not timed, wrong here: peer" in harness.show("sum", found)


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


def test_the_table_of_results_is_what_the_files_say():
    """A loss stands there like a gain, and nothing that is not in a file."""
    assert (ROOT / "bench/results/README.md").read_text() == table.text()
    rows = [line.split(" | ") for line in table.text().splitlines() if line.startswith("| ")][1:]
    cases = [(op, c) for d in files() for op, cs in d["results"].items() for c in cs if c["ratios"]]
    assert {(row[0].removeprefix("| "), row[1]) for row in rows} == {(op, c["case"]) for op, c in cases}
    for operation, case in cases:
        worst = min(case["ratios"].values())
        if len([c for op, c in cases if (op, c["case"]) == (operation, case["case"])]) == 1:
            (row,) = (r for r in rows if (r[0].removeprefix("| "), r[1]) == (operation, case["case"]))
            assert any(
                cell.startswith(f"**{worst:.2g}**" if worst < 0.995 else f"{table._digits(worst)} ") for cell in row[2:]
            )


def files():
    found = (json.loads(path.read_text()) for path in (ROOT / "bench/results").glob("*.json"))
    return [d for d in found if isinstance(d.get("results"), dict) and "ceilings" in d]


def test_of_two_files_the_newer_counts_and_processors_stand_apart(tmp_path):
    def write(name, date, ratio, **environment):
        environment = {"device": "cpu", "processor": "25, X", "date": date, **environment}
        case = {"case": "c", "ratios": {"peer": ratio}, "best_peer": "peer", "seconds": {"ours": {"p50": 0.01}}}
        (tmp_path / name).write_text(
            json.dumps({"environment": environment, "ceilings": {}, "results": {"operation": [case]}})
        )

    write("b.json", "2026-01-01", 2.0, instructions="AVX2")
    write("a.json", "2026-01-02", 0.5, instructions="AVX2")
    write("c.json", "2026-01-01", 3.0, processor="26, X")
    lines = table.table(table.measured(tmp_path)).splitlines()
    assert lines[0] == "| operation | case | X Zen 3, AVX2 | X Zen 5, AVX512 |"
    assert lines[2] == "| operation | c | **0.5** peer (10 ms) | 3 peer (10 ms) |"


def test_what_is_written_is_json():
    found = {"a": [1.0, float("nan"), {"b": -float("inf")}], "c": "words"}
    assert json.loads(json.dumps(harness.plain(found), allow_nan=False)) == {
        "a": [1.0, None, {"b": "-inf"}],
        "c": "words",
    }
