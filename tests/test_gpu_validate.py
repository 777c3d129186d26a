"""What is prepared for a GPU: differences are found, and a limit of time holds whatever a part does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import gpu_validate, harness
from bench.gpu import agreement, load, timings

ROOT = Path(__file__).parent.parent
FAKE = "import json, os, sys, time; path = sys.argv[sys.argv.index('--json') + 1]\n"
SAY = """skip = sys.argv[sys.argv.index(path) + 1:]
def say(**row): open(path, 'a').write(json.dumps(row) + chr(10))
"""


def fake(code: str) -> list[str]:
    return [sys.executable, "-c", FAKE + SAY + code]


class Begun(subprocess.Popen):
    """A process whose time counts from when it hangs."""

    def wait(self, timeout: float | None = None) -> int:
        rows = Path(self.args[self.args.index("--json") + 1])
        while self.poll() is None and not rows.read_text().endswith("ha"):
            time.sleep(0.01)
        return super().wait(timeout)


def test_a_part_that_hangs_is_stopped_and_what_it_found_is_kept(monkeypatch):
    monkeypatch.setattr(gpu_validate.subprocess, "Popen", Begun)
    code = "say(what='one', ok=True); open(path, 'a').write('{\"what\": \"ha'); time.sleep(600)"
    found = gpu_validate.part("grid", 3.0, command=fake(code))
    assert found[0] == {"what": "one", "ok": True}
    assert [(row["what"], row["ok"]) for row in found[1:]] == [("grid: the rest", None)]
    assert gpu_validate.verdict(found) == "right so far"


def test_an_operation_that_ends_its_process_is_named_and_the_others_are_tried():
    code = """for name in ("a", "b", "c"):
    if name in skip: continue
    say(begins=name)
    if name == "b": print("out of memory", file=sys.stderr); os.abort()
    say(what=name, ok=True); say(ends=name)"""
    found = gpu_validate.part("timings", 60.0, command=fake(code))
    assert {row["what"]: row["ok"] for row in found} == {"a": True, "b": False, "c": True}
    assert "out of memory" in next(row["note"] for row in found if row["what"] == "b")
    assert gpu_validate.verdict(found) == "wrong"


def test_a_part_that_cannot_begin_is_wrong():
    (row,) = gpu_validate.part("load", 60.0, command=fake("import no_such_module"))
    assert (row["ok"], row["what"]) == (False, "load")
    assert "no_such_module" in row["note"]


def test_verdicts():
    true, false, none = ({"what": "", "ok": ok} for ok in (True, False, None))
    assert gpu_validate.verdict([true, true]) == "right"
    assert gpu_validate.verdict([true, none]) == "right so far"
    assert gpu_validate.verdict([none]) == gpu_validate.verdict([]) == "not reached"
    assert gpu_validate.verdict([true, none, false]) == "wrong"
    assert sum(gpu_validate.PARTS.values()) == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.sampled_from(["value", "nan", "inf", "shape", "nothing"]))
def test_a_difference_beyond_its_tolerance_is_found(seed, size, kind):
    draw = np.random.default_rng(seed)
    expected = size * draw.standard_normal((5, 3))
    expected[0, 0] = np.nan
    found, scale = expected.copy(), max(1.0, float(np.nanmax(np.abs(expected))))
    at = tuple(draw.integers(1, (5, 3)))
    if kind != "nothing":
        found[at] = {"value": expected[at] + 3e-3 * scale, "nan": np.nan, "inf": np.inf}.get(kind, expected[at])
    found = found[:4] if kind == "shape" else found
    row = agreement.difference(found, expected, agreement.Pair("x", lambda backend: {}, 1e-3))
    assert row["ok"] == (kind == "nothing")
    assert row.get("beyond", 1) == (kind != "nothing")
    assert not row.get("equal bits", False) or kind == "nothing"


def test_few_predictions_may_differ():
    pair = agreement.Pair("predictions", lambda backend: {}, 0.5, share=0.01)
    expected = np.zeros(200)
    for wrong, right in ((2, True), (3, False)):
        found = np.where(np.arange(200) < wrong, 4, 0)
        assert agreement.difference(found, expected, pair)["ok"] == right


def test_a_kernel_that_differs_or_fails_is_a_row():
    pair = agreement.Pair("sum", lambda b: {"x": np.ones(3) + (b == "gpu") * 0.01, "n": 7, "none": None}, 1e-3)
    row = agreement.compare(pair)
    assert (row["ok"], row["what"]) == (False, "sum")
    assert row["note"] == "beyond 0.001: x 0.01"
    row = agreement.compare(agreement.Pair("sum", lambda b: {}["x"], 1e-3))
    assert (row["ok"], row["note"]) == (False, "KeyError: 'x'")


def test_settings_are_of_every_kernel(monkeypatch):
    monkeypatch.setattr(harness, "TINY", True)
    names = {pair.name.split()[0] for pair in agreement.pairs()}
    folders = {p.name for p in (ROOT / "kernels/featdyn_kernels").glob("[a-z]*") if (p / "gpu.py").exists()}
    assert names == folders | {"sparsify"}  # and stitch is the grid


def test_recording_beside_other_work_keeps_every_bit(monkeypatch):
    monkeypatch.setattr(harness, "TINY", True)
    (row,) = load.rows("cpu", 200.0)
    assert row["ok"] is True, row["note"]
    assert "bits as on an idle card" in row["note"]
    assert row["products"] > 0


def test_other_bits_of_a_recording_are_found(tmp_path):
    from featdyn.store import Run
    from tests.engine.small_run import record

    for name, plan in (("a", "cc"), ("b", "ccc")):
        record(tmp_path / name, plan)
    a, b = (Run(tmp_path / name) for name in "ab")
    assert load.unlike(a, b, 2) == []
    path = next(spec.path for spec in a.schema.arrays if spec.sample_axis is not None)
    values = a.values
    monkey = {path: np.asarray(values(path)).copy()}
    monkey[path].flat[0] += 1
    a.values = lambda p, *more: monkey.get(p, values(p))  # type: ignore[method-assign]
    assert load.unlike(a, b, 2) == [f"{path}: 1 of {monkey[path].size}"]


def test_a_peer_that_fails_is_left_out_and_ours_that_is_wrong_is_said():
    def check(found: int) -> None:
        assert found == 3, f"found {found}"

    peers = {"good": lambda: 3, "wrong": lambda: 4, "keops": lambda: 3}
    row = timings.timed("sum", harness.Case("x", lambda: 3, peers, check, target={"good": 1e9}), "cpu", {})
    assert row["ok"] is True
    assert set(row["left out"]) == {"wrong", "keops"}
    assert set(row["result"]["ratios"]) == {"good"}
    assert row["note"].endswith("behind 1e+09 for good")
    row = timings.timed("sum", harness.Case("x", lambda: 5, {}, check), "cpu", {})
    assert not row["ok"]
    assert row["note"].startswith("AssertionError: found 5")


def test_all_kernels_are_timed():
    assert set(timings.operations()) == {
        "eigh", "kde", "moebius", "moments", "pairwise", "paths", "recording", "sparsify", "stitch", "summaries",
    }  # fmt: skip
    assert tuple(timings.operations()[-3:]) == timings.LATE


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_of_it_runs_under_the_interpreter(tmp_path):
    call = [sys.executable, "-m", "bench.gpu_validate", "--interpret", "--seconds", "1200", "--json"]
    run = subprocess.run([*call, str(tmp_path / "found.json")], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    parts = json.loads((tmp_path / "found.json").read_text())["parts"]
    # KeOps and zarrs may be missing, and a test may need a card: but every kernel ran, and nothing was wrong.
    assert {name: part["verdict"] for name, part in parts.items()} == dict.fromkeys(gpu_validate.PARTS, "right")
