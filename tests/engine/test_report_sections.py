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
from featdyn.report.colours import FEW, KINDS, NEUTRAL, colours
from featdyn.report.figure import Axis, Figure, Lines, Map, Mark, Series
from featdyn.report.figures import chart, checkpoint_axis, lines
from featdyn.report.plotly import to_plotly
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
        assert section.finding is None or "nan" not in section.finding.sentence + section.finding.verdict
        for panel in section.panels:
            options = [section.choices[choice] for choice in panel.choices]
            assert len(panel.figures) == np.prod([len(o) for o in options], dtype=int)
            assert all(figure.title.startswith(panel.caption) for figure in panel.figures.values())
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
                drawn_by = to_plotly(figure)
                go.Figure(drawn_by["data"], drawn_by["layout"])  # raises on what plotly does not know


@pytest.mark.parametrize("name", list(SHOWN))
def test_no_figure_is_drawn_twice(name: str) -> None:
    """As lines: the same numbers may stand beside them as a map."""
    held: dict[tuple[bytes, ...], str] = {}
    for section in sections(SHOWN[name], declared_result(SHOWN[name], checkpoints=5)):
        for panel in section.panels:
            lines = {k: figure for k, figure in panel.figures.items() if isinstance(figure, Lines) and figure.series}
            for key, figure in lines.items():
                numbers = tuple(np.asarray(series.y, float).tobytes() for series in figure.series)
                mine = f"{section.title}: {panel.caption}"
                assert held.setdefault(numbers, mine) == mine, f"{mine} ({key}) shows what is in {held[numbers]}"


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


def drawn(figure: Figure) -> np.ndarray[Any, Any]:
    assert isinstance(figure, Lines)
    return np.array([series.y for series in figure.series], float)


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
    section, eigen = sections(SHOWN["spectra"], result)
    wanted = result["participation_ratio"].isel(set=1).transpose("layer", "t")
    np.testing.assert_allclose(drawn(section.panels[0].figures["1|participation_ratio"]), wanted, rtol=1e-3)
    shares = result["eigenvalue"] / result["eigenvalue"].sum("rank", min_count=1)
    wanted = shares.isel(set=1, t=2).transpose("layer", "rank")
    np.testing.assert_allclose(drawn(eigen.panels[0].figures["1|2"]), wanted, rtol=1e-12)
    wanted = (result["participation_ratio"] / 16).isel(set=0).transpose("layer", "t")
    np.testing.assert_allclose(shown_map(eigen.panels[1].figures["0"]).z, wanted)


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
    found = shown_map(section.panels[1].figures["1|nc1"])
    wanted = result.isel(set=1).transpose("layer", "t", ...)
    for values, name in ((found.z, "nc1"), (found.low, "nc1_low"), (found.high, "nc1_high")):
        np.testing.assert_array_equal(values, wanted[name])
    assert found.names[0] == result["layer"].values.tolist()
    result = declared_result(SHOWN["similarity"], missing=0.2)
    (section,) = sections(SHOWN["similarity"], result)
    found = shown_map(section.panels[1].figures["rsa"])
    wanted = result["rsa"].isel(t1=-1, t2=-1).transpose("layer", "layer2")
    np.testing.assert_array_equal(found.z, wanted)
    found = shown_map(section.panels[0].figures["jaccard|1"])
    wanted = result["jaccard"].isel(layer=1, layer2=1).transpose("t1", "t2")
    np.testing.assert_array_equal(found.z, wanted)


def shown_map(figure: Figure) -> Map:
    assert isinstance(figure, Map)
    return figure


def test_rows_of_a_heat_map_are_labelled_in_one_line() -> None:
    axis = checkpoint_axis(np.arange(3), np.array([0, 50, 1200]))
    layout = to_plotly(Map(axis, axis, np.eye(3)))["layout"]
    assert layout["yaxis"]["ticktext"] == [label.replace("<br>", " / ") for label in layout["xaxis"]["ticktext"]]
    assert layout["yaxis"]["ticktext"][1] == "1 / 50"


def test_stored_intervals_are_drawn() -> None:
    result = declared_result(SHOWN["averaging"], missing=0.2)
    (section,) = sections(SHOWN["averaging"], result)
    figure = section.panels[0].figures["1"]
    assert isinstance(figure, Lines)
    wanted = result.isel(set=1).transpose("average", "window", ...)
    for i, trace in enumerate(to_plotly(figure)["data"][:2]):
        y = wanted["accuracy"].values[i]
        for end, bars, sign in (("low", "arrayminus", -1), ("high", "array", 1)):
            np.testing.assert_array_equal(getattr(figure.series[i], end), wanted[f"accuracy_{end}"][i])
            drawn_ends = y + sign * np.array(trace["error_y"][bars], float)
            limits = wanted[f"accuracy_{end}"][i].where(np.isfinite(y))  # no bar without its value
            np.testing.assert_allclose(drawn_ends, limits, atol=1e-3)


def test_findings_say_the_result_s_numbers() -> None:
    result = declared_result(SHOWN["controls"])
    result["motion"][:] = 0.5
    result["structured"][:] = 1.0
    result["structured"][0, 0, 0] = 0.0
    (section,) = sections(SHOWN["controls"], result)
    assert section.finding is not None
    assert section.finding.verdict == "structured in 7 of 8"
    assert "on test probes: 3 of 4 at cut0; 4 of 4 at cut1" in section.finding.sentence
    result = declared_result(SHOWN["averaging"])
    for end, value in (("", 0.02), ("_low", 0.01), ("_high", 0.03)):
        result[f"change{end}"][:] = value
    result["change_low"].loc[{"average": "predictions"}] = -0.01
    (section,) = sections(SHOWN["averaging"], result)
    assert section.finding is not None
    assert section.finding.verdict == "weights: better, predictions: no difference shown"
    assert "weights +2.0 points (+1.0 to +3.0 points)" in section.finding.sentence


def test_phases_are_marked_where_they_begin() -> None:
    result = declared_result(SHOWN["generalization"])
    result["second_phase_verdict"][:] = "yes"
    for end, step in (("", 135.0), ("_low", 90.0), ("_high", 180.0)):
        result[f"second_phase{end}"][:] = step
    (section,) = sections(SHOWN["generalization"], result)
    figure = section.panels[0].figures["0|0"]
    assert isinstance(figure, Lines)
    assert figure.marks == (Mark(1.5, "phase 2", 1.0, 2.0),)  # checkpoints are 90 steps apart


@given(st.integers(2, 20), st.booleans())
def test_depths_differ_for_any_colour_vision(count: int, dark: bool) -> None:
    """Twenty layers: neighbours differ in dash or marker, and all colours stay apart without red or green cones."""
    each = lines(map(str, range(count)), np.zeros((count, 2)), deep=True)
    shades = [colours(series)[dark] for series in each]
    assert len(set(shades)) == count
    lightness = [luminance(shade) for shade in shades]
    assert all(contrast(shade, PAPERS[dark]) >= 3 for shade in shades)
    assert np.all(np.diff(lightness) > 0)  # which any colour vision sees
    if count > FEW:
        traces = to_plotly(chart(each, "", checkpoint_axis([0, 1], [0, 9])))["data"]
        looks = [(trace["line"].get("dash"), trace["marker"].get("symbol")) for trace in traces]
        assert all(looks[i] != looks[i + 1] for i in range(count - 1))
        assert len(set(looks)) == min(count, 15)


def luminance(shade: str) -> float:
    channels = [int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


PAPERS = ("#fcfcfa", "#15181c")  # light and dark, as in page.css


def contrast(shade: str, paper: str) -> float:
    darker, brighter = sorted((luminance(shade), luminance(paper)))
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("pair", [*KINDS, NEUTRAL])
def test_kinds_stand_out_from_their_paper(pair: tuple[str, str]) -> None:
    assert all(contrast(shade, paper) >= 3 for shade, paper in zip(pair, PAPERS, strict=True))


def test_a_legend_is_of_several_and_large_figures_leave_out_what_nobody_could_see() -> None:
    axis = Axis("a")

    def drawn(points: int, series: int) -> dict[str, Any]:
        return to_plotly(Lines(axis, axis, tuple(Series(f"s{i}", np.arange(float(points))) for i in range(series))))

    def bounds(rows: int) -> bool:
        z = np.zeros((rows, 64))
        return "low" in to_plotly(Map(axis, axis, z, low=z - 1, high=z + 1))["data"][0].get("meta", {})

    assert [drawn(2, series)["layout"]["showlegend"] for series in (1, 2, 3)] == [False, True, True]
    assert [drawn(points, 1)["data"][0]["mode"] for points in (60, 61)] == ["lines+markers", "lines"]
    assert [bounds(rows) for rows in (64, 65)] == [True, False]
