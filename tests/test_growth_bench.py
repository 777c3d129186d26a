"""How the benchmark of growth measures, fits and draws."""

from __future__ import annotations

import importlib
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import growth
from bench.growing import figure, fit
from bench.growing.measured import apart
from bench.growing.runs import COMMANDS, Size

SIZES = (3, 6, 12, 24, 48)


@given(st.floats(-2, 4), st.floats(1e-3, 1e3))
def test_a_power_is_found(power, factor):
    found = fit.growth(SIZES, [factor * n**power for n in SIZES])
    for name in ("slope", "low", "high", "last"):
        assert found[name] == pytest.approx(power, abs=1e-6)
    end = fit.ends(SIZES, [factor * n**power for n in SIZES], 1e6 * factor * SIZES[-1] ** max(power, 0))
    if power > 0.1:
        assert factor * end**power == pytest.approx(1e6 * factor * SIZES[-1] ** power, rel=1e-6)
    if power < 0.05:
        assert end == np.inf


@given(st.integers(0, 2**32 - 1))
def test_intervals_hold_the_slope_of_noisy_powers(seed):
    values = np.array(SIZES) ** 1.5 * np.exp(0.1 * np.random.default_rng(seed).standard_normal(5))
    found = fit.growth(SIZES, values.tolist())
    assert found["low"] < found["slope"] < found["high"]
    assert abs(found["slope"] - 1.5) < 0.5


def test_a_cost_that_does_not_grow_hides_a_power_from_the_slope_and_less_from_the_last_step():
    found = fit.growth(SIZES, [1 + 1e-3 * n**2 for n in SIZES])
    assert found["slope"] < 0.7 < found["last"] < 2


def test_what_is_nothing_does_not_grow():
    assert fit.growth(SIZES, [0.0] * 5) == {"slope": 0.0, "low": 0.0, "high": 0.0, "last": 0.0}
    assert fit.growth(SIZES, [0.0, 0.0, 0.0, 1.0, 1.0])["last"] == 0.0
    assert fit.ends(SIZES, [1.0, 2.0, 4.0, 8.0, 16.0], 8.0) == 48


def test_a_call_is_measured_in_a_process_of_its_own():
    state: list[int] = []

    def work() -> None:
        state.append(1)
        held = np.ones(8 * 2**20)  # 64 MiB
        for _ in range(30):
            held *= 1.0

    found = apart(work)
    assert state == []
    assert 60e6 < found["bytes"] < 90e6
    assert found["seconds"] > 0.005
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        apart(lambda: 1 // 0)


def test_axes_change_what_there_is_and_ask_what_there_is():
    for base, field, values, commands in growth.AXES.values():
        assert isinstance(getattr(base, field), int)
        assert len(values) == 5
        assert set(commands) <= set(COMMANDS)


@pytest.mark.parametrize("axis", ["layers", pytest.param("workers", marks=pytest.mark.slow)])
def test_an_axis_is_measured_fitted_and_drawn(monkeypatch, axis):
    _, field, _, commands = growth.AXES[axis]
    importlib.import_module("featdyn.capture.existing")  # or each process that is forked would, for seconds
    importlib.import_module("featdyn.cli.info")
    small = Size(checkpoints=2, samples=8, layers=2, width=4)
    few = {"layers": ("record", "capture", "info", "gc"), "workers": ("spectra",)}[axis]
    assert set(few) <= set(commands)
    monkeypatch.setitem(growth.AXES, axis, (small, field, (1, 2, 3), few))
    found = growth.fitted(growth.measure(axis, None, 1))
    assert found["values"] == [1, 2, 3]
    assert list(found["commands"]) == list(few)
    assert all(len(taken["seconds"]) == len(taken["bytes"]) == 3 for taken in found["commands"].values())
    assert all(seconds > 0 for taken in found["commands"].values() for seconds in taken["seconds"])
    if axis == "layers":
        assert found["files"] == sorted(found["files"])
        assert all(end["size"] < growth.BEYOND * 3 for end in found["ends first"])
    json.dumps(growth.harness.plain(found), allow_nan=False)
    assert growth.show(found).startswith(f"{axis}: 1, 2, 3; files [")
    drawing = ET.fromstring(growth.drawn([found, found]))
    lines = [part for part in drawing.iter("{http://www.w3.org/2000/svg}path") if len(part)]
    assert len(lines) >= len(few)


def test_what_grows_faster_than_its_work_is_said():
    taken = {"seconds": [float(n**2) for n in SIZES], "bytes": [float(n) for n in SIZES]}
    found = growth.fitted(
        {"axis": "checkpoints", "field": "checkpoints", "values": SIZES, "files": [1] * 5}
        | {"commands": {"record": taken, "similarity": taken}}
    )
    assert found["faults"] == ["record: seconds grow as 2.00, the work as 1"]
    assert found["ends first"][0] == {"size": pytest.approx(60.0), "command": "record", "of": "seconds"}


def test_panels_are_well_formed_and_keep_zeros_out():
    text = figure.figure({"a < b": {"x & y": ((1, 2, 4), (0.0, 1.0, 10.0)), "none": ((1, 2), (0.0, 0.0))}}, 2)
    words = [part.text for part in ET.fromstring(text).iter() if part.text]
    assert {"a < b", "x & y", "none"} <= set(words)
