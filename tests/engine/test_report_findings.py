"""What findings and tables say at the limits of their rules."""

from __future__ import annotations

import pkgutil
from typing import Any

import numpy as np
import pytest
import xarray as xr

from featdyn.analysis import analyses
from featdyn.report.document import brief
from featdyn.report.figure import Axis, Lines
from featdyn.report.findings import NOTHING, across, halfway, probes, sign_of
from featdyn.report.rounding import percent
from featdyn.report.section import Finding, Panel, Section, alt_text, between, bounded_word, times_of, word
from tests.engine.declared_results import declared_result

NAN = np.nan


def shown(name: str, result: xr.Dataset) -> Section:
    """The first section of a result."""
    found = pkgutil.resolve_name(analyses()[name].section)(result)
    return found if isinstance(found, Section) else list(found)[0]  # noqa: RUF015


def said(section: Section) -> tuple[str, str]:
    assert section.finding is not None
    return section.finding.sentence, section.finding.verdict


def column(section: Section, header: str) -> list[str]:
    assert section.grid is not None
    return [row[list(section.grid.header).index(header)] for row in section.grid.rows]


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(0.1, 0.2, 1), (0.0, 0.2, 0), (-0.1, 0.0, 0), (-0.2, -0.1, -1), (NAN, NAN, 0)]
)
def test_a_change_has_a_sign_where_its_interval_leaves_zero_out(low: float, high: float, sign: int) -> None:
    cell = xr.Dataset({"x": 0.0, "x_low": low, "x_high": high})
    assert sign_of(cell, "x") == sign
    assert sign_of(cell.drop_vars("x_low"), "x") == 0


def test_the_smallest_and_the_largest_are_named_once_each() -> None:
    data = xr.Dataset({"x": ("cut", [3.0, NAN, 1.0, 2.0])}, {"cut": list("abcd")})
    assert across(data, "x", "cut", "{:g}".format) == "1 at c to 3 at a"
    assert across(data.isel(cut=[1, 3]), "x", "cut", "{:g}".format) == "2 at d"
    assert across(data.isel(cut=[1]), "x", "cut", "{:g}".format) == ""
    assert [halfway(xr.DataArray(steps)) for steps in ([0], [0, 10], [0, 4, 5, 10], [0, 4, 7, 10])] == [0, 0, 2, 1]
    names = [probes(xr.Dataset(coords=coords)) for coords in ({}, {"set": "test"}, {"set": "probes"}, {"set": ["a"]})]
    assert names == ["", "on test probes", "on all probes", ""]


@pytest.mark.parametrize(
    ("length", "most", "cut"), [(4, 4, "abcd"), (5, 4, "ab…de"), (5, 5, "abcde"), (6, 5, "ab…ef"), (7, 6, "abc…efg")]
)
def test_a_text_that_is_too_long_loses_its_middle(length: int, most: int, cut: str) -> None:
    assert brief("abcdefg"[:length], most) == cut
    assert brief("x" * 48) == "x" * 48
    assert brief("x" * 24 + "yz" + "x" * 23) == "x" * 24 + "…z" + "x" * 23


def test_numbers_in_words_have_a_unit_once_and_an_interval_where_it_is_known() -> None:
    assert (between(0.1, 0.25, percent), between(1, 2, "{:g}".format)) == ("10.0 to 25.0 %", "1 to 2")
    assert (word(0.0), word(NAN), word(np.inf), word(1234.5)) == ("0", "–", "–", "1.23e+03")
    for cell, wanted in (
        ({"x": 1.0}, "1"),
        ({"x": 1.0, "x_low": 0.5, "x_high": 2.0}, "1 (0.5 to 2)"),
        ({"x": 1.0, "x_low": 0.5}, "1"),
        ({"x": 1.0, "x_low": 0.5, "x_high": NAN}, "1"),
        ({"x": NAN, "x_low": 0.5, "x_high": 2.0}, "–"),
        ({"y": 1.0}, "–"),
    ):
        assert bounded_word(xr.Dataset(cell), "x", "{:g}".format) == wanted


@pytest.mark.parametrize(
    ("count", "most", "times"), [(1, 3, [0]), (3, 3, [0, 1, 2]), (4, 3, [0, 2, 3]), (9, 3, [0, 4, 8])]
)
def test_a_slider_has_few_checkpoints_the_last_among_them(count: int, most: int, times: list[int]) -> None:
    result = xr.Dataset(coords={"t": 10 * np.arange(count), "step": ("t", 1000 * np.arange(count))})
    found = times_of(result, most)
    assert list(found) == [str(10 * t) for t in times]
    assert list(found.values())[-1] == f"{10 * times[-1]} / {f'{times[-1]}000' if times[-1] else 0}"


def density(adjusted: list[float], **pairs: Any) -> xr.Dataset:
    result = declared_result(analyses()["density"])
    result["adjusted"][:] = xr.DataArray(adjusted, dims="pair")
    return result.assign_coords({name: ("pair", values) for name, values in pairs.items()})


def test_pairs_are_told_apart_up_to_a_level() -> None:
    just, above = 0.05, float(np.nextafter(0.05, 1))
    found = shown("density", density([just, above, NAN]))
    sentence, verdict = said(found)
    assert sentence.endswith("(adjusted p up to 0.05): 2 of 4 by kde tv; 2 of 4 by mmd.")  # of two cuts
    assert verdict == "moved"
    assert set(column(found, "Pairs told apart by mmd (adjusted p up to 0.05)")) == {"1 of 2"}
    assert said(shown("density", density([above, above, NAN])))[1] == "no motion shown"
    assert said(shown("density", density([NAN] * 3)))[0] == NOTHING
    header, result = "Variance in the basis of total variation", density([just, above, NAN])
    result["explained"][:] = 0.25
    result["explained"][0] = NAN  # of the first cut
    shares = column(shown("density", result), header)
    assert shares[:2] == ["–"] * 2
    assert shares[2:] == [f"{0.25 * min(2, result.attrs['options']['components']):.0%}"] * 2
    (panel,) = shown("density", declared_result(analyses()["density"], checkpoints=1)).panels  # without pairs
    assert panel.caption.endswith(", against the last checkpoint")


@pytest.mark.parametrize(
    ("t1", "t2", "places", "scale", "words"),
    [
        ([0, 1, 2], [3, 3, 3], [0, 90, 180], "linear", ""),
        ([1, 2, 2], [3, 3, 3], [1, 1, 1], "log", ""),
        ([0, 1, 0], [1, 2, 2], [0, 90], "linear", ", the later one is the next"),
        ([1, 2, 1], [2, 3, 3], [1, 1], "log", ", the later one is the next"),
    ],
)
def test_distances_are_to_the_last_checkpoint_or_to_the_next(
    t1: list[int], t2: list[int], places: list[int], scale: str, words: str
) -> None:
    steps = {f"step{end}": 90 * np.array(of) for end, of in (("1", t1), ("2", t2))}
    steps["step1"] = np.minimum(steps["step1"], 1) if scale == "log" else steps["step1"]  # from the first step on
    figure = shown("density", density([0.5] * 3, t1=t1, t2=t2, **steps)).panels[0].figures["0|0"]
    assert isinstance(figure, Lines)
    assert [list(one.x or ()) for one in figure.series] == [places] * 2
    assert (figure.x.scale, figure.x.title) == (scale, f"step of the earlier checkpoint{words}")


def test_verdicts_of_isotropy_are_counted_and_p_values_are_short() -> None:
    result = declared_result(analyses()["isotropy"])
    result["parameter_verdict"][:] = "anisotropic"
    result["parameter_verdict"][0, 0] = "isotropic"
    result["parameter_verdict"][0, 1] = ""
    result["parameter_directions"][:] = xr.DataArray([-1, 0, 1, 12], dims="t")
    result["parameter_pvalue"][:] = xr.DataArray([1e-16, 0.9e-16, 0.0123, NAN], dims="t")
    result["parameter_pvalue"].loc[{"test": "other_test"}] = 0.5
    result["parameter_share"][:] = xr.DataArray([0.25, 0.5], dims="k")
    result["parameter_drift_share"][:] = xr.DataArray([0.25, 0.5], dims="k")
    for name, value in (("held_out", 0.75), ("held_out_isotropic", 0.125)):
        result[f"parameter_{name}"][:] = xr.DataArray([0.1, value], dims="k")
    found = shown("isotropy", result)
    sentence, verdict = said(found)
    assert verdict == "6 anisotropic, 1 isotropic"
    assert sentence == (
        "Of 7 places (cut and checkpoint) noise of the parameters is: 6 anisotropic, 1 isotropic. Its 2 largest "
        "directions hold 75.0 % of the variance of held-out draws (median; isotropic noise: 12.5 %)."
    )
    second = column(found, "Verdict, parameters")[4:]
    assert second == ["anisotropic", "anisotropic", "anisotropic, 1 direction", "anisotropic, 12 directions"]
    assert column(found, "p")[:4] == ["1e-16", "< 1e-16", "0.012", "–"]
    assert set(column(found, "Share of the top 1 / 2")) == {"25 % / 50 %"}
    assert set(column(found, "Drift share of the most directions")) == {"50 %"}
    without = shown("isotropy", result.drop_vars("parameter_held_out"))
    assert said(without)[0].endswith("1 isotropic.")
    result["parameter_verdict"][:] = ""
    assert (
        said(shown("isotropy", result))[0]
        == said(shown("isotropy", result.drop_vars("parameter_verdict")))[0]
        == NOTHING
    )


def test_what_generalizes_is_said_of_four_networks_at_most() -> None:
    result = declared_result(analyses()["generalization"], others=3)
    sentence, verdict = said(shown("generalization", result))
    assert sentence.count(" with reference") == 4
    asked = result["second_phase_verdict"].isel(set=0).size
    assert verdict == f"phase 2 told in 0 of {asked}, phase 3 told in 0 of {asked}"
    result["power"][:] = NAN
    assert "by decay plus spindle at cut0" in said(shown("generalization", result))[0]
    result["decay_share"][:] = NAN
    assert said(shown("generalization", result))[0] == NOTHING


def test_averages_of_one_checkpoint_are_none_and_the_largest_window_is_told() -> None:
    result = declared_result(analyses()["averaging"])
    assert said(shown("averaging", result))[0].startswith(
        "Averaging 4 checkpoints changes accuracy on test probes by: "
    )
    backwards = result.isel(window=slice(None, None, -1))
    assert said(shown("averaging", backwards)) == said(shown("averaging", result))
    one = result.isel(window=[0])
    assert said(shown("averaging", one))[0] == "Nothing is averaged in a window of one checkpoint."
    assert (shown("averaging", one).panels, shown("averaging", one).choices) == ([], {})
    for end, value in (("", -0.02), ("_low", -0.03), ("_high", -0.01)):
        result[f"change{end}"][:] = value
    assert said(shown("averaging", result))[1] == "weights: worse, predictions: worse"
    figure = shown("averaging", result).panels[0].figures["0"]
    assert isinstance(figure, Lines)
    last = figure.series[-1]
    assert (last.name, last.dash) == ("last network", "dot")
    np.testing.assert_allclose(last.y, (result["accuracy"].isel(set=0) + 0.02).max("average"))
    assert said(shown("averaging", result.assign(change=NAN * result["change"])))[0] == NOTHING


def test_spectra_show_shares_of_what_varies() -> None:
    result = declared_result(analyses()["spectra"], others=30)
    result["eigenvalue"][0, 0, 0] = 0.0
    (_, found) = pkgutil.resolve_name(analyses()["spectra"].section)(result)
    figure = found.panels[0].figures["0|0"]
    assert isinstance(figure, Lines)
    still, moving = figure.series[0], figure.series[1]
    assert np.isnan(still.y).all()
    ranks = np.array(moving.x)
    assert (ranks[0], ranks[-1]) == (1, 30)
    assert len(ranks) <= 20
    values = result["eigenvalue"][1, 0, 0].values
    np.testing.assert_allclose(moving.y, values[ranks - 1] / values.sum())


def test_a_section_follows_the_slider_where_any_of_it_has_checkpoints() -> None:
    over, plain = Axis("t", "checkpoint", checkpoints=(0, 1), steps=(0, 9)), Axis("x")

    def section(*axes: Axis, **more: Any) -> Section:
        return Section("s", panels=[Panel("p", {"": Lines(plain, axis, ())}) for axis in axes], **more)

    assert not Section("s").timed
    assert not section(plain, plain).timed
    assert section(plain, over).timed
    assert section(plain, choices={"t": {"0": "0"}}).timed
    assert not section(plain, choices={"set": {"0": "0"}}).timed
    assert section(pair_maps={}).timed


@pytest.mark.parametrize(
    ("detail", "finding", "words"),
    [
        ("", None, "A map."),
        ("of it", None, "A map. of it."),
        ("", Finding("It is flat."), "A map. It is flat."),
        ("of it", Finding("It is flat."), "A map. of it. It is flat."),
    ],
)
def test_what_is_not_seen_is_said(detail: str, finding: Finding | None, words: str) -> None:
    assert alt_text(Section("s", finding=finding), Panel("A map", detail=detail)) == words


def test_a_phase_begins_where_the_first_criterion_that_tells_it_says() -> None:
    result = declared_result(analyses()["generalization"], others=3)
    result["second_phase_verdict"][:] = xr.DataArray(["no", "yes", "yes"], dims="criterion")
    result["third_phase_verdict"][:] = xr.DataArray(["yes", "yes", "cannot tell"], dims="criterion")
    for end, shift in (("", 0.0), ("_low", -9.0), ("_high", 18.0)):
        result[f"second_phase{end}"][:] = xr.DataArray([90.0, 180.0, 270.0], dims="criterion") + shift
        result[f"third_phase{end}"][:] = xr.DataArray([NAN, 225.0, 90.0], dims="criterion") + shift
    found = shown("generalization", result)
    figure = found.panels[0].figures["0|0"]
    assert isinstance(figure, Lines)
    assert [(mark.name, mark.x) for mark in figure.marks] == [("phase 2", 2.0), ("phase 3", 2.5)]
    assert [(mark.low, mark.high) for mark in figure.marks] == [(pytest.approx(1.9), pytest.approx(2.2)), (2.4, 2.7)]
    assert column(found, "Phase 2 from step")[:3] == ["no", "180 (171 to 198)", "270 (261 to 288)"]
    assert column(found, "Phase 3 from step")[:3] == ["–", "225 (216 to 243)", "cannot tell"]


def test_a_row_of_drift_is_of_the_probes_of_its_set() -> None:
    result = declared_result(analyses()["drift"])
    straightness = xr.DataArray([0.25, 0.75], dims="probe")
    result["straightness"][:] = straightness
    header = "Straightness of the whole path"
    assert set(column(shown("drift", result), header)) == {"0.500"}
    split = result.assign_coords(split=("probe", np.array(["train", "test"], dtype=object)))
    assert column(shown("drift", split), header) == ["0.750", "0.250"] * 2  # of two cuts: test, train
    split["straightness"][:, 0] = NAN
    assert column(shown("drift", split), header) == ["0.750", "–"] * 2


@pytest.mark.parametrize(
    ("orders", "sentence"),
    [
        ([2.5], "probes at the last checkpoint is 2.50 at cut0."),
        ([1.5, 2.5], "probes at the last checkpoint is 2.50 at cut0; at the first it is 1.50 at cut0."),
        ([NAN, 2.5], "probes at the last checkpoint is 2.50 at cut0."),
    ],
)
def test_where_orders_began_is_said_where_there_was_a_beginning(orders: list[float], sentence: str) -> None:
    result = declared_result(analyses()["interactions"], checkpoints=len(orders), others=1)
    for end in [name for name in ("mean_order_low", "mean_order_high") if name in result]:
        result = result.drop_vars(end)
    result["mean_order"][:] = xr.DataArray(orders, dims="t")
    assert said(shown("interactions", result))[0].endswith(sentence)
    result["mean_order"][..., -1] = NAN
    assert said(shown("interactions", result))[0] == NOTHING
