"""Probes that are copies of few images, in worlds where the truth is known: nothing is learned from a copy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.features.drift.linear_probe import fit
from featdyn.analysis.features.representation.margin import Reader
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.store import Run

drift, representation, similarity, richness = (
    analyses()[name] for name in ("drift", "representation", "similarity", "richness")
)
Values = NDArray[np.float64]


def recorded(
    path: Path, features: Sequence[Values], labels: Any, split: Any, origin: Any, classes: int = 2
) -> tuple[Run, nn.Module]:
    """Record features ``(n, p)`` of each checkpoint, of a network whose first layer holds them."""
    n, p = features[0].shape
    first, last = nn.Linear(n, p, bias=False), nn.Linear(p, classes, bias=False)
    model = nn.Sequential(first, last)
    coords = {"split": np.array(split, dtype=object), "origin": origin}
    probes = Probes(torch.eye(n), torch.as_tensor(np.array(labels)), coords)
    torch.manual_seed(0)
    with Recorder(model, probes, path, layers=["0"], dtype="float32") as recorder, torch.no_grad():
        for t, x in enumerate(features):
            first.weight.copy_(torch.as_tensor(x.T))
            nn.init.normal_(last.weight)
            recorder.record(step=t)
    return Run(path), model


def test_no_linear_probe_tells_copies_of_the_images_that_it_was_fitted_to(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, steps = 60, 8
    plain = [rng.normal(size=(images, 100)) for _ in range(steps)]
    labels = np.tile(rng.permutation(np.arange(images) % 2), 2)
    run, model = recorded(
        tmp_path / "run.zarr",
        [np.concatenate([x, x + 0.1 * rng.normal(size=x.shape)]) for x in plain],
        labels,
        ["train"] * images + ["corrupted"] * images,
        np.tile(np.arange(images), 2),
    )
    accuracy = drift(run, model=model, cuts=("0",))["linear_accuracy"].mean(("cut", "t"))
    assert float(accuracy.sel(set="train")) == pytest.approx(0.5, abs=0.08)  # it was 0
    assert float(accuracy.sel(set="corrupted")) == pytest.approx(0.5, abs=0.08)  # it was 0.9
    found = representation(run)
    assert float(found["margin_positive"].sel(set="corrupted").mean()) == pytest.approx(0.5, abs=0.08)


def test_margins_of_copies_are_those_of_regression_without_their_image() -> None:
    rng = np.random.default_rng(0)
    x, labels, images = rng.normal(size=(30, 4)), rng.integers(0, 3, 30), np.arange(30) // 2
    labels[28:] = 3  # a class of one image is not learned without it
    copies, theirs = x[::3] + 0.1 * rng.normal(size=(10, 4)), images[::3].copy()
    theirs[0] = 99  # an image that nothing was fitted to
    reader = Reader.of(x, labels, images)
    assert isinstance(reader, Reader)
    penalty, wanted, margins = reader.probe.penalty * np.square(reader.features).sum(1).mean(), np.eye(4)[labels], []
    for new, label, image in zip(copies, labels[::3], theirs, strict=True):
        kept = images != image
        z = (x[kept] - x[kept].mean(0)) / reader.unit
        w = np.linalg.solve(z.T @ z + penalty * np.eye(4), z.T @ (wanted[kept] - wanted[kept].mean(0)))
        scores = (new - x[kept].mean(0)) / reader.unit @ w + wanted.mean(0)
        rival = max((j for j in range(4) if j != label), key=lambda j: scores[j])
        margins.append((scores[label] - scores[rival]) / np.linalg.norm(w[:, label] - w[:, rival]) * reader.unit)
    found, _ = reader.margins(copies, labels[::3], theirs)
    assert found["margin"] == pytest.approx(np.mean(margins), rel=1e-9)
    assert found["margin_positive"] == pytest.approx(np.mean(np.array(margins) > 0))
    assert reader.margins(x[28:], labels[28:], images[28:])[0] == {}
    assert fit(x @ x.T, labels, images).left_out[28] != 3


def test_features_that_have_nothing_in_common_are_not_alike_for_copies_in_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, steps = np.repeat(np.arange(24), 8), 16
    features = [rng.normal(size=(24, 6))[images] + 0.3 * rng.normal(size=(192, 6)) for _ in range(steps)]
    run, model = recorded(tmp_path / "run.zarr", features, images % 2, ["test"] * 192, images)
    found = drift(run, model=model, cuts=("0",), samples=192).isel(cut=0, cut2=0)
    low, estimate, high = (
        found[f"cka_debiased{end}"].values[~np.eye(steps, dtype=bool)] for end in ("_low", "", "_high")
    )
    assert found.attrs["cka_used"] == 24
    assert abs(estimate.mean()) < 0.02  # it was 0.17
    assert ((low <= 0) & (high >= 0)).mean() > 0.9  # it was 0.16


def test_correlations_of_unrelated_features_are_those_in_another_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, steps = np.repeat(np.arange(24), 8), 12
    features = [rng.normal(size=(24, 6))[images] + 0.3 * rng.normal(size=(192, 6)) for _ in range(steps)]
    run, _ = recorded(tmp_path / "run.zarr", features, images % 2, ["test"] * 192, images)
    found = similarity(run, samples=192).isel(layer=0, layer2=0)
    off = ~np.eye(steps, dtype=bool)
    for name in ("cca", "svcca", "pwcca"):
        mine, null = found[name].values[off], found[f"{name}_shuffled"].values[off]
        assert mine.mean() == pytest.approx(null.mean(), abs=0.03)  # 0.40 stood beside 0.16
    # 12 images tell nothing of 20 variables, however many copies there are of them.
    wide = [rng.normal(size=(12, 20))[images % 12] + 0.05 * rng.normal(size=(192, 20)) for _ in range(2)]
    run, _ = recorded(tmp_path / "wide.zarr", wide, images % 2, ["test"] * 192, images % 12)
    found = similarity(run, samples=192)
    assert np.isnan(found["cca"]).all()
    assert (why := reasons(found, "svcca")) is not None
    assert set(why.values.ravel()) == {"no more probes than variables"}


def test_copies_add_no_dimension_and_take_none(tmp_path: Path) -> None:
    """Isotropic in six dimensions: as many images as there are without copies, and of few nothing that is far off."""
    rng, found = np.random.default_rng(0), {}
    for count in (6, 72):
        images = np.repeat(np.arange(count), 8)
        features = [1 + rng.normal(size=(count, 6))[images] + 0.3 * rng.normal(size=(8 * count, 6)) for _ in range(8)]
        path = tmp_path / f"{count}.zarr"
        run, _ = recorded(path, features, images % 2, ["test"] * (8 * count), images)
        found[count] = representation(run, samples=8 * count)
    assert found[72]["used"].values.tolist() == [72]
    assert float(found[72]["manifold_dimension"].mean()) == pytest.approx(6.1, abs=0.4)  # it was 4.7
    assert float(found[72]["two_nn"].mean()) == pytest.approx(5.6, abs=0.8)
    assert float(found[72]["manifold_capacity"].mean()) == pytest.approx(2 / 2 / 6, abs=0.06)
    assert np.isnan(found[6]["manifold_dimension"]).all()
    assert (why := reasons(found[6], "manifold_dimension")) is not None
    assert set(why.values.ravel()) == {"a class has too few probes"}


def test_isotropic_features_of_copies_have_the_measure_of_that_many_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(30), 10)
    features = [rng.normal(size=(30, 12))[images] + 0.05 * rng.normal(size=(300, 12)) for _ in range(20)]
    run, _ = recorded(tmp_path / "run.zarr", features, images % 3, ["test"] * 300, images, classes=3)
    found = richness(run)
    assert float(found["low_rank_isotropic"].mean()) == pytest.approx(float(found["low_rank"].mean()), abs=0.02)
    # Outputs of three images hold any features, however many copies there are.
    few = rng.normal(size=(3, 12))[images % 3] + 1e-9 * rng.normal(size=(300, 12))
    run, _ = recorded(tmp_path / "few.zarr", [few], images % 2, ["test"] * 300, images % 3, classes=3)
    assert (why := reasons(richness(run), "low_rank")) is not None
    assert set(why.values.ravel()) == {"too few samples"}
