"""What outputs say of a sample: one logit or several, labels that are no class, values that are no classes at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from featdyn.errors import FeatdynError
from featdyn.query import query, variables
from featdyn.query.sql import sql
from featdyn.store import ArraySpec, Run, RunWriter, Schema

CHECKPOINTS, SAMPLES, BLOCK = 3, 21, 8
DERIVED = ["outputs.confidence", "outputs.correct", "outputs.prediction"]


def write(
    path: Path,
    width: int,
    label: NDArray[np.generic] | None,
    *,
    target: bool = False,
    squared: bool = False,
    softmax: bool = False,
    attributes: dict[str, Any] | None = None,
    axis: str = "class",
) -> tuple[Run, NDArray[np.float64]]:
    """Write a run of these labels, or targets of a regression; return it and its outputs, a NaN among them."""
    outputs = np.random.default_rng(width).standard_normal((CHECKPOINTS, SAMPLES, width)).astype(np.float32)
    if softmax:
        outputs = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    outputs[1, 3, 0] = np.nan
    loss = np.zeros((CHECKPOINTS, SAMPLES), np.float64)
    if width == 1 and label is not None:
        z, own = np.nan_to_num(outputs[..., 0]), np.asarray(label, np.float64)
        loss = (z - own) ** 2 if squared else np.logaddexp(0, z) - own * z
    specs = [ArraySpec(name, (), (), "int64") for name in ("checkpoint", "step")]
    specs.append(ArraySpec("outputs/logits", ("sample", axis), (SAMPLES, width), "float32"))
    specs.append(ArraySpec("outputs/loss", ("sample",), (SAMPLES,), "float32"))
    coords = {"sample": np.array([f"s{i:02d}" for i in range(SAMPLES)], dtype=object)}
    static = {"": xr.Dataset(coords=coords | ({} if label is None else {"label": ("sample", label)}))}
    if target:
        static["inputs"] = xr.Dataset({"target": (("probe", "value"), np.ones((SAMPLES, width), np.float32))})
    with RunWriter.create(
        path, Schema(tuple(specs), SAMPLES, BLOCK), static=static, attributes=attributes or {}
    ) as writer:
        for t in range(CHECKPOINTS):
            with writer.checkpoint() as checkpoint:
                checkpoint.write("checkpoint", np.array(t))
                checkpoint.write("step", np.array(10 * t))
                for block in range(-(-SAMPLES // BLOCK)):
                    rows = slice(block * BLOCK, (block + 1) * BLOCK)
                    checkpoint.write("outputs/logits", outputs[t, rows], block)
                    checkpoint.write("outputs/loss", loss[t, rows].astype(np.float32), block)
    return Run(path), outputs.astype(np.float64)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_one_logit_and_several_say_their_class(tmp_path: Path, width: int) -> None:
    label = np.arange(SAMPLES) % max(2, width)
    run, logits = write(tmp_path / "run.zarr", width, label)
    pairs = np.concatenate([np.zeros_like(logits), logits], -1) if width == 1 else logits
    softmax = np.exp(pairs) / np.exp(pairs).sum(-1, keepdims=True)
    predicted = np.where(np.isnan(logits).any(-1), -1, np.argmax(np.nan_to_num(softmax), -1))
    sure = softmax.max(-1)
    found = query(run, *DERIVED)
    np.testing.assert_array_equal(found["prediction"], predicted.reshape(-1))
    np.testing.assert_array_equal(found["correct"], (predicted == label).reshape(-1))
    np.testing.assert_allclose(found["confidence"], sure.reshape(-1), rtol=1e-6)
    assert len(set(found["prediction"])) == max(2, width) + 1
    if width == 1:
        np.testing.assert_array_equal(found["prediction"] == 1, logits.reshape(-1) > 0)
    pytest.importorskip("duckdb")
    told = sql(run, "select prediction, confidence, correct from outputs order by checkpoint, sample")
    np.testing.assert_array_equal(told["prediction"], found["prediction"])
    np.testing.assert_array_equal(told["correct"], found["correct"])
    np.testing.assert_allclose(told["confidence"].astype(float), found["confidence"])


@pytest.mark.parametrize("width", [2, 3])
def test_outputs_that_are_probabilities_are_the_confidence(tmp_path: Path, width: int) -> None:
    run, outputs = write(tmp_path / "run.zarr", width, np.arange(SAMPLES) % width, softmax=True)
    found = query(run, "outputs.confidence")["confidence"]
    np.testing.assert_allclose(found, outputs.max(-1).reshape(-1), rtol=1e-6)


@pytest.mark.parametrize("width", [2, 3])
def test_labels_that_are_no_class_are_neither_right_nor_wrong(tmp_path: Path, width: int) -> None:
    label = np.arange(SAMPLES) % width
    label[[2, 5, 9, 20]] = -100, width, 7, -1
    run, logits = write(tmp_path / "run.zarr", width, label)
    known = (label >= 0) & (label < width)
    right = np.where(np.isnan(logits).any(-1), -1, np.nan_to_num(logits).argmax(-1)) == label
    expected = np.where(known, right, np.nan)
    found = query(run, "outputs.correct")["correct"]
    np.testing.assert_array_equal(found, expected.reshape(-1))
    share = query(run, "outputs.correct", by="checkpoint")["correct"]
    np.testing.assert_allclose(share, right[:, known].mean(1))
    for word, kept in (("true", right & known), ("false", ~right & known), ("no", ~right & known)):
        rows = query(run, "outputs.correct", where=f"outputs.correct={word}")
        places = [(t, f"s{i:02d}") for t, i in zip(*np.nonzero(kept), strict=True)]
        assert list(zip(rows["checkpoint"], rows["sample"], strict=True)) == places
    assert len(query(run, "outputs.correct", where="outputs.correct!=true")) == (~(right & known)).sum()
    assert len(query(run, "outputs.correct", where="outputs.correct=true,false")) == CHECKPOINTS * known.sum()
    pytest.importorskip("duckdb")
    told = sql(run, "select correct, label from outputs order by checkpoint, sample")
    assert told["correct"].isna().tolist() == np.isnan(expected.reshape(-1)).tolist()
    (row,) = sql(run, "select avg(correct::int) as share, count(*) filter (not correct) as wrong from outputs").to_dict(
        "records"
    )
    assert row["share"] == pytest.approx(right[:, known].mean())
    assert row["wrong"] == (~right & known).sum()


@pytest.mark.parametrize(
    ("width", "label", "more"),
    [
        (1, None, {"target": True}),
        (3, None, {"target": True}),
        (1, None, {}),
        (1, np.linspace(-1, 1, SAMPLES), {"squared": True}),
        (3, np.linspace(-1, 1, SAMPLES), {}),
        (1, np.arange(SAMPLES), {"squared": True}),
        (1, np.arange(SAMPLES) % 3, {}),
        (3, np.arange(SAMPLES) % 3, {"axis": "value"}),
        (1, np.arange(SAMPLES) % 2, {"squared": True}),
    ],
    ids=[
        "values",
        "vectors",
        "one output alone",
        "labels of floats",
        "of several",
        "counts",
        "three counts",
        "another axis",
        "0 and 1 as values",
    ],
)
def test_a_regression_has_no_classes(
    tmp_path: Path, width: int, label: NDArray[np.generic] | None, more: dict[str, Any]
) -> None:
    run, _ = write(tmp_path / "run.zarr", width, label, **more)
    assert variables(run, "outputs.*")["variable"].tolist() == ["outputs.logits", "outputs.loss"]
    for name in DERIVED:
        with pytest.raises(FeatdynError, match=f"no variable '{name}'"):
            query(run, name)


@pytest.mark.parametrize("width", [2, 3])
def test_a_classifier_without_labels_predicts_and_is_neither_right_nor_wrong(tmp_path: Path, width: int) -> None:
    run, logits = write(tmp_path / "run.zarr", width, None)
    found = query(run, "outputs.prediction", where="checkpoint=0")["prediction"]
    np.testing.assert_array_equal(found, logits[0].argmax(-1))
    with pytest.raises(FeatdynError, match=r"no variable 'outputs\.correct'"):
        query(run, "outputs.correct")


@pytest.mark.parametrize("classes", [[], ["ant", 3], "ant", None])
def test_what_are_no_names_of_classes_name_none(tmp_path: Path, classes: object) -> None:
    run, _ = write(tmp_path / "run.zarr", 2, np.arange(SAMPLES) % 2, attributes={"dataset": {"classes": classes}})
    assert "class_name" not in variables(run)["variable"].tolist()
    assert "class_name" not in query(run, "label")


@pytest.mark.parametrize("classes", [["only"], ["ant", "bee", "cat"]])
def test_a_label_without_a_name_has_none(tmp_path: Path, classes: list[str]) -> None:
    label = np.arange(SAMPLES) % 5 - 1
    attributes = {"dataset": {"classes": classes}}
    run, _ = write(tmp_path / "run.zarr", 2, label, attributes=attributes)
    names = [classes[i] if 0 <= i < len(classes) else "" for i in label]
    assert query(run, "class_name")["class_name"].tolist() == names
    assert query(run, "outputs.loss", where="checkpoint=0")["class_name"].tolist() == names
    bare, _ = write(tmp_path / "bare.zarr", 2, None, attributes=attributes)
    assert "class_name" not in variables(bare)["variable"].tolist()


@pytest.mark.parametrize(("classes", "tells"), [(["0", "1"], False), (["0", "one"], True), (["1", "0"], True)])
def test_names_that_are_the_numbers_of_classes_stand_beside_no_row(
    tmp_path: Path, classes: list[str], tells: bool
) -> None:
    attributes = {"dataset": {"classes": classes}}
    run, _ = write(tmp_path / "run.zarr", 2, np.arange(SAMPLES) % 2, attributes=attributes)
    assert ("class_name" in query(run, "outputs.loss")) is tells
    for asked in ({"where": f"class_name={classes[0]}"}, {"sort": "class_name"}):  # who asks for them has them
        assert "class_name" in query(run, "outputs.loss", **asked)


def test_labels_of_a_regression_have_a_mean(tmp_path: Path) -> None:
    label = np.linspace(-1, 1, SAMPLES) ** 3 + 1
    run, _ = write(tmp_path / "run.zarr", 1, label, squared=True)
    assert query(run, "label", reduce="mean")["label"].tolist() == [pytest.approx(label.mean())]


@pytest.mark.parametrize("condition", [None, "outputs.confidence>0.4"])
def test_what_is_as_frequent_as_the_mode_is_marked(tmp_path: Path, condition: str | None) -> None:
    label = np.arange(SAMPLES) % 3
    run, logits = write(tmp_path / "run.zarr", 3, label)
    found = query(run, "outputs.prediction", by="checkpoint,label", where=[condition] if condition else [])
    assert len(found) == 3 * CHECKPOINTS
    sure = np.exp(logits).max(-1) / np.exp(logits).sum(-1)
    predicted = np.where(np.isnan(sure), -1, np.nan_to_num(logits).argmax(-1))
    for row in found.to_dict("records"):
        t, mine = row["checkpoint"], label == row["label"]
        if condition:
            mine &= sure[t] > 0.4
        values, counts = np.unique(predicted[t, mine], return_counts=True)
        assert row["prediction"] == values[counts.argmax()]
        assert row["prediction_tied"] == ((counts == counts.max()).sum() > 1)
    assert 0 < found["prediction_tied"].sum() < len(found)
    assert "prediction_tied" not in query(run, "outputs.prediction", reduce="mode:sample", where=["sample=0"])
