"""Sections of the report beyond the pairs: each result that a store holds has one, with all its figures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from featdyn.analysis.record import record

from featdyn.analysis import analyses
from featdyn.report import write_report
from featdyn.report.sections import sections
from featdyn.store import Run
from tests.engine.report_page import Page


@pytest.fixture(scope="module")
def run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("sections") / "run.zarr"
    shutil.copytree(small_store, path)
    for name in ("controls", "batchnorm", "rewind"):
        record(path, analyses()[name], {"draws": 20})
    record(path, analyses()["density"], {"permutations": 19})
    record(path, analyses()["noise"], {"draws": 12, "probes": 2, "every": 2})
    record(path, analyses()["isotropy"], {})
    record(path, analyses()["spectra"], {})
    record(path, analyses()["layer_isotropy"], {"samples": 16, "layers": ("pooled",)})
    return Run(path)


def test_every_result_has_its_section(run: Run, small_store: Path) -> None:
    assert [s.name for s in sections(run)] == [
        "memory", "controls", "batchnorm", "rewind", "density", "spectra", "isotropy", "layer_isotropy",
    ]  # fmt: skip
    assert [s.name for s in sections(Run(small_store))] == ["memory"]


def test_the_page_can_show_every_figure(run: Run, tmp_path: Path) -> None:
    page = Page(write_report(run, tmp_path / "r.html"))
    held = {(slot, choice) for slot, figures in page.data["figures"].items() for choice in figures}
    assert set(page.slots()) == held
    for figures in page.data["figures"].values():
        for figure in figures.values():
            go.Figure(figure["data"], figure["layout"])
    assert "our own choice" in page.text
    assert "our own working definitions" in page.text


def test_lines_are_the_result_s(run: Run) -> None:
    result = run.result("batchnorm")
    (section,) = (s for s in sections(run) if s.name == "batchnorm")
    (panel,) = section.panels
    assert panel.choices == ("set", "cut")
    for s in range(result.sizes["set"]):
        for c in range(result.sizes["cut"]):
            lines = panel.figures[f"{s}|{c}"]["data"]
            assert [drawn["name"] for drawn in lines] == result["policy"].values.tolist()
            for p, drawn in enumerate(lines):
                wanted = result["accuracy"].isel(policy=p, set=s, cut=c, t2=-1)
                np.testing.assert_allclose(np.array(drawn["y"], float), wanted, atol=1e-3)
    retention = next(s for s in sections(run) if s.name == "memory").panels[0].figures["1|retention"]["data"]
    wanted = run.result("consistency")["retention"].isel(set=1, t2=-1)
    np.testing.assert_allclose(np.array([drawn["y"] for drawn in retention], float), wanted, rtol=1e-3)


def test_the_table_of_noise_has_a_line_for_each_cut_and_checkpoint(run: Run) -> None:
    result = run.result("isotropy")
    (section,) = (s for s in sections(run) if s.name == "isotropy")
    assert section.grid is not None
    assert len(section.grid.rows) == result.sizes["cut"] * result.sizes["t"]
    first = section.grid.rows[0]
    assert len(first) == len(section.grid.header)
    assert first[:2] == (str(result["cut"].values[0]), f"{int(result['step'].values[0]):,}")
    assert first[2].startswith(str(result["parameter_verdict"].values[0, 0]))


def test_directions_are_the_result_s(run: Run) -> None:
    result = run.result("spectra")
    (section,) = (s for s in sections(run) if s.name == "spectra")
    shown = section.panels[0].figures["1|participation_ratio"]["data"][0]["y"]
    np.testing.assert_allclose(shown, result["participation_ratio"].isel(layer=0, set=1), rtol=1e-3)
    (tests,) = (s for s in sections(run) if s.name == "layer_isotropy")
    assert tests.grid is not None
    for row in tests.grid.rows:
        assert sum(map(int, row[2:5])) == run.checkpoints
