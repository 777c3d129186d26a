"""Sections of the report: of any result that is declared, however much of it is missing, and true to its numbers."""

from __future__ import annotations

import pkgutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.analysis import Analysis, analyses
from featdyn.report import write_report
from featdyn.report.chapters import chapters, plain_section
from featdyn.report.section import Section
from featdyn.store import Run, RunWriter
from tests.engine.declared_results import declared_result
from tests.engine.report_page import Page
from tests.engine.synthetic_run import make_run

SHOWN = {name: analysis for name, analysis in analyses().items() if analysis.section}


def sections(analysis: Analysis, result: Any) -> list[Section]:
    found = pkgutil.resolve_name(analysis.section)(result)
    return [found] if isinstance(found, Section) else list(found)


@pytest.mark.parametrize("name", list(SHOWN))
@settings(deadline=None, max_examples=8)
@given(
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    checkpoints=st.sampled_from([1, 2, 5]),
    others=st.sampled_from([1, 2]),
    seed=st.integers(0, 9),
)
def test_any_result_has_its_sections(name: str, missing: float, checkpoints: int, others: int, seed: int) -> None:
    result = declared_result(SHOWN[name], seed=seed, missing=missing, checkpoints=checkpoints, others=others)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sections(SHOWN[name], result)
    assert found
    for section in found:
        assert section.title
        for panel in section.panels:
            options = [section.choices[choice] for choice in panel.choices]
            assert panel.pair_map is not None or len(panel.figures) == np.prod([len(o) for o in options], dtype=int)
        if section.grid is not None:
            assert {len(row) for row in section.grid.rows} <= {len(section.grid.header)}
            assert all(isinstance(word, str) and "nan" not in word for row in section.grid.rows for word in row)
        for preset, value in section.preset.items():
            assert value in section.choices[preset]


@pytest.mark.parametrize("name", list(SHOWN))
def test_figures_are_what_plotly_takes(name: str) -> None:
    for section in sections(SHOWN[name], declared_result(SHOWN[name], missing=0.2)):
        for panel in section.panels:
            for figure in panel.figures.values():
                go.Figure(figure["data"], figure["layout"])


def test_one_page_holds_them_all(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r.zarr", checkpoints=4)
    with RunWriter.open(run.path) as writer:
        for name, analysis in analyses().items():
            writer.result(name, declared_result(analysis, missing=0.1))
    run = Run(run.path)
    assert [chapter.name for chapter in chapters(run)] == list(analyses())
    page = Page(write_report(run, tmp_path / "r.html"))
    held = {(slot, choice) for slot, figures in page.data["figures"].items() for choice in figures}
    assert set(page.slots()) == held
    assert "cannot show this result" not in page.text
    assert "Not asked yet" not in page.text
    for analysis in analyses().values():
        assert analysis.question in page.text
    assert page.text.count("What could not be computed, and why") == len(analyses())


def drawn(figure: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array([trace["y"] for trace in figure["data"]], float)


def test_lines_are_the_result_s() -> None:
    result = declared_result(SHOWN["batchnorm"], missing=0.2)
    (section,) = sections(SHOWN["batchnorm"], result)
    (panel,) = section.panels
    assert panel.choices == ("set", "cut")
    assert section.preset == {"set": "0"}
    for s, c in np.ndindex(2, 2):
        wanted = result["accuracy"].isel(set=s, cut=c, t2=-1).transpose("policy", "t1")
        np.testing.assert_allclose(drawn(panel.figures[f"{s}|{c}"]), wanted, rtol=1e-3)
    result = declared_result(SHOWN["spectra"], missing=0.2)
    (section,) = sections(SHOWN["spectra"], result)
    wanted = result["participation_ratio"].isel(set=1).transpose("layer", "t")
    np.testing.assert_allclose(drawn(section.panels[0].figures["1|participation_ratio"]), wanted, rtol=1e-3)


def test_memory_is_of_the_last_deep_half() -> None:
    result = declared_result(SHOWN["consistency"], missing=0.2)
    memory = sections(SHOWN["consistency"], result)[2]
    for measure in ("retention", "divergence"):
        wanted = result[measure].isel(set=1, t2=-1).transpose("cut", "t1")
        np.testing.assert_allclose(drawn(memory.panels[0].figures[f"1|{measure}"]), wanted, rtol=1e-3)
    wanted = result["horizon"].isel(set=0).transpose("cut", "t2")
    np.testing.assert_allclose(drawn(memory.panels[1].figures["0"]), wanted, rtol=1e-3)


def test_structured_checkpoints_are_counted_among_those_that_moved() -> None:
    result = declared_result(SHOWN["controls"])
    result["motion"][:] = np.array([0.5, 0.2, 0.1, 0.0])[:, None] * np.ones(result["motion"].shape)
    result["structured"][:] = 1.0
    result["structured"][:, :, 1] = 0.0
    result["motion"][0, 0, 0] = np.nan
    (section,) = sections(SHOWN["controls"], result)
    assert section.grid is not None
    assert [row[2] for row in section.grid.rows] == ["1 of 2", "2 of 3", "2 of 3", "2 of 3"]


def test_any_result_can_be_shown_plainly() -> None:
    result = declared_result(analyses()["spectra"], missing=0.5)
    section = plain_section("spectra", result)
    assert section.grid is not None
    shown = {row[0]: row for row in section.grid.rows}
    assert set(shown) == set(analyses()["spectra"].variables)
    values = result["variance"].values
    assert float(shown["variance"][-1]) == pytest.approx(np.nanmax(values), rel=1e-2)
    assert float(shown["variance"][-3]) == pytest.approx(np.nanmin(values), rel=1e-2)


def test_the_eigenfunctions_of_a_checkpoint_are_the_result_s() -> None:
    result = declared_result(SHOWN["richness"], checkpoints=60, missing=0.2)
    section = sections(SHOWN["richness"], result)[1]
    assert [panel.choices for panel in section.panels] == [("set", "layer", "t")] * 3
    steps = list(section.choices["t"])
    assert (len(steps), steps[0], steps[-1], section.preset["t"]) == (25, "0", "59", "59")
    for panel, name in zip(section.panels, ("cumulative_quality", "cumulative_utilisation", "intensity"), strict=True):
        wanted = result[name].isel(set=1, layer=0, t=int(steps[7]))
        np.testing.assert_allclose(drawn(panel.figures[f"1|0|{steps[7]}"])[0], wanted, rtol=1e-3)


def test_maps_are_the_result_s() -> None:
    result = declared_result(SHOWN["collapse"], missing=0.2)
    (section,) = sections(SHOWN["collapse"], result)
    (trace,) = section.panels[1].figures["1|nc1"]["data"]
    np.testing.assert_allclose(
        np.array(trace["z"], float), result["nc1"].isel(set=1).transpose("layer", "t"), rtol=1e-3
    )
    assert trace["y"] == result["layer"].values.tolist()
    result = declared_result(SHOWN["similarity"], missing=0.2)
    (section,) = sections(SHOWN["similarity"], result)
    (trace,) = section.panels[1].figures["rsa"]["data"]
    wanted = result["rsa"].isel(t1=-1, t2=-1).transpose("layer", "layer2")
    np.testing.assert_allclose(np.array(trace["z"], float), wanted, rtol=1e-3)
    (trace,) = section.panels[0].figures["jaccard|1"]["data"]
    wanted = result["jaccard"].isel(layer=1, layer2=1).transpose("t1", "t2")
    np.testing.assert_allclose(np.array(trace["z"], float), wanted, rtol=1e-3)


def test_rows_of_a_heat_map_are_labelled_in_one_line():
    from featdyn.report.figures import checkpoint_axis, heatmap

    axis = checkpoint_axis(np.arange(3), np.array([0, 50, 1200]))
    layout = heatmap(np.eye(3), axis, axis)["layout"]
    assert layout["yaxis"]["ticktext"] == [label.replace("<br>", " / ") for label in layout["xaxis"]["ticktext"]]
    assert layout["yaxis"]["ticktext"][1] == "1 / 50"
