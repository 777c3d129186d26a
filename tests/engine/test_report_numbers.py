"""The report's arithmetic: gap curves, intervals, rounding, ticks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.report.figure import Lines, Map
from featdyn.report.layer_summaries import layers
from featdyn.report.plotly import TICKS, stride
from featdyn.report.provenance_tables import head, rows
from featdyn.report.rounding import counts, percent, rounded, short
from featdyn.report.sections.consistency.gap_curves import Distances, gap_curves, window
from featdyn.report.sections.consistency.pair_maps import pair_maps
from featdyn.report.training_curves import panels
from featdyn.statistics.resampling import wilson
from featdyn.store import ArraySpec, Run, RunWriter, Schema
from tests.engine.synthetic_run import make_run


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


def test_layers_are_shown_by_depth_the_norm_first_and_only_what_has_a_value_of_each_sample(tmp_path: Path) -> None:
    """Beside arrays of layers by samples lie one with an axis more, and one elsewhere."""
    dims, names = ("layer", "sample"), ("cube/b", "cube/activation_norm", "cube/a", "elsewhere/x")
    specs = [ArraySpec("checkpoint", (), (), "int64"), *(ArraySpec(name, dims, (3, 5), "float32") for name in names)]
    specs.append(ArraySpec("cube/sketch", (*dims, "k"), (3, 5, 2), "float32"))
    split = np.array(["train", "test", "train", "test", "test"], dtype=object)
    root = xr.Dataset(coords={"sample": [f"s{i}" for i in range(5)], "split": ("sample", split)})
    static = {"": root, "cube": xr.Dataset(coords={"layer": np.array(["x", "y", "z"], dtype=object)})}
    rng, values = np.random.default_rng(0), []
    with RunWriter.create(tmp_path / "r.zarr", Schema(tuple(specs), 5, 2), static=static, attributes={}) as writer:
        for t in range(2):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("checkpoint", np.array(t))
                values.append({spec.path: rng.standard_normal(spec.shape).astype(np.float32) for spec in specs[1:]})
                values[-1]["cube/b"][1, 3] = np.inf
                for block in range(writer.schema.blocks):
                    for path, each in values[-1].items():
                        checkpoint.write(path, each[:, writer.schema.block_slice(block)], block)
    run, known = Run(tmp_path / "r.zarr"), dict[Any, Any]()
    found = layers(run, known)
    assert found is not None
    section, _ = found
    assert list(section.choices["quantity"].values()) == ["activation norm", "a", "b"]
    assert list(section.choices["set"].values()) == ["train (2)", "test (3)"]
    assert section.preset == {"set": "1"}
    for s, name in enumerate(("train", "test")):
        for quantity in ("activation_norm", "b", "a"):
            figure = section.panels[0].figures[f"{s}|{quantity}"]
            assert isinstance(figure, Lines)
            assert [(one.name, one.depth) for one in figure.series] == [("x", 0.0), ("y", 0.5), ("z", 1.0)]
            for layer, one in enumerate(figure.series):
                of = np.array([each[f"cube/{quantity}"][layer, split == name] for each in values], np.float64)
                of[~np.isfinite(of)] = np.nan
                np.testing.assert_allclose(one.y, np.nanmean(of, 1), rtol=1e-6)
                assert one.beside is not None
                np.testing.assert_allclose(one.beside, np.nanstd(of, 1), rtol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "block", lambda *_: pytest.fail("what is known was read again"))
        assert layers(run, known) is not None


RECIPE: dict[str, Any] = {
    "network": {"name": "mlp"}, "training": {}, "data": {}, "labels": {}, "checkpoints": {"test_samples": 0}
}  # fmt: skip
ACCURACY = 0.1 + 0.87 * (1 - math.exp(-90 / 300))
"""Of a made-up run of five checkpoints, at its last."""


@pytest.mark.parametrize(
    ("attributes", "number", "planned"),
    [
        ({}, (f"{ACCURACY:.4g}", "test accuracy", "as recorded at the last checkpoint"), 0),
        ({"recipe": RECIPE}, (percent(ACCURACY), "final test accuracy", "whole test set, last checkpoint"), 0),
        (
            {"recipe": RECIPE, "checkpoint_steps": [0] * 5},
            (percent(ACCURACY), "final test accuracy", "whole test set, last checkpoint"),
            5,
        ),
        (
            {"recipe": RECIPE, "checkpoint_steps": [0] * 6},
            (percent(ACCURACY), "test accuracy so far", "whole test set"),
            6,
        ),
        (
            {"recipe": RECIPE | {"checkpoints": {"test_samples": 1500}}, "checkpoint_steps": [0] * 6},
            (percent(ACCURACY), "test accuracy so far", "at most 1,500 test images, drawn once"),
            6,
        ),
        (
            {"recipe": RECIPE | {"checkpoints": {}}, "checkpoint_steps": [0] * 6},
            (percent(ACCURACY), "test accuracy so far", "whole test set"),
            6,
        ),
        ({"checkpoint_steps": "many"}, (f"{ACCURACY:.4g}", "test accuracy", "as recorded at the last checkpoint"), 0),
    ],
)
def test_accuracy_is_said_with_what_it_was_measured_on(
    tmp_path: Path, attributes: dict[str, Any], number: tuple[str, str, str], planned: int
) -> None:
    found = head(make_run(tmp_path / "r.zarr", attributes=attributes))
    assert found.planned == planned
    assert found.numbers == [
        number,
        ("5", "checkpoints", "to step 90, 1 epoch"),
        ("15", "probes", "7 train, 5 test, 3 corrupted"),
        ("2", "layers", "activations"),
    ]


def test_what_a_run_has_not_is_not_said(tmp_path: Path) -> None:
    bare = head(make_run(tmp_path / "a.zarr", checkpoints=6, curves=("epoch",), sets={"test": 1}))
    assert bare.numbers == [
        ("6", "checkpoints", "to step 180, 2 epochs"),
        ("1", "probe", "fixed samples"),
        ("2", "layers", "activations"),
    ]
    (number, *_) = head(make_run(tmp_path / "b.zarr", checkpoints=1, curves=())).numbers
    assert number == ("1", "checkpoint", "to step 0")
    for i, (attributes, subtitle) in enumerate((
        ({}, ""),
        ({"dataset": {"name": "digits"}}, "digits"),
        ({"recipe": {"network": {"name": "mlp"}}}, "mlp"),
        (
            {"recipe": {"network": {"name": "mlp"}, "description": "why"}, "dataset": {"name": "d"}},
            "mlp trained on d · why",
        ),
        ({"recipe": {"description": "why"}}, "why"),
        ({"recipe": {"network": "odd"}}, ""),
    )):  # fmt: skip
        assert head(make_run(tmp_path / f"{i}.zarr", checkpoints=1, attributes=attributes)).subtitle == subtitle


@pytest.mark.parametrize("trained", [True, False])
def test_training_curves_stand_by_quantity_those_of_training_first(tmp_path: Path, trained: bool) -> None:
    names = ("val_loss", "test_loss", "train_loss", "test_accuracy", "train_accuracy", "zeta", "train", "a_loss")
    attributes = {"recipe": RECIPE} if trained else {}
    found = panels(make_run(tmp_path / "r.zarr", checkpoints=3, curves=names, attributes=attributes))
    drawn = {panel.name: panel.figures[""] for panel in found}
    assert list(drawn) == ["accuracy", "loss", "a_loss", "train", "zeta"]
    lines = {name: [(one.name, one.order) for one in figure.series] for name, figure in drawn.items()}  # type: ignore[union-attr]
    assert lines["accuracy"] == [("train", 0), ("test", 1)]
    assert lines["loss"] == [("train", 0), ("test", 1), ("val", 4)]
    assert (lines["zeta"], lines["train"], lines["a_loss"]) == ([("Zeta", 0)], [("Train", 0)], [("A loss", 0)])
    assert [name for name, figure in drawn.items() if figure.y.share] == (["accuracy"] if trained else [])
    assert [name for name, figure in drawn.items() if figure.y.scale == "auto"] == ["loss", "a_loss"]
    (one,) = panels(make_run(tmp_path / "one.zarr", checkpoints=1, curves=("train_loss", "test_loss")))
    assert [line.name for line in one.figures[""].series] == ["test"]  # of training nothing is known yet


def test_pairs_of_one_checkpoint_have_no_curve_and_maps_of_nothing_a_scale() -> None:
    assert len(list(gap_curves(_result([0, 5])))) == 1
    assert list(gap_curves(_result([0]))) == []
    assert list(gap_curves(_result([0, 5]).drop_vars("accuracy"))) == []
    for shallow, deep, words in ((300, 100, "25 %"), (0, 1, "1e+02 %"), (0, 0, "0 %"), (2, 1, "33 %")):
        result = _result([0, 5]).assign_coords(set=["test"], cut=["a"], set_size=("set", [4]))
        result = result.assign_coords(
            source=("cut", ["stored"]), prefix_macs=("cut", [shallow]), suffix_macs=("cut", [deep])
        )
        result = result.assign(diagonal_differences=("cut", [0]))
        result["accuracy"][:] = np.nan
        (section,) = pair_maps(result)
        assert section.panels[0].detail == f"{words} of the multiply-adds in the deep half"
        figure = section.panels[0].figures["0|accuracy"]
        assert isinstance(figure, Map)
        assert figure.range == (0.0, 1.0)
        assert section.grid is not None
        assert section.grid.rows[0][-1] == "0 of 8"  # four probes at two checkpoints
