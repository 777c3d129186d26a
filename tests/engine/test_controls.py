"""Norm-matched controls, BatchNorm policies and rewound layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from featdyn.analysis import analyses
from featdyn.analysis.composites.controls import KINDS, STRICT
from featdyn.analysis.composites.controls.perturbations import perturbed
from featdyn.analysis.inputs import stitchable as cutting
from featdyn.analysis.inputs.feature_source import Rates
from featdyn.analysis.inputs.weights import States, network
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.networks import cuts, resolve, segments, state_for
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.stage import train
from tests.engine.conftest import SMALL
from tests.engine.on_workers import own_run, plans, same_on
from tests.engine.test_plans import record_convolutions
from tests.strategies import sizes

consistency, controls, batchnorm, rewind = (
    analyses()[name] for name in ("consistency", "controls", "batchnorm", "rewind")
)


CUTS = ("s2b3", "pooled")  # with BatchNorm after the cut, and without


@pytest.fixture(scope="module")
def run(small_store):
    return Run(small_store)


@pytest.fixture(scope="module")
def pairs(run):
    return consistency(run, features="recomputed", cuts=CUTS)


@pytest.fixture(scope="module")
def bn_free(tmp_path_factory):
    return train(load("digits", [*SMALL, "network.name=mlp"]), tmp_path_factory.mktemp("mlp") / "r.zarr")


@settings(deadline=None, max_examples=40)
@given(
    n=sizes(2, 9), shape=st.sampled_from([(1,), (5,), (3, 2, 2)]), seed=st.integers(0, 99),
    scale=st.sampled_from([1e-3, 1.0, 50.0]), copies=st.integers(1, 3),
)  # fmt: skip
def test_perturbations_have_the_norm_of_the_drift(n, shape, seed, scale, copies):
    random = torch.Generator().manual_seed(seed)
    new = torch.randn(n, *shape, generator=random)
    old = new + scale * torch.randn(n, *shape, generator=random)
    labels = np.random.default_rng(seed).integers(0, 3, n)
    origins = np.random.default_rng(seed).permutation(n) // copies
    size = (old - new).flatten(1).double().norm(dim=1)
    for kind, (moved, there) in zip(KINDS, perturbed(old, new, labels, origins, seed), strict=True):
        e = (moved - new).flatten(1).double()
        measured = e.norm(dim=1)
        alone = torch.tensor([
            kind not in ("drift", "isotropic") and not any(
                {"same_class": one == label, "other_class": one != label}.get(kind, True) and image != other
                for one, other in zip(labels, origins, strict=True)
            )
            for label, image in zip(labels, origins, strict=True)
        ])  # fmt: skip
        assert (there == ~alone.numpy()).all()
        # Adding e to features of size 1 rounds it by 6e-8 times their size.
        torch.testing.assert_close(measured[~alone], size[~alone], rtol=1e-4, atol=1e-6 * len(e[0]))
        assert (measured[alone] == 0).all()
        if kind.endswith("class"):
            drift = (old - new).flatten(1).double()
            for i in torch.nonzero(~alone)[:, 0].tolist():
                other = np.flatnonzero(origins != origins[i])
                mine = [j for j in other if (labels[j] == labels[i]) == (kind == "same_class")]
                cosines = [torch.cosine_similarity(e[i], drift[j], dim=0) for j in mine]
                assert max(cosines) == pytest.approx(1, abs=1e-3)


def test_the_gaussian_has_the_covariance_of_the_drift():
    random = torch.Generator().manual_seed(0)
    axis = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.1]])
    drift = torch.randn(2000, 3, generator=random) @ axis
    drift = drift / drift.norm(dim=1, keepdim=True)  # so that matching norms changes no direction's share
    every = perturbed(drift, torch.zeros(2000, 3), np.zeros(2000, int), np.arange(2000), 1)
    moved = list(every)[KINDS.index("gaussian")][0]
    share = (moved**2).sum(0) / (moved**2).sum()
    # Unit-length draws of a Gaussian of that covariance, by plain simulation.
    plain = torch.randn(200_000, 3, generator=random) @ torch.linalg.cholesky(torch.cov(drift.T)).T
    plain = plain / plain.norm(dim=1, keepdim=True)
    torch.testing.assert_close(share, (plain**2).mean(0), atol=0.02, rtol=0)


def test_controls_are_of_other_images(tmp_path):
    """Half of the images drift along the decision and stay right, the others beside it, with half the margin.

    Given the drift of the first kind, the second are wrong. Of four images a class one of the other three is drawn: a
    third of all lose, where no copy is drawn.
    """
    images = np.repeat(np.arange(8), 32)
    sign, along, n = np.where(images % 2, 1.0, -1.0), images // 2 % 2 == 0, len(images)
    z = np.stack([sign * np.where(along, 3, 1), np.zeros(n)], 1)
    drift = np.stack([np.where(along, -2 * sign, 0), np.where(along, 0, 2)], 1)
    net = torch.nn.Sequential(torch.nn.Linear(n, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    probes = Probes(torch.eye(n), torch.from_numpy(images % 2), {"origin": images})
    with Recorder(net, probes, tmp_path / "r.zarr", layers=["0"], gradients=False, dtype="float32") as recorder:
        for t, features in enumerate((z + drift, z)):
            with torch.no_grad():
                net[0].weight.copy_(torch.from_numpy(features.T))
                net[1].weight.copy_(torch.tensor([[-0.5, 0], [0.5, 0]]))
            recorder.record(step=t)
    one = {"cuts": ("0",), "t2": 1, "model": net}
    found = [controls(Run(tmp_path / "r.zarr"), seed=seed, **one)["advantage"] for seed in range(3)]
    mean = np.mean([float(cells.sel(kind="same_class").isel(t1=0).squeeze()) for cells in found])
    assert mean == pytest.approx(1 / 3, abs=0.05)  # of 384 draws, four standard errors


def test_controls(run, pairs):
    found = controls(run, t2="all", cuts=CUTS)
    np.testing.assert_array_equal(found["accuracy"].sel(kind="drift"), pairs["accuracy"])
    np.testing.assert_array_equal(found["agreement"].sel(kind="drift"), pairs["agreement"])
    alone = (found["kind"] == "same_class") & (found["set"] == "corrupted")  # of each class there is one image
    assert (found["norm_error"].isnull() == (alone & (found["motion"] > 0))).all()
    assert (found["norm_error"].fillna(0) < 1e-3).all()
    diagonal = np.einsum("kcstt->kcst", found["agreement"].values)
    assert (diagonal == 1).all()  # no drift, no perturbation
    assert (np.einsum("cstt->cst", found["motion"].values) == 0).all()
    wanted = (found["accuracy"].sel(kind="drift") - found["accuracy"]).transpose(*found["advantage"].dims)
    np.testing.assert_allclose(found["advantage"], wanted, atol=1e-12)
    np.testing.assert_array_equal(found["structured"], (found["advantage_low"].sel(kind=list(STRICT)) > 0).all("kind"))
    last = controls(run, samples=20, cuts=("pooled",))
    assert last["t2"].values.tolist() == [run.checkpoints - 1]
    assert last["set_size"].values.max() == 20


def test_controls_with_statistics_of_what_they_are_given(run):
    """In float64: the suffix of t2 in training mode on the whole set's features, then with those statistics."""
    t1, t2 = 2, 4
    found = controls(run, t2=t2, cuts=CUTS, sets=("test",), batchnorm="reestimated")
    plain = controls(run, t2=t2, cuts=CUTS, sets=("test",))
    assert found["t2"].values.tolist() == [t2]
    np.testing.assert_array_equal(found["accuracy"].sel(cut="pooled"), plain["accuracy"].sel(cut="pooled"))
    model = network(run)
    saved, test = States(run, model), run.coords["split"].values == "test"
    inputs = torch.from_numpy(run.values("inputs/input"))[test]
    (cut,) = resolve(cuts(model, inputs[:1]), ["s2b3"])
    old, new = (functional_call(cut.prefix, state_for(cut.prefix, saved[t]), (inputs,)).detach() for t in (t1, t2))
    suffix = copy.deepcopy(cut.suffix).double()
    suffix.load_state_dict({k: v.double() for k, v in state_for(suffix, saved[t2]).items()})
    norms = [module for module in suffix.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    seen = {module: [] for module in norms}
    hooks = [m.register_forward_hook(lambda m, given, _: seen[m].append(given[0])) for m in norms]
    with torch.no_grad():
        for part in old.double().tensor_split(-(-len(old) // run.attributes["capture"]["batch"])):
            suffix.train()(part)
        for module in norms:
            module.running_var, module.running_mean = torch.var_mean(torch.cat(seen[module]), (0, 2, 3))
        logits = suffix.eval()(old.double())
    for hook in hooks:
        hook.remove()
    right = (logits.argmax(1).numpy() == run.coords["label"].values[test]).mean()
    drift = found["accuracy"].sel(kind="drift", cut="s2b3", set="test").isel(t1=t1, t2=0)
    assert float(drift) == pytest.approx(right, abs=1.01 / len(inputs))
    assert not torch.equal(old, new)
    with pytest.raises(FeatdynError, match="no checkpoint 99: they are 0 to"):
        controls(run, t2=99, cuts=CUTS)


def test_policies(run, pairs):
    found = batchnorm(run, t2="all", cuts=CUTS)
    np.testing.assert_array_equal(found["accuracy"].sel(policy="travel"), pairs["accuracy"])
    assert (found["diagonal_differences"].sel(policy="travel") == 0).all()
    assert found["norms"].values[-1] == 0
    assert (found["diagonal_differences"].sel(cut="pooled") == 0).all()
    assert (found["change"].sel(cut="pooled") == 0).all()
    assert (found["change"].sel(cut="s2b3") != 0).any()
    assert (np.einsum("pcstt->pcst", found["agreement"].values) == 1).all()


def test_policies_agree_with_modules_set_by_hand(run):
    model = network(run)
    saved = States(run, model)
    inputs = torch.from_numpy(run.values("inputs/input"))
    split, labels = run.coords["split"].values, run.coords["label"].values
    (cut,) = resolve(cuts(model, inputs[:1]), ["s2b3"])
    t1, t2 = 2, run.checkpoints - 1
    z = functional_call(cut.prefix, state_for(cut.prefix, saved[t1]), (inputs,)).detach()
    size = run.attributes["capture"]["batch"]
    found = batchnorm(run, cuts=("s2b3",))

    def score(name, reestimate):
        """In float64, with the mean and variance of all values of a layer's input, and batches of nearly one size."""
        suffix = copy.deepcopy(cut.suffix).double()
        suffix.load_state_dict({k: v.double() for k, v in state_for(suffix, saved[t2]).items()})
        norms = [module for module in suffix.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        seen = {module: [] for module in norms}
        hooks = [m.register_forward_hook(lambda m, given, _: seen[m].append(given[0])) for m in norms]

        def passed(name):
            mine = z[split == name].double()
            return torch.cat([suffix(part) for part in mine.tensor_split(-(-len(mine) // size))])

        with torch.no_grad():
            for module in norms:
                module.train()
            if reestimate:
                passed("train")
                for module in norms:
                    module.running_var, module.running_mean = torch.var_mean(torch.cat(seen[module]), (0, 2, 3))
                    module.eval()
            logits = passed(name)
        for hook in hooks:
            hook.remove()
        return (logits.argmax(1).numpy() == labels[split == name]).mean()

    for policy in ("reestimated", "batch"):
        for name in ("train", "test"):
            cell = found["accuracy"].sel(policy=policy, cut="s2b3", set=name).isel(t1=t1, t2=0)
            assert cell == pytest.approx(score(name, policy == "reestimated"), abs=1.01 / (split == name).sum())


def test_statistics_of_no_probe_are_not_estimated(tmp_path):
    """Of four probes of four classes none has another of its class, whose drift it could be given."""
    run, model = record_convolutions(tmp_path / "run.zarr")
    found = controls(run, model=model, cuts=("1",), sets=("corrupted",), batchnorm="reestimated").isel(t1=2)
    without = found["without_control"].sel(cut="1", set="corrupted", t2=10)
    assert dict(zip(without["kind"].values, without.values, strict=True)) == {
        kind: 4 * (kind == "same_class") for kind in KINDS
    }
    assert (found["accuracy"].isnull() == (found["without_control"] == 4)).all()


def test_without_batchnorm_all_policies_are_one(bn_free):
    found = batchnorm(bn_free, cuts=("all",), t2="all")
    assert (found["diagonal_differences"] == 0).all()
    assert (found["change"] == 0).all()
    assert (found["norms"] == 0).all()


def test_segments_are_the_module(run):
    model = network(run)
    inputs = torch.from_numpy(run.values("inputs/input"))[:4]
    z = inputs
    with torch.no_grad():
        for piece in segments(resolve(cuts(model, inputs[:1]), ["all"])):
            z = piece(z)
        assert torch.equal(z, model(inputs))


def test_rewind(run, pairs):
    found = rewind(run, t2="all", cuts=CUTS)
    assert found["segment"].values.tolist()[-1] == "head"
    diagonal = np.einsum("gstt->gst", found["agreement"].values)
    assert (diagonal == 1).all()
    assert (np.einsum("gstt->gst", found["drop"].values) == 0).all()
    # With one cut the first segment is the prefix, and the head the suffix: the two triangles of the pairs.
    two = rewind(run, cuts=("s2b3",), t2="all")
    of_cut = pairs["accuracy"].sel(cut="s2b3")
    np.testing.assert_array_equal(two["accuracy"].sel(segment="s2b3"), of_cut)
    np.testing.assert_array_equal(two["accuracy"].sel(segment="head"), of_cut.transpose("set", "t2", "t1"))


def test_a_rewound_layer_is_the_network_with_that_layer_s_old_weights(run):
    found = rewind(run)
    model = network(run)
    saved = States(run, model)
    inputs, labels = torch.from_numpy(run.values("inputs/input")), run.coords["label"].values
    test = run.coords["split"].values == "test"
    t1 = 1
    model.load_state_dict({k: saved[t1 if k.startswith("s2b2.") else -1][k] for k in saved[0]})
    with torch.no_grad():
        right = (model(inputs[test]).argmax(1).numpy() == labels[test]).mean()
    assert found["accuracy"].sel(segment="s2b2", set="test").isel(t1=t1, t2=0) == pytest.approx(right, abs=1 / 33)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return own_run(tmp_path_factory.mktemp("own") / "r.zarr", checkpoints=3)


@pytest.fixture(scope="module", params=[(controls, {}), (batchnorm, {}), (rewind, {})])
def alone(request, own):
    """What one process finds with a user's own network, all suffixes."""
    analysis, options = request.param
    options = {"t2": "all", "model": own[1]} | options
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "measure_rates", lambda *_: Rates(1e9, 1e9))  # sources by the clock could differ
        return analysis, options, analysis(own[0], **options)


def test_workers_change_nothing(own, alone, clusters, monkeypatch):
    monkeypatch.setattr(cutting, "measure_rates", lambda *_: Rates(1e9, 1e9))
    analysis, options, found = alone
    same_on(clusters, analysis, found, own[0], **options)


def test_what_they_need_is_said_first(own, alone, caplog):
    analysis, options, _ = alone
    plans(analysis, own[0], caplog, **options)
