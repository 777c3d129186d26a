"""Padding takes no part in any analysis: nothing that stands there changes a number, and float64 loops agree."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from featdyn.analysis.driver import analyze
from featdyn.analysis.inputs.recorded_layers import recorded_layers
from featdyn.capture import Axis, Probes, Recorder
from featdyn.errors import FeatdynError, NetworkError
from featdyn.networks import ways
from featdyn.store import Run
from featdyn.store.checkpoint import CheckpointFiles
from tests.engine.token_networks import LAYERS, LENGTH, VOCABULARY, Attending, N, exact, inputs, record

COORDS = {"split": np.array(["train"] * 20 + ["test"] * 20, dtype=object)}
ASKED = {
    "drift": {},
    "density": {"permutations": 20},
    "spectra": {},
    "layer_isotropy": {"of": "gradient"},
    "richness": {},
    "collapse": {},
    "representation": {},
    "similarity": {},
    "pattern_shift": {},
}


def classified(path, *, other: bool = False) -> Run:
    """Record a classifier of padded texts."""
    given, _ = inputs(40, other=other)
    labels = inputs(40)[1][:, 0] % 3
    return record(path, Attending(3, by_token=False), Probes(given, labels, COORDS))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return classified(tmp_path_factory.mktemp("tokens") / "r.zarr")


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Run:
    return classified(tmp_path_factory.mktemp("tokens") / "r.zarr", other=True)


@pytest.fixture(scope="module")
def loud(tmp_path_factory) -> Run:
    """Return a run as another writer may have made it, with values where padding is."""
    plain, heard = CheckpointFiles.write, []

    def write(self, path, values, *rest):
        if path.startswith("layers/"):
            heard.append(np.isnan(values).sum())
            values = np.nan_to_num(values, nan=1e3)
        return plain(self, path, values, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointFiles, "write", write)
        found = classified(tmp_path_factory.mktemp("tokens") / "r.zarr")
    assert sum(heard)
    assert not np.isnan(found.values("layers/up/activation")).any()
    return found


@pytest.mark.parametrize("what", ["loud", pytest.param("changed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ASKED)
def test_what_stands_at_padding_changes_no_number_of_the_cube_or_an_analysis(run, request, name, what):
    other = request.getfixturevalue(what)
    for path in (spec.path for spec in run.schema.arrays if spec.path.startswith("cube/")):
        np.testing.assert_array_equal(run.values(path), other.values(path), err_msg=path)
    one, two = (analyze(Run(r.path), name, **ASKED[name]) for r in (run, other))
    assert set(one) == set(two)
    numbers = 0
    for variable in one.data_vars:
        xr.testing.assert_identical(one[variable].drop_attrs(), two[variable].drop_attrs())
        kind = one[variable].dtype.kind
        numbers += int(np.isfinite(one[variable].values).sum()) if kind == "f" else 0
    assert numbers > 20  # it is not for want of numbers


def features(run: Run, t: int, layer: str) -> list[np.ndarray]:
    """Return each probe's features at its real positions, float64, by a plain hook."""
    given = inputs(40)[0]
    z, _ = exact(run, Attending(3, by_token=False), t, given, layer)
    return [z[i, given["attention_mask"][i].bool()].detach().numpy() for i in range(40)]


def test_drift_is_that_of_a_loop_over_real_positions(run):
    found = analyze(Run(run.path), "drift")
    assert found.attrs["positions"].startswith("of each probe those that are no padding")
    test = range(20, 40)
    for layer in LAYERS:
        z = [features(run, t, layer) for t in range(3)]
        at = found.sel(cut=layer, set="test")
        for t1, t2 in ((0, 1), (2, 0)):
            motion = [np.linalg.norm(z[t2][i] - z[t1][i]) / np.linalg.norm(z[t1][i]) for i in test]
            cosine = [(z[t1][i] * z[t2][i]).sum() / np.linalg.norm(z[t1][i]) / np.linalg.norm(z[t2][i]) for i in test]
            np.testing.assert_allclose(at["motion"].sel(t1=t1, t2=t2), np.mean(motion), rtol=1e-4)
            np.testing.assert_allclose(at["cosine"].sel(t1=t1, t2=t2), np.mean(cosine), rtol=1e-5)
            means = [np.stack([z[t][i].mean(0) for i in test]) for t in (t1, t2)]
            a, b = (m - m.mean(0) for m in means)
            cka = np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
            np.testing.assert_allclose(found["cka"].sel(cut=layer, cut2=layer, t1=t1, t2=t2), cka, rtol=1e-4)


def test_what_compares_probes_has_the_mean_over_their_real_positions(run):
    parts = recorded_layers(Run(run.path), ["all"], "it is not asked")
    kept = np.array([31, 2, 17])
    for cut, found in zip(parts.cuts, parts.features.whole(1, kept), strict=True):
        expected = [features(run, 1, cut.name)[i].mean(0) for i in kept]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_spectra_take_each_real_position_for_an_observation(run):
    found = analyze(Run(run.path), "spectra")
    for layer in LAYERS:
        rows = np.concatenate(features(run, 2, layer)[20:])
        values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
        at = found.sel(layer=layer, set="test")
        assert int(at["observations"]) == len(rows)
        np.testing.assert_allclose(
            at["eigenvalue"].sel(t=2).values[: len(values)], values, rtol=1e-3, atol=1e-5 * values[0]
        )


def test_isotropy_tests_the_mean_gradient_of_each_probe(run):
    from featdyn.analysis.features.layer_isotropy import compute

    spec = run.schema["layers/up/gradient"]
    drawn = compute._draws(run, spec, 1, np.arange(40))
    real = inputs(40)[0]["attention_mask"].bool().numpy()
    stored = run.values(spec.path)[1]
    expected = [stored[i, real[i]].astype(np.float64).mean(0) for i in range(40)]
    np.testing.assert_allclose(drawn * spec.attrs.get("scale_factor", 1.0), expected, rtol=1e-5, atol=1e-9)


class Causal(nn.Module):
    """One input and padding on the right, which no real position sees: it comes apart, and its padding is computed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.up, self.head = nn.Embedding(VOCABULARY, 4), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, ids):
        z = torch.relu(self.up(self.embed(ids).cumsum(1)))
        return self.head(z)[:, 0]


def test_features_computed_again_are_masked_too_and_composites_are_given_all_positions(tmp_path):
    (given, targets), mask = inputs(40), inputs(40)[0]["attention_mask"]
    found = []
    for ids in (given["ids"], inputs(40, other=True)[0]["ids"]):
        probes = Probes(ids, targets[:, 0] % 3, COORDS, mask=mask)
        path = tmp_path / f"{len(found)}.zarr"
        run = record(path, Causal(), probes, layers=["up"])
        result = analyze(run, "drift", model=Causal(), cuts=["up"], features="recomputed")
        assert str(result["source"].values[0]) == "recomputed"
        found.append(result)
        same = analyze(run, "drift", model=Causal(), cuts=["up"], features="stored")
        np.testing.assert_allclose(result["motion"], same["motion"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(result["cka"], same["cka"], rtol=1e-4, atol=1e-6)
        both = analyze(run, "consistency", model=Causal(), cuts=["up"])
        assert str(both["source"].values[0]) == "recomputed"  # though float32 is stored
        with pytest.raises(FeatdynError, match="controls perturbs features as a whole, padding too"):
            analyze(run, "controls", model=Causal(), cuts=["up"])
    for name in ("motion", "cosine", "cka", "linear_accuracy", "path_length"):
        xr.testing.assert_equal(found[0][name], found[1][name])


def test_layers_with_tokens_first_are_asked_as_those_with_samples_first(run, tmp_path):
    given, labels = inputs(40)[0], inputs(40)[1][:, 0] % 3
    probes = Probes(given, labels, COORDS)
    network = Attending(3, by_token=False, first=True)
    turned = record(tmp_path / "r.zarr", network, probes, layers={"embed": None, "mix": Axis(sample=1), "up": None})
    one, two = analyze(Run(run.path), "drift"), analyze(turned, "drift", model=network, cuts=["mix", "up", "embed"])
    for name in ("motion", "cosine", "cka", "path_length"):
        np.testing.assert_allclose(one[name].sel(cut=two["cut"].values), two[name], rtol=1e-4, atol=1e-5, err_msg=name)
    with pytest.raises(NetworkError, match=r"no cut 'mix': it gives its samples on axis 1, and .*; there are truediv"):
        analyze(turned, "consistency", model=network, cuts=["mix"])


def test_noise_moves_features_at_real_positions_only():
    from featdyn.analysis.gradient_noise.linear_response import Features as Response

    ids, real = inputs()[0]["ids"], inputs()[0]["attention_mask"].bool()
    net = Causal().eval()
    cut = next(cut for found in ways(net, ids, every=True) for cut in found if cut.name == "up")
    state, step = net.state_dict(), torch.ones(sum(p.numel() for p in net.up.parameters()))
    found = Response(net, [cut], ids, {"up": real})
    whole = Response(net, [cut], ids)
    for one, other in (
        (found.at(state)[0], whole.at(state)[0]),
        *zip(*(r.response(state, [step], ["up.weight", "up.bias"]) for r in (found, whole)), strict=True),
    ):
        one, other = (z.reshape(N, -1, LENGTH, 6) for z in (one, other))
        there = real[:, None, :, None].expand_as(one)
        assert bool((one[~there] == 0).all())
        assert torch.equal(one[there], other[there])
        assert bool((other[~there] != 0).any())


def test_language_models_are_asked_what_they_can_be(tmp_path):
    given, targets = inputs(N)
    run = record(tmp_path / "r.zarr", Attending(), Probes(given, targets))
    assert np.isfinite(analyze(run, "drift")["motion"]).all()
    found = analyze(run, "consistency", model=Attending(), cuts=["all"])
    assert (found["apart"] == 0).all()
    assert np.isfinite(found["accuracy"]).all()
    assert run.schema["layers/up/activation"].shape[1] == LENGTH


def test_composites_of_outputs_by_position_are_those_of_a_loop_over_real_positions(tmp_path):
    torch.manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (12, 5))
    targets, mask = torch.randint(0, VOCABULARY, (12, 5)), torch.arange(5) < 1 + torch.arange(12)[:, None] % 5
    targets[3, 0] = -100
    split = np.array(["train"] * 5 + ["test"] * 7, dtype=object)
    model = nn.Sequential(nn.Embedding(VOCABULARY, 4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, VOCABULARY))
    with Recorder(model, Probes(ids, targets, {"split": split}, mask), tmp_path / "r.zarr", layers=["1"]) as recorder:
        for step in range(3):
            recorder.record(step=step)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += torch.randn(parameter.shape)
    run = Run(tmp_path / "r.zarr")
    found = analyze(run, "consistency", model=model, cuts=["1"])
    counts = mask & (targets != -100)
    for name in ("train", "test"):
        mine = counts & torch.from_numpy(split == name)[:, None]
        for t1 in range(3):
            for t2 in range(3):
                halves = [deepcopy(model).double() for _ in range(2)]
                for half, t in zip(halves, (t1, t2), strict=True):
                    half.load_state_dict(run.state(t))
                logits = halves[1][2:](halves[0][:2](ids))
                at = found.sel(cut="1", set=name, t1=t1, t2=t2)
                right = (logits.argmax(-1) == targets)[mine].double().mean()
                np.testing.assert_allclose(at["accuracy"], right, atol=1e-12)
                loss = torch.nn.functional.cross_entropy(logits[mine], targets[mine]).detach()
                np.testing.assert_allclose(at["loss"], loss, rtol=1e-5)
                own = logits.log_softmax(-1)
                other = halves[1](ids).log_softmax(-1)
                apart = (other.exp() * (other - own)).sum(-1)[mine].mean().detach()
                np.testing.assert_allclose(at["divergence"], apart, rtol=1e-4, atol=1e-7)
    assert (found["apart"] == 0).all()
    assert found["probe"].values[6] == f"{run.values('sample')[1]}@1"
    assert found["set_size"].values.tolist() == [int((counts & m).sum()) for m in torch.from_numpy(
        np.stack([split == "train", split == "test"])
    )[:, :, None]]  # fmt: skip
    with pytest.raises(FeatdynError, match="rewind needs labels"):
        analyze(run, "rewind", model=model)


def test_a_network_of_a_vocabulary_is_asked_where_only_its_largest_logits_are_kept(tmp_path, monkeypatch):
    from featdyn.capture import outputs

    monkeypatch.setattr(outputs, "VOCABULARY", VOCABULARY - 1)
    monkeypatch.setattr(outputs, "TOP", 3)
    given, targets = inputs(N)
    run = record(tmp_path / "r.zarr", Attending(), Probes(given, targets))
    assert "outputs/logits" not in run.nodes
    assert np.isfinite(analyze(run, "drift", model=Attending(), cuts=["all"])["motion"]).any()
    with pytest.raises(FeatdynError, match="of its outputs the largest logits at each position are stored"):
        analyze(run, "consistency", model=Attending())
