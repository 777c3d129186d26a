"""The report's section on drift says what the result holds."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from featdyn.analysis import analyses
from featdyn.report import write_report
from featdyn.report.drift import drift as drift_section
from featdyn.report.sections import sections
from featdyn.store import Run, RunWriter
from tests.engine.report_page import Page
from tests.engine.test_drift import ANGLE, STEPS, planted, turn

drift = analyses()["drift"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "r.zarr"
    run, model, _ = planted(path, [turn(t) for t in range(STEPS)])
    result = drift(run, model=model, cuts=("all",))
    with RunWriter.open(path) as writer:
        writer.result("drift", result)
    return Run(path)


def test_figures_show_the_result(run):
    (section,) = sections(run)
    result = run.result("drift")
    assert [panel.choices for panel in section.panels] == [("set", "cut"), ("cut",), (), ("set",)]
    for panel in section.panels:
        for figure in panel.figures.values():
            go.Figure(figure)  # refuses what plotly does not know
    motion = section.panels[0].figures["1|0"]["data"][0]["z"]
    np.testing.assert_allclose(motion, result["motion"].sel(set="test").isel(cut=0), rtol=1e-3)
    assert section.preset == {"set": "1"}
    assert section.grid is not None
    assert len(section.grid.rows) == result.sizes["cut"] * result.sizes["set"]
    half = 2 * np.sin(ANGLE * (STEPS - 1 - STEPS // 2) / 2)
    assert section.grid.rows[0][2].startswith(f"{half:.3f} (")
    assert "%" in section.grid.rows[0][5]


def test_every_choice_on_the_page_has_its_figure(run, tmp_path):
    page = Page(write_report(run, tmp_path / "report.html"))
    slots = [(slot, choice) for slot, choice in page.slots() if slot.startswith("drift")]
    assert len(slots) >= 6
    for slot, choice in slots:
        assert page.data["figures"][slot][choice]["data"], (slot, choice)
    assert "our own choice" in page.text


def test_without_training_probes_and_without_a_result(run, tmp_path):
    result = run.result("drift").drop_vars([n for n in run.result("drift") if str(n).startswith("linear")])
    other, _, _ = planted(tmp_path / "r.zarr", [turn(t) for t in range(STEPS)])
    assert drift_section(other) is None
    with RunWriter.open(other.path) as writer:
        writer.result("drift", result)
    section = drift_section(Run(other.path))
    assert section is not None
    assert len(section.panels) == 3
    assert section.grid is not None
    assert section.grid.rows[0][-1] == "–"
