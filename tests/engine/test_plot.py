"""`featdyn plot`: what a file shows is what is stored, whole names and all, the same bits each time."""

from __future__ import annotations

import json
import pkgutil
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featdyn.analysis import analyses
from featdyn.errors import FeatdynError
from featdyn.report.figure import Axis, Lines, Map, Mark, Series
from featdyn.report.named import all_figures, figures_of, find
from featdyn.report.section import Panel, Section
from featdyn.store import Run, RunWriter
from tests.engine.declared_results import declared_result
from tests.engine.synthetic_run import add_consistency, extend, make_run

LONG = "encoder.layers.3.attention.output_projection.dense_with_a_long_name"
CUTS = ("s1b3", LONG, "$x$ & <b>")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("plot") / "a run.zarr", layers=CUTS)
    add_consistency(made, cuts=CUTS)
    with RunWriter.open(made.path) as writer:
        for name in ("drift", "spectra"):
            writer.result(name, declared_result(analyses()[name], missing=0.2, checkpoints=5))
    return Run(made.path)


@pytest.fixture(scope="module", autouse=True)
def matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")


def svg(featdyn: Any, run: Run, path: Path, *arguments: str) -> ET.Element:
    code, out, err = featdyn("plot", run.path, *arguments, "-o", path)
    assert (code, err) == (0, ""), err
    assert out.startswith(f"wrote {path}: ")
    return ET.parse(path).getroot()


def parts(root: ET.Element, gid: str) -> list[np.ndarray[Any, Any]]:
    """Points of the lines of each path in a group, in the units of the picture; markers are no paths of it."""
    group = next(e for e in root.iter(f"{SVG}g") if e.get("id") == gid)
    paths = [e.get("d") or "" for e in group.iter(f"{SVG}path") if "defs" not in e.tag]
    return [np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", d), float) for d in paths]


def texts(root: ET.Element) -> str:
    return "".join("".join(e.itertext()) for e in root.iter(f"{SVG}text"))


def is_affine(drawn: np.ndarray[Any, Any], stored: np.ndarray[Any, Any]) -> bool:
    """Whether places on paper are stored values up to shift and scale."""
    terms = np.stack([stored, np.ones_like(stored)], 1)
    left = drawn - terms @ np.linalg.lstsq(terms, drawn, rcond=None)[0]
    return bool(np.abs(left).max() < 1e-3)


def test_lines_and_intervals_are_what_is_stored(featdyn, run, tmp_path):
    root = svg(featdyn, run, tmp_path / "p.svg", "drift.linear_probe", "--where", "set=test")
    result = run.result("drift").sel(set="test").transpose("cut", "t", ...)
    values, low, high = (result[f"linear_accuracy{end}"].values for end in ("", "_low", "_high"))
    drawn, stored, ends, kept = [], [], [], []
    for i in range(len(values)):
        points = parts(root, f"series-{i}")[0]
        drawn.append(points[:, 1])
        stored.append(values[i][np.isfinite(values[i])])
        assert len(points) == np.isfinite(values[i]).sum()
        bars = parts(root, f"intervals-{i}")
        there = np.isfinite(values[i]) & np.isfinite(low[i]) & np.isfinite(high[i])
        assert len(bars) == there.sum() > 0
        ends += [bar[:, 1] for bar in bars]
        kept += [np.array(pair) for pair in zip(low[i][there], high[i][there], strict=True)]
    # One axis: lines and both ends of all bars by the same shift and scale.
    assert is_affine(np.concatenate([*drawn, *ends]), np.concatenate([*stored, *kept]))
    assert "series-2" not in ET.tostring(root, encoding="unicode")


def test_cells_are_what_is_stored(featdyn, run, tmp_path):
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    root = svg(featdyn, run, tmp_path / "p.svg", "consistency.grid", "--where", "set=test", "--where", f"cut={LONG}")
    group = next(e for e in root.iter(f"{SVG}g") if e.get("id") == "cells")
    fills = [re.search(r"fill: (#\w+)", e.get("style") or "") for e in group.iter() if e.get("style")]
    every = run.result("consistency")["accuracy"].sel(set="test").transpose("cut", "t1", "t2").values
    values = every[1]
    assert len(fills) == values.size
    scaled = (values - every.min()) / (every.max() - every.min())  # all cuts share a scale
    expected = colormaps["cividis"](scaled.ravel())[:, :3]
    np.testing.assert_allclose([to_rgb(found[1]) for found in fills], expected, atol=3e-3)


def test_all_cuts_stand_side_by_side_on_a_page(featdyn, run, tmp_path):
    root = svg(featdyn, run, tmp_path / "p.svg", "consistency.grid", "--width", "page")
    assert [e.get("id") for e in root.iter(f"{SVG}g")].count("cells") == len(CUTS)
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(6.9 * 72)
    plain = texts(root)
    for name in CUTS:
        assert name in plain  # wrapped, and whole


@pytest.mark.parametrize("width", ["column", "page"])
def test_nothing_is_cut(width):
    from featdyn.report.paper import WIDTHS, drawn

    names, y = [f"{LONG}.{i}" for i in range(9)], np.linspace(0.1, 1, 4)
    axis = Axis("checkpoint / step", "checkpoint", checkpoints=(0, 1, 2, 30_000), steps=(0, 9, 90, 40_600_000))
    series = tuple(
        Series(n, y * (i + 1), low=y * i, high=y * (i + 2), depth=i / 8, order=i) for i, n in enumerate(names)
    )
    marks = (Mark(1.0, "begin of the second phase", 0.5, 1.5),)
    points = tuple(Series(n, y[:2], ["a" * 50, LONG], y[:2], y[:2], order=i, joined=False) for i, n in enumerate("ab"))
    category = Axis(scale="category")
    for figure in (
        Lines(axis, Axis("a title of an axis that is much too long for one line", "auto"), series, marks),
        Lines(Axis("place", "category"), Axis("share", share=True), points),
        Map(axis, category, np.ones((9, 4)), (names, ()), title="of what this is a map: all"),
        Map(category, category, np.arange(81.0).reshape(9, 9), (names, names), low=None),
    ):
        paper = drawn([("", figure)], width)
        paper.draw_without_rendering()
        box = paper.get_tightbbox()
        assert paper.get_figwidth() == WIDTHS[width]
        assert min(box.x0, box.y0) >= -0.01
        assert box.x1 <= paper.get_figwidth() + 0.01
        assert box.y1 <= paper.get_figheight() + 0.01
        inner = [axes.get_position() for axes in paper.axes]
        assert inner[0].width * paper.get_figwidth() > 0.8  # inches: room for what is drawn is left
        assert inner[0].height * paper.get_figheight() > 0.7


@pytest.mark.parametrize("ending", ["svg", "pdf", "png"])
def test_the_same_bits_each_time_whatever_a_user_has_set(featdyn, run, tmp_path, ending):
    import matplotlib as mpl

    paths = [tmp_path / f"{i}.{ending}" for i in range(2)]
    for path, size in zip(paths, (8, 20), strict=True):
        with mpl.rc_context({"font.size": size, "svg.fonttype": "path"}):
            assert featdyn("plot", run.path, "layers", "-o", path)[0] == 0
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert b"a run.zarr, commit 8" in first
    if ending == "pdf":
        assert b"/FontFile2" in first  # the fonts are in it


def test_figures_are_listed_by_name(featdyn, run):
    code, out, _ = featdyn("plot", run.path, "--json")
    listed = {one["figure"]: one for one in json.loads(out)}
    assert code == 0
    assert {"training.loss", "layers.mean", "consistency.grid", "consistency.gap", "spectra.isotropy"} < set(listed)
    assert listed["consistency.grid"]["choices"]["cut"] == list(CUTS)
    assert listed["consistency.grid"]["choices"]["set"][0] == "test"
    for one in all_figures(run):  # the first value of each choice is what stands where nothing is chosen
        firsts = {name: values[0] for name, values in one.choices.items() if name not in one.panels[0].at}
        assert [f.title for _, f in one.figures(firsts)] == [f.title for _, f in one.figures()]
    assert "drift.motion" in featdyn("plot", run.path)[1]


@pytest.mark.parametrize("name", [name for name, analysis in analyses().items() if analysis.section])
def test_each_analysis_names_its_figures(name):
    found = pkgutil.resolve_name(analyses()[name].section)(declared_result(analyses()[name], checkpoints=2))
    each = [panel for section in (found if isinstance(found, list) else [found]) for panel in section.panels]
    assert all(re.fullmatch("[a-z_]+", panel.name) for panel in each)
    assert len({(panel.name, *panel.at.items()) for panel in each}) == len(each)


def test_figures_of_other_packages_have_names_too(run, monkeypatch):
    figure = Lines(Axis(), Axis(), (Series("a", np.zeros(2)),))
    panels = [Panel("Same caption", {"": figure}), Panel("Same caption", {"": figure}), Panel("µ", {"": figure})]
    found = [(Section("x", panels=panels), "", "")]
    monkeypatch.setattr("featdyn.report.named._sections", lambda run, group: iter(found))
    assert list(figures_of(run, "drift")) == ["drift.same_caption", "drift.same_caption_2", "drift.figure"]


def test_what_is_wrong_is_one_line_and_leaves_nothing(featdyn, run, tmp_path):
    for arguments, words in (
        (["consistency.gird"], "no figure 'consistency.gird': did you mean consistency.grid?"),
        (["consistensy.grid"], "no figure 'consistensy.grid': did you mean consistency?"),
        (["drift", "--where", "sett=test"], "drift.motion: no choice 'sett': did you mean set?"),
        (["drift", "--where", "set=tset"], "drift.motion: no set 'tset': did you mean test?"),
        (["consistency", "--where", "cut=s1b4"], "consistency.grid: no cut 's1b4': did you mean s1b3?"),
        (["drift", "--where", "set"], "--where set: write NAME=VALUE, such as set=test"),
        (["drift", "-o", tmp_path / "x.gif"], "x.gif: the name has to end with .pdf, .svg, .png"),
        (["-o", tmp_path / "x.svg"], "name a figure after "),
    ):
        code, out, err = featdyn("plot", run.path, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert words in err
    with pytest.raises(FeatdynError, match="nothing can be chosen"):
        find(run, "training").figures({"set": "test"})
    assert not list(tmp_path.iterdir())


def test_completion_knows_the_figures(run):
    from click.shell_completion import ShellComplete

    from featdyn.cli.main import featdyn as command

    complete = ShellComplete(command, {}, "featdyn", "_FEATDYN_COMPLETE")

    def values(word: str, store: Any = run.path) -> list[str]:
        return [item.value for item in complete.get_completions(["plot", str(store)], word)]

    assert values("d") == ["drift."]
    assert values("consistency.g") == ["consistency.grid", "consistency.gap", "consistency.gap_by_step"]
    assert values("", "nowhere.zarr") == []


def test_numbers_stand_at_their_own_places_and_shares_on_a_log_axis_are_not_rounded_to_nothing():
    from featdyn.report.paper import drawn

    line = Series(
        "a", np.array([0.5, 0.02, 0.0004]), [1, 4, 16], np.array([0.4, 0.01, 1e-7]), np.array([0.6, 0.03, 1e-3])
    )
    wide = Lines(Axis("rank", "log", whole=True), Axis("share", "log", share=True), (line,), title="rank: all")
    plain = Lines(Axis("lag"), Axis("share"), (line,), title="lag: all")
    for figure in (wide, plain):
        paper = drawn([("", figure)])
        paper.draw_without_rendering()
        axes = paper.axes[0]
        for own, per in ((axes.xaxis, 1), (axes.yaxis, 100 if figure is wide else 1)):
            low, high = own.get_view_interval()
            shown = [(at, text.get_text()) for at, text in zip(own.get_ticklocs(), own.get_ticklabels(), strict=True)]
            inside = [(at, words) for at, words in shown if low <= at <= high]
            assert len(inside) >= 2
            for at, words in inside:
                assert float(words.rstrip("%").replace("\N{MINUS SIGN}", "-")) == pytest.approx(at * per, rel=0.05)


def test_a_figure_of_nothing_is_not_made_and_a_choice_is_made_once(featdyn, run, tmp_path):
    from featdyn.report.paper import save

    nothing = Lines(Axis("t"), Axis("moved"), (Series("a", np.full(3, np.nan)),), title="motion: test")
    with pytest.raises(FeatdynError, match="motion: test: every value is missing"):
        save([("", nothing)], tmp_path / "a.pdf", width="column", source="")
    code, _, err = featdyn("plot", run.path, "consistency.grid", "--where", "cut=a", "--where", "cut=b")
    assert (code, err.count("\n")) == (1, 1)
    assert "give each name once" in err
    assert list(tmp_path.iterdir()) == []


def test_places_are_chosen_as_queries_have_them(run):
    spectrum, grid = find(run, "spectra.spectrum"), find(run, "consistency.grid")
    times = list(spectrum.section.choices["t"])

    def drawn(of, **where):
        return [id(figure) for _, figure in of.figures(where)]

    for words, key in (("-1", times[-1]), ("last", times[-1]), ("first", times[0]), ("-2", times[-2]), ("1", "1")):
        for name in ("t", "checkpoint"):
            assert drawn(spectrum, **{name: words}) == drawn(spectrum, t=key), (name, words)
    assert drawn(spectrum, t="-1") != drawn(spectrum, t="0")
    assert drawn(grid, cut="-1") == drawn(grid, cut=CUTS[-1]) != drawn(grid, cut="0")
    assert drawn(grid, set="-1") == drawn(grid, set="corrupted") != drawn(grid)
    for where, said in (
        ({"t": "7"}, "no t '7'"),
        ({"t": "-9"}, "no t '-9'"),
        ({"t": "1", "checkpoint": "2"}, "checkpoint is t here: give one of them"),
        ({"set": "7"}, "no set '7'"),
    ):
        with pytest.raises(FeatdynError, match=said):
            spectrum.figures(where)
    with pytest.raises(FeatdynError, match="no choice 'checkpoint'"):
        grid.figures({"checkpoint": "-1"})


def test_ticks_of_a_page_count_the_decades_that_intervals_reach():
    from featdyn.report.plotly import to_plotly

    y = np.array([1.0, 30.0, 90.0])
    for low, high, step in ((y, y, "D2"), (y / 2, 2 * y, "D2"), (y / 1e4, 1e4 * y, 2), (y - y, 1e4 * y, 1)):
        drawn = to_plotly(Lines(Axis("t"), Axis("nc1", "auto"), (Series("a", y, low=low, high=high),)))
        axis = drawn["layout"]["yaxis"]
        assert (axis["type"], axis["dtick"]) == ("log", step)


def test_a_result_behind_its_run_is_said_on_the_screen_and_in_the_file(featdyn, tmp_path):
    behind = add_consistency(make_run(tmp_path / "r.zarr", checkpoints=3), cuts=("s1b3", "pooled"))
    path = tmp_path / "grid.svg"
    code, out, err = featdyn("plot", behind.path, "consistency.grid", "-o", path)
    assert (code, err) == (0, "")
    assert "cut after s1b3; cut after pooled: " in out
    extend(behind)
    code, out, err = featdyn("plot", behind.path, "consistency.grid", "-o", path)
    said = "computed when there were 3 of now 4 checkpoints"
    assert code == 0
    assert f"{said}; anew: featdyn analyze {behind.path} consistency" in err
    assert said in path.read_text()
    code, out, err = featdyn("query", behind.path, "results.consistency.accuracy", "--where", "t2=-1", "--limit", "1")
    assert code == 0
    assert said in err
    assert featdyn("query", behind.path, "train_loss")[2] == ""
    assert said in featdyn("info", behind.path, "--results")[1]
    code, out, err = featdyn("compare", behind.path)
    assert code == 1
    assert err.count("\n") == 1
    assert f"{behind.path}: --where" in err
    assert said in err
