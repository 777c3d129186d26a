"""What figures say beside their lines: where axes end, what ticks are called, and that marks share one scale."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from featdyn.report.colours import KINDS, NEUTRAL, colours, patterns
from featdyn.report.figure import Axis, Figure, Lines, Map, Mark, Series, is_log, ratio
from featdyn.report.figures import by_layer, curves, layer_map, lines
from featdyn.report.plotly import to_plotly
from featdyn.report.rounding import percent, points, short
from featdyn.reproduce.forest import COLOUR, cell_name, decisive, forest, said_value, style
from featdyn.reproduce.rules import FAILS, HOLDS, INFORMS, NO_POWER, UNDECIDED

LINE = Series("a", np.array([1.0, 2.0, 4.0]))
RUN = Axis("checkpoint / step", "checkpoint", checkpoints=tuple(range(0, 36, 3)), steps=tuple(range(0, 36_000, 3_000)))


def layout(x: Axis = RUN, y: Axis = Axis("y"), *series: Series, **more: Any) -> dict[str, Any]:  # noqa: B008  frozen
    return to_plotly(Lines(x, y, series or (LINE,), **more))["layout"]


def test_a_checkpoint_axis_has_half_a_place_on_either_side_and_says_number_and_step() -> None:
    found = layout()["xaxis"]
    assert found["range"] == [-0.5, 11.5]  # of twelve places
    assert found["tickvals"] == [0, 2, 4, 6, 8, 10]
    assert found["ticktext"][:3] == ["0<br>0", "6<br>6000", "12<br>12k"]
    assert layout()["meta"] == {"x": list(range(0, 36, 3))}
    assert layout(RUN, Axis(share=True), beside="spread")["meta"]["beside"] == "spread"
    assert layout(RUN, Axis(share=True))["meta"]["share"] is True


def test_axes_of_shares_of_whole_numbers_and_from_zero() -> None:
    assert layout(y=Axis("s", share=True))["yaxis"]["tickformat"] == ".0%"
    assert layout(y=Axis("s", whole=True))["yaxis"]["tickformat"] == "d"
    assert layout(y=Axis("s", from_zero=True))["yaxis"]["rangemode"] == "tozero"
    plain = layout(y=Axis("s"))["yaxis"]
    assert plain == {"title": {"text": "s"}}
    assert layout(Axis("n", "category"))["xaxis"]["type"] == "category"


def spanning(factor: float) -> Series:
    return Series("a", np.array([0.5, 0.5 * factor]))


def test_an_axis_is_logarithmic_beyond_a_span_and_never_of_what_is_not_positive() -> None:
    auto = Axis("y", "auto")
    found = {factor: layout(RUN, auto, spanning(factor))["yaxis"] for factor in (16, 32, 512, 1024, 2.0**36)}
    assert [axis.get("type") for axis in found.values()] == [None, "log", "log", "log", "log"]
    assert found[32]["title"]["text"] == "y, log scale"
    assert [found[factor].get("dtick") for factor in (32, 512, 1024, 2.0**36)] == ["D2", "D2", 1, 2]
    assert not is_log(auto, np.array([0.0, 1e6]))
    assert not is_log(auto, np.array([]))
    assert is_log(Axis(scale="log"), np.array([-1.0, 1.0]))
    assert not is_log(auto, np.array([1.0, 20.0]))  # twenty times is not more than twenty times
    assert ratio(np.array([2.0, 8.0, 4.0])) == 4.0
    assert ratio(np.array([-1.0, 8.0])) == 0.0


def test_marks_stand_over_the_whole_height_with_their_intervals() -> None:
    found = layout(marks=(Mark(3.0, "<phase>", 2.0, 5.0), Mark(7.0, "alone")))
    line, band, other = found["shapes"]
    for shape in found["shapes"]:
        assert (shape["yref"], shape["y0"], shape["y1"]) == ("paper", 0, 1)
    assert (line["type"], line["x0"], line["x1"]) == ("line", 3.0, 3.0)
    assert (band["type"], band["x0"], band["x1"]) == ("rect", 2.0, 5.0)
    assert 0 < band["opacity"] < 0.5  # what lies below is seen
    assert (other["type"], other["x0"]) == ("line", 7.0)
    texts = found["annotations"]
    assert [note["text"] for note in texts] == ["&lt;phase&gt;", "alone"]
    assert all((n["y"], n["yref"], n["yanchor"], n["showarrow"]) == (1, "paper", "bottom", False) for n in texts)


def test_points_stand_side_by_side_and_tell_what_is_beside_them() -> None:
    y = np.array([1.0, np.nan, 3.0])
    series = Series("<a>", y, ["p", "q", "r"], y - 0.25, y + 0.5, joined=False, beside=np.array([0.5, np.nan, 2.0]))
    found = to_plotly(Lines(Axis(scale="category"), Axis(), (series, LINE)))
    points, joined = found["data"]
    assert found["layout"]["scattermode"] == "group"
    assert "scattermode" not in layout()
    assert (points["mode"], joined["mode"]) == ("markers", "lines+markers")
    assert points["marker"]["size"] > joined["marker"]["size"] > 0
    assert points["text"] == ["0.5", "", "2"]
    assert points["name"] == "&lt;a&gt;"
    bars = points["error_y"]
    assert (bars["symmetric"], bars["array"], bars["arrayminus"]) == (False, [0.5, None, 0.5], [0.25, None, 0.25])
    assert (points["x"], points["y"]) == (["p", "q", "r"], [1.0, None, 3.0])


def test_a_map_has_its_numbers_or_names_on_its_sides() -> None:
    axis, z = Axis("a"), np.arange(6.0).reshape(2, 3)
    (plain,) = to_plotly(Map(axis, axis, z))["data"]
    assert (plain["x"], plain["y"], plain["z"]) == ([0, 1, 2], [0, 1], z.tolist())
    assert "tickformat" not in plain["colorbar"]
    assert {"zmin", "meta"}.isdisjoint(plain)
    whole = to_plotly(Map(axis, axis, z, (["r", "s"], ["<", "u", "v"]), True, z - 1, z + 2, (0.0, 9.0)))
    (named,) = whole["data"]
    assert (named["x"], named["y"]) == (["&lt;", "u", "v"], ["r", "s"])
    assert (named["zmin"], named["zmax"]) == (0.0, 9.0)
    assert named["colorbar"]["tickformat"] == ".0%"
    assert named["meta"] == {"low": (z - 1).tolist(), "high": (z + 2).tolist()}
    for side in ("xaxis", "yaxis"):
        assert whole["layout"][side]["showgrid"] is False  # lines would lie over cells
    assert whole["layout"]["showlegend"] is False
    (empty,) = to_plotly(Map(axis, axis, np.zeros((0, 0))))["data"]
    assert (empty["x"], empty["y"]) == ([], [])


PARTS = ((0.0, 0.57), (0.35, 1.0))
"""Of viridis: on light paper from its dark end on, on dark paper to its bright end."""


def channels(shade: str) -> list[int]:
    return [int(shade[i : i + 2], 16) for i in (1, 3, 5)]


@pytest.fixture(scope="module")
def viridis() -> np.ndarray[Any, Any]:
    """Its colours at ten places."""
    mpl = pytest.importorskip("matplotlib", reason="needs the extra plot")
    found: np.ndarray[Any, Any] = np.round([255 * np.array(mpl.colormaps["viridis"](i / 9)[:3]) for i in range(10)])
    return found


@given(st.floats(0, 1))
def test_colours_of_depth_are_viridis_where_it_stands_out(viridis: np.ndarray[Any, Any], depth: float) -> None:
    for shade, (low, high) in zip(colours(Series("a", LINE.y, depth=depth)), PARTS, strict=True):
        places = np.linspace(0, 1, 10)
        wanted = [np.interp(low + (high - low) * depth, places, channel) for channel in viridis.T]
        np.testing.assert_allclose(channels(shade), wanted, atol=0.501)


@pytest.mark.parametrize("place", range(10))
def test_at_its_places_viridis_is_met_exactly(viridis: np.ndarray[Any, Any], place: int) -> None:
    depths = [(place / 9 - low) / (high - low) for low, high in PARTS]
    found = [colours(Series("a", LINE.y, depth=depth))[i] for i, depth in enumerate(depths) if -1e-9 < depth < 1 + 1e-9]
    assert found
    assert [channels(shade) for shade in found] == [viridis[place].tolist()] * len(found)


def test_kinds_come_round_and_only_many_depths_differ_in_more_than_colour() -> None:
    assert colours(Series("a", LINE.y)) == NEUTRAL
    assert [colours(Series("a", LINE.y, order=i)) for i in range(7)] == [*KINDS, KINDS[0]]

    def deep(count: int, **more: Any) -> list[Series]:
        return [Series("a", LINE.y, depth=i / (count - 1), order=i, **more) for i in range(count)]

    plain = ("circle", "solid")
    assert patterns(deep(4)) == [plain] * 4
    five = [("circle", "solid"), ("square", "dash"), ("diamond", "dot"), ("triangle-up", "solid"), ("x", "dash")]
    assert patterns(deep(5)) == five
    assert patterns([*deep(5), replace(LINE, order=1), replace(LINE, depth=0.1)]) == [*five, plain, plain]
    assert patterns(deep(5, dash="dashdot")) == [(marker, "dashdot") for marker, _ in five]
    assert patterns([*deep(2), *deep(4)]) == [plain] * 6  # the same depths are no closer
    assert patterns([replace(one, order=7) for one in deep(5)]) == [("diamond", "dash")] * 5


def test_numbers_for_people_at_their_bounds() -> None:
    assert [short(v) for v in (9999.4, 10_000, -10_000, 999_400, 1e6, -1e9)] == [
        "9999",
        "10k",
        "-10k",
        "999k",
        "1M",
        "-1G",
    ]
    assert (percent(0.9726), percent(1), points(0.0124), points(-0.5)) == (
        "97.3 %",
        "100.0 %",
        "+1.2 points",
        "-50.0 points",
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_lines_of_layers_are_coloured_from_the_first_to_the_last(count: int) -> None:
    names, values = [f"layer {i}" for i in range(count)], np.arange(3.0 * count).reshape(count, 3)
    depths = np.linspace(0, 1, count).tolist()
    data = xr.Dataset({"y": (("t", "cut"), values.T), "y_low": (("cut", "t"), values - 1)}, {"cut": names})
    for deep, found in (
        (True, lines(names, values, deep=True)),
        (True, curves(data, "y", "t", "cut")),
        (False, lines(names, values)),
        (False, curves(data, "y", "t", "cut", deep=False)),
    ):
        assert [(one.name, one.order, one.joined) for one in found] == [(name, i, True) for i, name in enumerate(names)]
        assert [one.depth for one in found] == (pytest.approx(depths) if deep else [None] * count)
        np.testing.assert_array_equal([one.y for one in found], values)
    (first, *_) = curves(data, "y", "t", "cut")
    assert first.high is None  # of one limit that is there
    np.testing.assert_array_equal(first.low, values[0] - 1)
    figure = Lines(RUN, Axis(), (replace(LINE, name=f"{names[-1]}, deep half", depth=0.0), replace(LINE, name="b")))
    among = by_layer(figure, [*names, "more"])
    assert isinstance(among, Lines)
    assert [one.depth for one in among.series] == [pytest.approx((count - 1) / count), None]
    assert by_layer(figure, ["others"]) is figure


def row(
    value: float | None, low: float | None, high: float | None, verdict: str = HOLDS, **cell: str
) -> dict[str, Any]:
    return {"cell": cell, "value": value, "low": low, "high": high, "verdict": verdict}


ROWS = [
    row(0.5, 0.25, 0.75, HOLDS, cut="s1"),
    row(None, None, None, NO_POWER, cut="left out"),
    row(-1.0, -1.5, 0.0, FAILS, cut="x" * 46),
    row(2.0, None, None, INFORMS, cut="y" * 45),
]
CLAIM = {"statement": 'a < "b"', "at_least": 0.125, "at_most": 3.0, "rows": ROWS}


def numbers(text: str | None) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", text or "")]


def test_values_intervals_and_margins_of_a_forest_share_one_scale() -> None:
    root = ET.fromstring(forest(CLAIM))
    _, _, width, height = numbers(root.get("viewBox"))
    assert root.get("aria-label") == 'a < "b"'
    circles, groups = root.findall("g/circle"), root.findall("g")
    drawn = [row for row in ROWS if row["value"] is not None]
    assert [group.get("class") for group in groups] == ["is-holds", "is-does-not-hold", "is-informs"]
    places, values = [float(c.get("cx", "")) for c in circles], [row["value"] for row in drawn]
    for group, one in zip(groups, drawn, strict=True):
        bars = [numbers(path.get("d")) for path in group.findall("path")]
        assert len(bars) == (one["low"] is not None)
        for (left, y, right), circle in zip(bars, group.findall("circle"), strict=False):
            assert y == float(circle.get("cy", ""))
            places, values = [*places, left, right], [*values, one["low"], one["high"]]
    for margin, path in zip((0.125, 3.0), root.findall("path"), strict=True):
        x, top, bottom = numbers(path.get("d"))
        assert 0 < top < min(float(c.get("cy", "")) for c in circles)
        assert max(float(c.get("cy", "")) for c in circles) < bottom < height
        places, values = [*places, x], [*values, margin]
    words = {text.text: text for text in root.findall("text")}
    for label, value in (("margin 0.125", 0.125), ("margin 3", 3.0), ("-1.5", -1.5), ("3", 3.0)):
        assert words[label].get("text-anchor") == "middle"
        places, values = [*places, float(words[label].get("x", ""))], [*values, value]
    terms = np.stack([values, np.ones(len(values))], 1)
    (slope, _), *_ = np.linalg.lstsq(terms, places, rcond=None)
    assert slope > 0
    left_over = terms @ np.linalg.lstsq(terms, places, rcond=None)[0] - places
    assert np.abs(left_over).max() < 0.11  # places are rounded to a tenth
    # A twentieth of room on either side, right of the labels and left of the edge.
    assert max(places) - min(places) == pytest.approx((width - 300 - 26) / 1.1, abs=0.3)
    assert min(places) > 300
    assert max(places) < width
    heights = [float(c.get("cy", "")) for c in circles]
    assert np.ptp(np.diff(heights)) == 0
    assert np.diff(heights)[0] > 2 * max(float(c.get("r", "")) for c in circles)  # rows do not touch
    assert heights[0] - float(circles[0].get("r", "")) > 0
    assert max(heights) < min(float(words[end].get("y", "")) for end in ("-1.5", "3")) < height
    labels = {words[name].get("x") for name in ("s1", "x" * 45 + "…", "y" * 45)}
    assert labels == {"0"}
    assert circles[0].findtext("title") == "s1: 0.5 [0.25, 0.75], holds"


def test_a_forest_of_one_value_has_room_and_one_of_none_is_nothing() -> None:
    alone = {"statement": "a", "at_least": None, "at_most": None, "rows": [row(2.0, 2.0, 2.0, UNDECIDED)]}
    root = ET.fromstring(forest(alone))
    _, _, width, _ = numbers(root.get("viewBox"))
    (circle,) = root.findall("g/circle")
    assert float(circle.get("cx", "")) == pytest.approx((300 + width - 26) / 2)  # in the middle
    assert root.findall("path") == []
    assert forest(alone | {"rows": [ROWS[1]]}) == ""
    assert cell_name({}) == "all"
    assert cell_name({"cut": "a", "set": "b"}) == "a · b"
    assert [said_value(one) for one in (ROWS[0], ROWS[1], ROWS[3])] == ["0.5 [0.25, 0.75]", "–", "2"]


def test_each_verdict_has_a_colour_on_either_paper() -> None:
    light, dark = style().split("@media")
    for verdict, (on_light, on_dark) in COLOUR.items():
        rule = f".is-{verdict.replace(' ', '-')} {{{{ color: {{}}; }}}}"
        assert rule.format(on_light) in light
        assert rule.format(on_dark) in dark
    assert len(set(COLOUR.values())) == len(COLOUR)


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.sampled_from([HOLDS, FAILS, UNDECIDED, NO_POWER])), min_size=1),
    st.none() | st.floats(-1, 0),
    st.none() | st.floats(0, 1),
)
def test_the_decisive_row_is_nearest_a_margin_or_furthest_beyond(
    said: list[tuple[float, str]], low: float | None, high: float | None
) -> None:
    rows = [row(value, None, None, verdict) for value, verdict in said]
    found = decisive([ROWS[1], *rows], {"at_least": low, "at_most": high})
    judged = [value for value, verdict in said if verdict != NO_POWER] or [value for value, _ in said]
    room = [
        min([np.inf, *([v - low] if low is not None else []), *([high - v] if high is not None else [])])
        for v in judged
    ]
    assert found is not None
    assert found["value"] == judged[int(np.argmin(room))]
    assert decisive([ROWS[1]], {"at_least": low, "at_most": high}) is None


def drawn_axes(figure: Figure, width: str = "page") -> Any:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from featdyn.report.paper import drawn

    paper = drawn([("", figure)], width)
    paper.draw_without_rendering()
    return paper.axes[0]


def ticks(own: Any) -> dict[float, str]:
    return {at: label.get_text() for at, label in zip(own.get_ticklocs(), own.get_ticklabels(), strict=True)}


def test_on_paper_a_checkpoint_axis_ends_half_a_place_beyond_its_checkpoints() -> None:
    axes = drawn_axes(Lines(RUN, Axis("y", share=True, from_zero=True), (Series("a", np.linspace(0.25, 0.5, 12)),)))
    assert axes.get_xlim() == (-0.5, 11.5)
    assert ticks(axes.xaxis) == {at: f"{3 * at}\n{short(3000.0 * at)}" for at in (0, 2, 4, 6, 8, 10)}
    assert axes.get_ylim()[0] == 0
    assert "40%" in ticks(axes.yaxis).values()
    across = drawn_axes(Lines(Axis("x", from_zero=True), Axis("y"), (Series("a", np.ones(3), [2.0, 3.0, 4.0]),)))
    assert across.get_xlim()[0] == 0
    assert across.get_ylim()[0] > 0


@pytest.mark.parametrize("size", [4, 129])
def test_on_paper_cells_stand_at_their_checkpoints_as_shapes_or_as_a_picture(size: int) -> None:
    axis = Axis("t", "checkpoint", checkpoints=tuple(range(size)), steps=tuple(range(size)))
    z = np.arange(float(size * size)).reshape(size, size)
    axes = drawn_axes(Map(axis, axis, z))
    (cells,) = [*axes.collections, *axes.images]
    if size == 4:
        corners = cells.get_coordinates()
        assert [corners[..., i].min() for i in (0, 1)] == [0, 0]
        assert [corners[..., i].max() for i in (0, 1)] == [size, size]
        shift = 0.5  # a cell's middle
    else:
        assert cells.get_extent() == [-0.5, size - 0.5, -0.5, size - 0.5]
        shift = 0.0
    np.testing.assert_array_equal(np.ravel(cells.get_array()), z.ravel())
    for own, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        assert limits == (shift - 0.5, size - 0.5 + shift)
        assert {at - shift: int(re.match(r"\d+", text)[0]) for at, text in ticks(own).items()} == {  # type: ignore[index]
            at - shift: at - shift for at in own.get_ticklocs()
        }
    assert cells.get_clim() == (0.0, size * size - 1.0)


def test_on_paper_points_of_one_place_stand_side_by_side_around_it() -> None:
    series = tuple(Series(n, np.ones(2), ["p", "q"], joined=False, order=i) for i, n in enumerate("abc"))
    axes = drawn_axes(Lines(Axis(scale="category"), Axis("y"), series))
    places = np.array([line.get_xdata() for line in axes.lines])
    np.testing.assert_allclose(places.mean(0), [0, 1], atol=1e-12)
    steps = np.diff(places, axis=0)
    np.testing.assert_allclose(steps, steps[0, 0])
    assert 0 < places[-1, 0] - places[0, 0] < 1  # and do not reach the next place
    assert ticks(axes.xaxis) == {0: "p", 1: "q"}
    assert all(line.get_linestyle() == "None" for line in axes.lines)


def test_on_paper_marks_have_their_interval_and_only_short_lines_their_points() -> None:
    marks = (Mark(1.0, "begin", 0.5, 1.5), Mark(2.0, "alone"))
    for length, marker in ((30, "o"), (31, "")):
        axes = drawn_axes(Lines(Axis("x"), Axis("y"), (Series("a", np.arange(float(length))),), marks))
        line, first, second = axes.lines
        assert line.get_marker() == (marker or "None") or line.get_marker() == marker
        assert [list(one.get_xdata()) for one in (first, second)] == [[1.0, 1.0], [2.0, 2.0]]
        (band,) = axes.patches
        assert (band.get_x(), band.get_x() + band.get_width()) == (0.5, 1.5)
        assert [note.get_text() for note in axes.texts] == ["begin", "alone"]
        assert [note.xy[0] for note in axes.texts] == [1.0, 2.0]


def test_on_paper_panels_stand_two_in_a_column_and_four_on_a_page() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from featdyn.report.paper import drawn

    figure = Lines(Axis("x"), Axis("y"), (LINE, Series("b", LINE.y, order=1)))
    for width, count, columns, rows in (("column", 1, 1, 1), ("column", 3, 2, 2), ("page", 4, 4, 1), ("page", 5, 4, 2)):
        paper = drawn([(f"panel {i}", figure) for i in range(count)], width)
        axes = paper.axes
        assert [one.get_title() for one in axes] == [f"panel {i}" for i in range(count)]
        grid = axes[0].get_subplotspec().get_gridspec()
        assert (grid.ncols, grid.nrows) == (columns, rows)
        (legend,) = paper.legends
        assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
        assert legend._ncols >= 2  # both fit beside each other
    assert drawn([("", Lines(Axis(), Axis(), (LINE,)))]).legends == []


def test_on_paper_maps_share_a_scale_which_a_given_range_decides() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from featdyn.report.paper import drawn

    axis, low, high = Axis("t"), np.array([[-1.0, np.nan]]), np.array([[0.0, 3.0]])
    for ranges, ends in (
        ((None, None), (-1.0, 3.0)),
        (((0.0, 1.0), (0.5, 2.0)), (0.0, 2.0)),
        (((0.0, 1.0), None), (-1.0, 3.0)),
    ):
        maps = [Map(axis, axis, z, range=of, title="shift: all") for z, of in zip((low, high), ranges, strict=True)]
        paper = drawn([("a", maps[0]), ("b", maps[1])])
        assert [one.collections[0].get_clim() for one in paper.axes[:2]] == [ends, ends]
        assert paper.get_suptitle() == "shift: all"
    share = drawn([("a", Map(axis, axis, high, share=True, title="a: shift"))])
    share.draw_without_rendering()
    assert share.get_suptitle() == "shift"  # without the panel's own name
    assert "100%" in ticks(share.axes[1].yaxis).values()


@pytest.mark.parametrize(("width", "across"), [("column", 3.3), ("page", 6.9)])
def test_on_paper_lines_are_as_high_as_they_should_be_whatever_stands_around_them(width: str, across: float) -> None:
    long = tuple(Series(f"{'a long name ' * 5}{i}", LINE.y, order=i) for i in range(5))
    for series in ((LINE,), long):
        axes = drawn_axes(Lines(Axis("x"), Axis("y"), series), width)
        height = axes.figure.get_figheight()
        assert axes.get_position().height * height == pytest.approx(0.62 * across, abs=0.05)
        assert height < 40


def test_a_map_of_layers_is_over_checkpoints_or_over_layers_again() -> None:
    z, names = np.eye(2), ["a", "b"]
    both, over = layer_map(z, names, title="t"), layer_map(z, names, RUN)
    assert (both.x.scale, both.y.scale, both.names, both.title) == ("category", "category", (names, names), "t")
    assert (over.x, over.y.scale, over.names) == (RUN, "category", (names, ()))


def test_a_figure_of_no_value_says_so_in_its_middle() -> None:
    found = to_plotly(Lines(RUN, Axis("y"), (Series("a", np.full(3, np.nan)), Series("b", np.array([np.inf])))))
    (note,) = found["layout"]["annotations"]
    assert (note["text"], note["x"], note["y"], note["showarrow"]) == ("No value is known.", 0.5, 0.5, False)
    assert (note["xref"], note["yref"]) == ("paper", "paper")
    for axis in ("xaxis", "yaxis"):
        own = found["layout"][axis]
        assert own == {"title": own["title"], "showticklabels": False, "showgrid": False}
    assert "annotations" not in to_plotly(Lines(RUN, Axis("y"), (Series("a", np.array([0.0])),)))["layout"]


@pytest.mark.parametrize(
    ("z", "span", "ticks"),
    [
        ([0.0, 0.05], None, ".0%"),
        ([0.0, 0.0499], None, ".1%"),
        ([0.0, np.nan, 0.0499], None, ".1%"),
        ([np.nan], None, ".0%"),
        ([0.0, 1.0], (0.5, 0.5499), ".1%"),
        ([0.0, 0.01], (0.0, 1.0), ".0%"),
    ],
)
def test_shares_of_a_narrow_scale_have_a_decimal(z: list[float], span: Any, ticks: str) -> None:
    (trace,) = to_plotly(Map(Axis(), Axis(), np.array([z]), share=True, range=span))["data"]
    assert trace["colorbar"]["tickformat"] == ticks


def test_on_paper_only_the_outer_maps_have_ticks_and_several_share_their_titles() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from featdyn.report.paper import drawn

    x, y = (
        replace(RUN, title="to", checkpoints=(0, 1), steps=(0, 9)),
        replace(RUN, title="from", checkpoints=(0, 1), steps=(0, 9)),
    )
    figure = Map(x, y, np.eye(2), title="a: shift")
    one = drawn([("a", figure)])
    assert (one.get_supxlabel(), one.get_supylabel()) == ("", "")
    assert (one.axes[0].get_xlabel(), one.axes[0].get_ylabel()) == ("to", "from")
    three = drawn([(name, figure) for name in "abc"])  # two in the first row
    assert (three.get_supxlabel(), three.get_supylabel()) == ("to", "from")
    assert len(three.axes) == 4  # and the bar of colours
    for axes, bottom, left in zip(three.axes, (False, True, True), (True, False, True), strict=False):
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("", "")
        shown = [[label.get_visible() for label in own.get_ticklabels()] for own in (axes.xaxis, axes.yaxis)]
        assert [any(each) for each in shown] == [bottom, left]


def test_on_paper_what_has_no_title_takes_the_figure_s_and_points_are_always_marked() -> None:
    points = Series("a", np.arange(31.0), joined=False)
    axes = drawn_axes(Lines(Axis("x"), Axis(), (points,), title="motion: test: all"))
    assert axes.get_ylabel() == "motion"
    assert axes.lines[0].get_marker() == "o"
    assert drawn_axes(Lines(Axis("x"), Axis("y"), (points,), title="motion")).get_ylabel() == "y"
    assert drawn_axes(Lines(Axis("x"), Axis("y", "log"), (LINE,))).get_ylabel() == "y, log scale"
    bounded = replace(LINE, low=np.array([0.5, np.nan, 3.0]), high=np.array([1.5, 3.0, np.inf]))
    (bars,) = drawn_axes(Lines(Axis("x"), Axis("y"), (bounded,))).collections
    assert [segment.tolist() for segment in bars.get_segments()] == [[[0.0, 0.5], [0.0, 1.5]]]
    for half in (replace(bounded, low=None), replace(bounded, high=None)):
        assert not drawn_axes(Lines(Axis("x"), Axis("y"), (half,))).collections


@pytest.mark.parametrize(
    ("names", "turned"), [(["a" * 10] * 3, False), (["a" * 10] * 12, True), (["a" * 90], False), (["a" * 92], True)]
)
def test_on_paper_names_that_are_crowded_stand_upright(names: list[str], turned: bool) -> None:
    places = [f"{i}{name}"[: len(name)] for i, name in enumerate(names)]
    series = (Series("s", np.arange(float(len(places))), places, joined=False),)
    axes = drawn_axes(Lines(Axis(scale="category"), Axis("y"), series))
    labels = axes.xaxis.get_ticklabels()
    assert {label.get_rotation() for label in labels} == {90.0 if turned else 0.0}
    assert [label.get_text().replace("\n", "") for label in labels] == places


def test_on_paper_long_names_have_a_column_and_short_ones_share_a_row() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from featdyn.report.paper import drawn

    def columns(length: int, width: str) -> int:
        each = tuple(Series(f"{i}" * length, LINE.y, order=i) for i in range(9))
        (legend,) = drawn([("", Lines(Axis(), Axis(), each))], width).legends
        return int(legend._ncols)

    for width, inches, lengths in (("column", 3.3, (2, 12, 30)), ("page", 6.9, (12,))):
        for length in lengths:
            # A name has its letters of 0.075 inches, and half an inch for the line.
            assert columns(length, width) == max(1, int(inches / (0.075 * length + 0.5)))


@pytest.mark.parametrize(
    ("span", "ticks"), [(100.0, [1, 2, 5, 10, 20, 50, 100]), (1e6, [1, 10, 100, 1000, 1e4, 1e5, 1e6])]
)
def test_on_paper_a_logarithmic_axis_has_ones_twos_and_fives_or_powers_alone(span: float, ticks: list[float]) -> None:
    axes = drawn_axes(Lines(Axis("x"), Axis("y", "log"), (Series("a", np.array([1.0, span])),)))
    low, high = axes.get_ylim()
    shown = [at for at in axes.yaxis.get_ticklocs() if low <= at <= high]
    assert set(np.round(shown, 6)) <= set(ticks)
    assert len(shown) >= 3
    assert (2.0 in np.round(shown, 6)) == (span < 1000)
    assert len(axes.yaxis.get_minorticklocs()) == 0
