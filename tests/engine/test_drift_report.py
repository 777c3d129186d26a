"""The report's section on drift says what the result holds."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.analysis import analyses
from featdyn.report.sections.drift import section
from tests.engine.test_drift import ANGLE, STEPS, planted, turn


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    run, model, _ = planted(tmp_path_factory.mktemp("report") / "r.zarr", [turn(t) for t in range(STEPS)])
    return analyses()["drift"](run, model=model, cuts=("all",))


def test_figures_show_the_result(result):
    found = section(result)
    assert [panel.choices for panel in found.panels] == [("set", "cut"), ("cut",), (), ("set",)]
    motion = found.panels[0].figures["1|0"].z
    np.testing.assert_array_equal(motion, result["motion"].sel(set="test").isel(cut=0))
    assert found.preset == {"set": "1"}
    assert len(found.grid.rows) == result.sizes["cut"] * result.sizes["set"]
    half = 2 * np.sin(ANGLE * (STEPS - 1 - STEPS // 2) / 2)
    assert found.grid.rows[0][2] == f"{half:.3f}"  # all probes turn alike, which leaves no interval
    assert "%" in found.grid.rows[0][5]


def test_without_training_probes(result):
    found = section(result.drop_vars([name for name in result if str(name).startswith("linear")]))
    assert len(found.panels) == 3
    assert found.grid.rows[0][-1] == "–"
