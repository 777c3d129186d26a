"""Whether a result is of all checkpoints, and what was asked of a run: by the commits that it holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from featdyn.analysis.status import FEW, ONE_CLASS, Status
from featdyn.query import warnings
from featdyn.query.answered import answered
from featdyn.store import Run, RunWriter, commit_result
from tests.engine.synthetic_run import add_consistency, extend, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return add_consistency(make_run(tmp_path / "run.zarr", checkpoints=2))


def test_a_result_is_behind_as_soon_as_its_run_has_one_checkpoint_more(run: Run) -> None:
    name = "results.consistency.accuracy"
    assert warnings(run, name, "train_loss") == []
    commit_result(run, "other", xr.Dataset({"x": ("k", [1.0])}))
    later = extend(run)
    anew = f"anew: featdyn analyze {run.path} consistency"
    said = f"{run.path}: results/consistency/000003 was computed when there were 2 of now 3 checkpoints; {anew}"
    assert warnings(later, name) == [said]
    assert warnings(later, "results.consistency.*", name, "train_loss") == [said]  # once for a result
    assert [line.split()[1] for line in warnings(later, "results.*")] == [
        "results/consistency/000003", "results/other/000004",
    ]  # fmt: skip
    assert warnings(add_consistency(later), name) == []
    assert warnings(later, "results.consistency.000003.accuracy") == [said]


def test_a_result_that_does_not_say_is_of_all_that_there_is(run: Run) -> None:
    with RunWriter.open(run.path) as writer:
        writer.result("bare", xr.Dataset({"x": ("k", [1.0])}))
    assert warnings(Run(run.path), "results.bare.x") == []
    assert warnings(extend(run), "results.bare.x") == []


def test_what_was_asked_is_told_with_what_is_missing(run: Run) -> None:
    status, whole = Status(("a", "b"), (30, 50)), Status(("a",), (2,))
    status.mark(FEW, (slice(0, 24),))
    status.mark(ONE_CLASS, (29, 49))
    data = xr.Dataset(
        {"x": (("a", "b"), np.zeros((30, 50))), "status": status.variable(), "fine": ("c", np.zeros(2))},
        attrs={"question": "Why?", "options": {"sets": ["test"]}},
    )
    data["none"] = ("d", whole.variable().values, whole.variable().attrs)
    commit_result(run, "asked", data)
    first, second = answered(extend(run))
    assert (first["name"], first["path"], first["behind"]) == (
        "consistency", "results/consistency/000003", "computed when there were 2 of now 3 checkpoints",
    )  # fmt: skip
    assert json.loads(first["options"]) == {"cuts": ["default"], "features": "auto"}
    assert (second["question"], json.loads(second["options"])) == ("Why?", {"sets": ["test"]})
    assert second["missing"] == "status: 1,200 of 1,500 too few samples; status: 1 of 1,500 one class"
    assert (first["missing"], second["behind"]) == ("", "computed when there were 2 of now 3 checkpoints")
