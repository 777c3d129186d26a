"""Labels that a loss leaves out, whatever their number, are no class for any analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

from featdyn import Probes, Recorder
from featdyn.analysis import analyses
from featdyn.analysis.inputs.class_labels import grouping_labels
from featdyn.store import Run

N, CLASSES = 48, 3
UNUSED = np.arange(N) % 5 == 3


def recorded(path: Path, unused: int | None, name: str = "label") -> tuple[Run, nn.Module]:
    """Return a run with one checkpoint; a quarter of its labels is ``unused``, or left out where that is None."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    inputs, labels, split = torch.randn(N, 6), torch.arange(N) % CLASSES, np.array(["train", "test"] * 24, object)
    inputs[:, 0] += labels
    kept = ~UNUSED if unused is None else np.ones(N, bool)
    if unused is not None:
        labels[UNUSED] = unused

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none", ignore_index=-100 if unused is None else unused)

    coords = {"split": split[kept]} | ({name: labels.numpy()[kept]} if name != "label" else {})
    with Recorder(
        model, Probes(inputs[kept], labels[kept], coords), path, layers=["0"], dtype="float32", loss=loss
    ) as recorder:
        recorder.record(step=0)
    return Run(path), model


@pytest.mark.parametrize("name", ["drift", "representation", "pattern_shift"])
def test_an_unused_label_is_no_class_whatever_its_number(tmp_path: Path, name: str) -> None:
    found: list[xr.Dataset] = []
    for unused in (-100, 255, None):
        run, model = recorded(tmp_path / f"{unused}.zarr", unused)
        found.append(analyses()[name](run, model=model) if name == "drift" else analyses()[name](run))
    xr.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    left = {"drift": "linear_accuracy", "representation": "margin", "pattern_shift": "shift"}[name]
    assert np.isfinite(found[0][left]).any()
    np.testing.assert_allclose(found[2][left], found[0][left], rtol=1e-5)  # as if such probes were not there


def test_true_labels_follow_the_same_rule(tmp_path: Path) -> None:
    run, _ = recorded(tmp_path / "r.zarr", 255, "true_label")
    assert (grouping_labels(run, "true_label") == np.where(UNUSED, -1, np.arange(N) % CLASSES)).all()


def test_classes_that_an_encoder_has_no_output_for_are_kept(tmp_path: Path) -> None:
    labels = torch.arange(12) % 10
    encoder = nn.Sequential(nn.Linear(6, 2))
    for given, loss in ((labels, lambda outputs, _: outputs.square().sum(1)), (None, None)):
        path = tmp_path / f"{loss is None}.zarr"
        coords = {} if given is not None else {"label": labels.numpy()}
        with Recorder(encoder, Probes(torch.randn(12, 6), given, coords), path, gradients=False, loss=loss) as recorder:
            recorder.record(step=0)
        assert (grouping_labels(Run(path), "label") == labels.numpy()).all()
