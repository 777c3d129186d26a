"""The report's arithmetic: gap curves, intervals, rounding, ticks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.report.figure import Lines
from featdyn.report.plotly import TICKS, stride
from featdyn.report.provenance_tables import rows
from featdyn.report.rounding import counts, rounded, short
from featdyn.report.sections.consistency.gap_curves import Distances, gap_curves, window
from featdyn.statistics.resampling import wilson


def _result(steps_: list[int], cuts: int = 1) -> xr.Dataset:
    t = np.arange(len(steps_))
    values = np.random.default_rng(len(t)).random((cuts, 1, len(t), len(t)))
    coords = {"t1": t, "t2": t, "step1": ("t1", steps_), "step2": ("t2", steps_)}
    return xr.Dataset({"accuracy": (("cut", "set", "t1", "t2"), values)}, coords=coords)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 1000), min_size=0, max_size=9))
def test_gap_curves_average_all_pairs_of_a_distance(gaps: list[int]) -> None:
    at = np.cumsum([0, *gaps]).tolist()
    result = _result(at)
    accuracy = result["accuracy"].values[0, 0]
    by_checkpoint, by_step = Distances.by_checkpoint(result), Distances.by_step(result)
    t = len(at)
    assert by_checkpoint.position.tolist() == list(range(t))
    expected = [np.mean([accuracy[t2 - s, t2] for t2 in range(s, t)]) for s in range(t)]
    np.testing.assert_allclose(by_checkpoint.mean(accuracy[by_checkpoint.older, by_checkpoint.newer]), expected)

    pairs = [(at[j] - at[i], accuracy[i, j]) for i in range(t) for j in range(i + 1, t)]
    octaves = sorted({distance.bit_length() for distance, _ in pairs})
    groups = [[pair for pair in pairs if pair[0].bit_length() == octave] for octave in octaves]
    np.testing.assert_allclose(by_step.position, [np.mean([d for d, _ in group]) for group in groups])
    expected = [np.mean([a for _, a in group]) for group in groups]
    np.testing.assert_allclose(by_step.mean(accuracy[by_step.older, by_step.newer]), expected)
    assert by_step.number.tolist() == [len(group) for group in groups]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 16, 50, 200, 1000])
def test_few_ticks_at_round_places(count: int) -> None:
    step = stride(count)
    assert len(range(0, count, step)) <= TICKS
    assert step == 1 or len(range(0, count, step)) >= 3
    assert step / 10 ** math.floor(math.log10(step)) in (1, 2, 5)


def test_numbers_are_short_and_honest() -> None:
    assert rounded([[1 / 3, np.nan], [123456.0, -np.inf]]) == [[0.3333, None], [123500.0, None]]
    assert counts([0.2, np.nan, 1.0], 12345) == [2469, None, 12345]
    assert [short(v) for v in (0, 999, 9999, 12_500, 40_560_000, 2e9, 0.01)] == [
        "0", "999", "9999", "12.5k", "40.6M", "2G", "0.01",
    ]  # fmt: skip
    low, high = wilson(np.array([0.0, 1.0, np.nan]), 10)
    assert low[0] == 0
    assert high[1] == pytest.approx(1)
    assert np.isnan(low[2])


def test_rows_flatten_and_leave_out_what_is_empty() -> None:
    value = {"a": {"b": 1, "c": None, "d": ""}, "e": [1, "x"], "f": [], "g": [[1], {"hé": "ü"}], "i": False, "j": 0.0}
    expected = [("a.b", "1"), ("e", "1, x"), ("g", '[[1], {"hé": "ü"}]'), ("i", "false"), ("j", "0.0")]
    assert list(rows(value)) == expected


def test_gap_curves_are_the_stored_variable_with_its_limits() -> None:
    result = _result([0, 5, 10, 15, 20, 25], cuts=2)
    lags, rng = np.arange(-2, 6), np.random.default_rng(0)  # a window of the last three t2
    middle = rng.random((2, 1, len(lags)))
    stored = {"": middle, "_low": middle - 0.1, "_high": middle + 0.1}
    result = result.assign({f"gap_accuracy{end}": (("cut", "set", "lag"), v) for end, v in stored.items()})
    result = result.assign_coords(lag=lags, cut=["a", "b"], set=["test"])
    (section,) = gap_curves(result)
    by_checkpoint, by_step = (panel.figures["0|accuracy"] for panel in section.panels)
    assert isinstance(by_checkpoint, Lines)
    assert isinstance(by_step, Lines)
    assert list(window(result)) == [3, 4, 5]
    for i, line in enumerate(by_checkpoint.series):
        assert line.low is not None
        assert line.high is not None
        for drawn, end in ((line.y, ""), (line.low, "_low"), (line.high, "_high")):
            np.testing.assert_array_equal(drawn, stored[end][i, 0, 2:])
        assert line.beside is not None
        assert line.beside.tolist() == [3, 3, 3, 3, 2, 1]  # pairs of the window
    accuracy = result["accuracy"].values[0, 0]
    assert by_step.series[0].y[0] == pytest.approx(np.mean([accuracy[t2 - 1, t2] for t2 in (3, 4, 5)]))
