"""Recordings that keep moments in place of features: richness and collapse are those of the features."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.analysis import analyses
from featdyn.analysis.status import reasons
from featdyn.capture import Axis, CaptureOptions, Probes, Recorder, kept_moments
from featdyn.capture.layout import Layout
from featdyn.capture.tap import LayerError
from featdyn.errors import FeatdynError, NetworkError
from featdyn.store import Run, schema, verify
from featdyn.validation import validate
from tests.engine.on_workers import Own

richness, collapse = analyses()["richness"], analyses()["collapse"]
RICHNESS = (
    "low_rank", "low_rank_isotropic", "output_rank", "effective_dimension", "intensity", "utilisation", "quality",
    "cumulative_quality", "parameter_norm",
)  # fmt: skip
KEPT = {"record": "moments", "gradients": False, "dtype": "float32"}


def record(path: Path, model: nn.Module, probes: Probes, times: range, **options: Any) -> Run:
    """Record a network that changes at random, by the number of its checkpoint."""
    given = {"layers": ["*"], "batch": 5, "gradients": False, "dtype": "float32", **options}
    with Recorder(model, probes, path, resume=times.start > 0, **given) as recorder, torch.no_grad():
        for t in times:
            random = torch.Generator().manual_seed(t)
            for tensor in model.parameters():
                tensor += 0.2 * torch.rand(tensor.shape, generator=random)
            recorder.record(step=t)
    return Run(path)


def probes_of(n: int = 45) -> Probes:
    labels = torch.arange(n) % 3
    inputs = torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(1)) + labels[:, None, None, None]
    return Probes(inputs, labels, {"split": np.array(["train", "test", "test"], dtype=object)[np.arange(n) // 3 % 3]})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SHARD_SAMPLES", 16)
        features, moments = (
            record(folder / name, Own(), probes_of(), range(2), **more) for name, more in (("f", {}), ("m", KEPT))
        )
    assert moments.schema.blocks == 3
    return features, moments


def words(found: xr.Dataset, name: str) -> set[str]:
    said = reasons(found, name)
    assert said is not None
    return set(said.values.ravel())


def test_measures_are_those_of_the_features(both: tuple[Run, Run]) -> None:
    wanted, found = (richness(run, leading=4) for run in both)
    for name in RICHNESS:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=2e-5, err_msg=name)
    assert words(found, "kernel_deviation") == words(found, "low_rank_low") == {"features were not kept"}
    wanted, found = (collapse(run) for run in both)
    for name in ("nc1", "nc2", "nc2_norms", "nc2_angles", "nc3"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for name in ("nc4", "nc1_low", "nc2_shuffled"):
        assert words(found, name) == {"features were not kept"}
    vector = {"layer": "pool", "set": "test", "t": 1}
    low_rank = [float(richness(run, layers=("pool",))["low_rank"].sel(vector)) for run in both]
    assert low_rank[0] == pytest.approx(low_rank[1], abs=1e-12)  # what is a vector already is not even rounded


def test_a_store_of_moments_is_whole_small_and_goes_on(both: tuple[Run, Run], tmp_path: Path) -> None:
    _, moments = both
    assert verify(moments.path).sound
    assert not any(path.startswith("layers/") for path in moments.nodes if path.endswith("/activation"))
    assert set(moments.state(1, "moments.one")) == {
        f"{name}/{kept}" for name in ("train", "test") for kept in ("mean", "scatter", "cross_scatter")
    }
    assert moments.layers == both[0].layers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "SHARD_SAMPLES", 16)
        model = Own()
        record(tmp_path / "r", model, probes_of(), range(1), **KEPT)
        again = record(tmp_path / "r", model, probes_of(), range(1, 2), **KEPT)
    for layer in moments.layers:
        for name, tensor in moments.state(1, f"moments.{layer}").items():
            assert torch.equal(tensor, again.state(1, f"moments.{layer}")[name]), (layer, name)


@pytest.mark.parametrize("targets", [False, True])
def test_classes_are_those_of_the_coordinate(tmp_path: Path, targets: bool) -> None:
    """It is what analyses read, also where a network is given no targets, or others."""
    given = probes_of()
    label = given.labels.numpy() if targets is False else np.random.default_rng(0).permutation(given.labels.numpy())
    probes = Probes(given.inputs, given.labels if targets else None, {"label": label})
    own = Own()
    wanted, found = (
        collapse(record(tmp_path / name, copy.deepcopy(own), probes, range(1), layers=["one"], **more))["nc1"]
        for name, more in (("f", {}), ("m", KEPT))
    )
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_checkpoint_that_fails_leaves_no_moments(tmp_path: Path) -> None:
    model, calls = Own(), list[int]()
    with Recorder(model, probes_of(), tmp_path / "m", layers=["one"], batch=5, **KEPT) as recorder:
        recorder.record(step=0)
        hook = model.register_forward_pre_hook(lambda *_: calls.append(1) or (1 / 0 if len(calls) == 5 else None))
        with pytest.raises(NetworkError, match="division by zero"):
            recorder.record(step=1)
        hook.remove()
        recorder.record(step=1)
    run = Run(tmp_path / "m")
    for name, tensor in run.state(0, "moments.one").items():
        assert torch.equal(tensor, run.state(1, "moments.one")[name]), name


def test_what_needs_features_says_so(both: tuple[Run, Run]) -> None:
    with pytest.raises(FeatdynError, match="representation needs activations: in place of them their moments"):
        analyses()["representation"](both[1])
    for name in ("spectra", "density", "drift"):
        with pytest.raises(FeatdynError, match="no activations were recorded, in place of them their moments"):
            analyses()[name](both[1])
    with pytest.raises(FeatdynError, match=r"no gradients were recorded$"):
        analyses()["layer_isotropy"](both[0])
    with pytest.raises(FeatdynError, match="no layer nothing was recorded"):
        richness(both[1], layers=("nothing",))


def test_probes_without_a_label_have_no_class(tmp_path: Path) -> None:
    given = probes_of()
    labels = given.labels.clone()
    labels[0] = -100
    probes = Probes(given.inputs, labels, {"split": given.coords["split"]})

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, labels, reduction="none")

    run = record(tmp_path / "r", Own(), probes, range(1), loss=loss, **KEPT)
    assert words(collapse(run).sel(set="train"), "nc1") == {"some probes have no target"}
    assert words(collapse(run).sel(set="test"), "nc1") == {""}


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    for more in ({"gradients": True}, {"dtype": "float16"}, {"pool": "last"}):
        with pytest.raises(FeatdynError, match="record = moments keeps no gradients"):
            validate(CaptureOptions, {**KEPT, **more}, "capture")
    model = nn.Sequential(nn.Conv3d(1, 2, 1), nn.Flatten(), nn.Linear(2 * 8, 2))
    with pytest.raises(NetworkError, match="moments are kept of vectors and maps"):
        record(tmp_path / "r", model, Probes(torch.randn(6, 1, 2, 2, 2), torch.arange(6) % 2), range(1), **KEPT)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("outputs", [1, 3])
def test_so_many_bytes_are_kept_of_a_checkpoint_as_are_said(outputs):
    split = np.array(["train"] * 4 + ["test"] * 3, dtype=object)
    probes = Probes(torch.zeros(7, 2), torch.arange(7) % 2, {"split": split})
    moments = kept_moments.KeptMoments(probes, {"a": (5,), "b": (2,)})
    moments.add({"a": torch.randn(7, 5), "b": torch.randn(7, 2)}, torch.randn(7, outputs), slice(0, 7))
    held = [tensor for tensors in moments.take().values() for tensor in tensors.values()]
    assert moments.nbytes(outputs) == sum(tensor.nbytes for tensor in held)


@pytest.mark.parametrize(
    ("shape", "outputs", "said"),
    [
        ((1,), (3,), ""),
        ((4096,), (1,), ""),
        ((4097,), (1,), "moments are kept of at most 4,096 features"),
        ((5, 3), (1,), "moments are kept of vectors and maps"),
        ((5,), (2, 3), r"is of one vector of outputs for each sample, these are \(2, 3\)"),
        ((5,), (), r"these are \(\)"),
    ],
)
def test_moments_are_kept_of_vectors_up_to_a_width(shape, outputs, said):
    layouts = {"a": Layout(Axis(), shape, False)}
    if said:
        with pytest.raises((LayerError, ValueError), match=said):
            kept_moments.check(layouts, outputs)
    else:
        kept_moments.check(layouts, outputs)
