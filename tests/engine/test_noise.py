"""The noise sampler and the tests of isotropy on its draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd.functional import hessian
from torch.func import functional_call

from featdyn.analysis import grams
from featdyn.analysis.curvature import quotients
from featdyn.analysis.gradients import Sampler, flat, moved, parameters, unflattened
from featdyn.analysis.isotropy import isotropy
from featdyn.analysis.network import States, network
from featdyn.analysis.noise import noise
from featdyn.analysis.record import record
from featdyn.errors import FeatdynError
from featdyn.networks import cuts, resolve
from featdyn.statistics import Gram
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.stage import train
from tests.engine.conftest import SMALL
from tests.engine.on_workers import plans, same_on
from tests.engine.statistics.reference import directions
from tests.engine.synthetic_run import make_run

PLAIN = [*SMALL, "network.name=mlp", "data.train_size=100", "training.batch_size=20", "training.epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network without BatchNorm, so that gradients of batches average to the full gradient."""
    return train(load("digits", PLAIN), tmp_path_factory.mktemp("noise") / "r.zarr")


@pytest.fixture(scope="module")
def sample(run):
    return noise(run, draws=12, probes=3, keep="raw", curvature=50)


def test_gradients_are_autograd_s(run):
    sampler = Sampler(run, None, None, 0)
    state = States(run, network(run))[-1]
    sampler.at(state)
    recipe = load("digits", PLAIN)
    from featdyn.training.loop import Loop

    loop = Loop(recipe)
    loop.model.load_state_dict(state)
    inputs, labels = loop.batches.of(torch.arange(100), 0)
    loss = F.cross_entropy(loop.model(inputs).double(), labels)
    wanted = dict(zip(state, torch.autograd.grad(loss, list(loop.model.parameters())), strict=True))
    full = sampler.full()
    for name, gradient in full.items():
        torch.testing.assert_close(gradient, wanted[name].double(), rtol=1e-4, atol=1e-7)
    names = list(full)
    disjoint = [flat(draw, names) for draw in sampler.draws(5, replacement=False)]  # all of the training set
    torch.testing.assert_close(torch.stack(disjoint).mean(0).double(), flat(full, names), rtol=1e-4, atol=1e-7)
    many = torch.stack([flat(draw, names) for draw in sampler.draws(400, replacement=True)]).double()
    error = (many.mean(0) - flat(full, names)).norm() / (many.std(0).norm() / 20)
    assert 0.5 < error < 2  # of a mean of 400


def test_noise_shrinks_with_the_batch_as_it_must(run):
    scale = {}
    for size, replacement in itertools.product((10, 50), (True, False)):
        sampler = Sampler(run, None, size, 1)
        sampler.at(States(run, network(run))[-1])
        full = sampler.full()
        names = list(full)
        draws = torch.stack([flat(d, names) for d in sampler.draws(200, replacement)]).double() - flat(full, names)
        scale[size, replacement] = float(draws.square().sum(1).mean())
    assert scale[10, True] / scale[50, True] == pytest.approx(5, rel=0.25)
    for size in (10, 50):  # C/B (N-B)/(N-1)
        assert scale[size, False] / scale[size, True] == pytest.approx((100 - size) / 99, rel=0.25)


def test_sampling_leaves_buffers_and_repeats(small_store):
    run = Run(small_store)
    sampler = Sampler(run, None, 64, 3)
    state = States(run, sampler.model)[-1]
    sampler.at(state)
    first = next(sampler.draws(1, True))
    for name, tensor in sampler.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    again = next(sampler.draws(1, True))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert sampler.normalised


def test_the_sample_is_what_it_says(run, sample):
    assert sample.attrs["center"] == "known"
    assert sample["t"].values.tolist() == list(range(run.checkpoints))
    assert sample.sizes["probe"] == 3
    saved = States(run, network(run))
    for c, cut in enumerate(sample["cut"].values):
        draws = sample[f"draws_{cut}"].values
        assert draws.shape[-1] == sample["prefix_params"].values[c]
        for t in range(run.checkpoints):
            gram = grams.of(sample.isel(cut=c, t=t), "parameter")
            wanted = Gram.of(draws[t])
            np.testing.assert_allclose(gram.centred, wanted.centred, rtol=1e-4, atol=1e-6 * wanted.centred.max())
            basis = sample[f"directions_{cut}"].values[t].T
            np.testing.assert_allclose(basis.T @ basis, np.eye(10), atol=1e-4)
            share = np.square(basis[:, :3].T @ directions(draws[t].astype(np.float64), 3)).sum() / 3
            assert share == pytest.approx(1, abs=1e-3)
        (place,) = resolve(cuts(network(run), torch.zeros(1, 1, 8, 8)), [cut])
        names = parameters(place.prefix)
        way = flat(saved[1], names) - flat(saved[0], names)
        np.testing.assert_allclose(sample["drift_dot"].values[c, 0], draws[0] @ way.numpy(), rtol=1e-3, atol=1e-6)
    assert sample["drift_dot"].isel(t=-1).isnull().all()
    assert sample["feature_drift_square"].isel(t=-1).isnull().all()


def test_feature_noise_is_one_step_of_sgd(run, sample):
    """The same by hand, for one draw, probe and cut."""
    model = network(run)
    state = States(run, model)[1]
    sampler = Sampler(run, None, None, 0)
    sampler.at(state)
    rate = sampler.rate(int(run.values("step")[1]))
    full, draws = sampler.full(), list(sampler.draws(12, True))
    (place,) = resolve(cuts(model, torch.zeros(1, 1, 8, 8)), [str(sample["cut"].values[0])])
    index = run.coords["sample"].values.tolist().index(sample["probe"].values[1])
    x = torch.from_numpy(run.values("inputs/input")[index : index + 1])
    names = parameters(place.prefix)

    def at(gradient):
        moved_state = {n: state[n] - rate * gradient[n].float() for n in names}
        return functional_call(place.prefix, moved_state, (x,)).detach().double().flatten()

    shifts = torch.stack([at(draw) - at(full) for draw in draws])
    wanted = Gram.of(shifts.numpy())
    found = grams.of(sample.isel(cut=0, t=1, probe=1), "feature")
    np.testing.assert_allclose(found.centred, wanted.centred, rtol=1e-3, atol=1e-3 * wanted.centred.max())


def test_the_control_has_the_noise_s_norm_and_no_direction(run, sample):
    """In parameters of the first layer features are nearly linear: isotropic steps move them by J J'."""
    feature, control = (
        np.array([np.trace(grams.of(sample.isel(cut=0, t=1, probe=p), s).centred) for p in range(3)])
        for s in ("feature", "control")
    )
    assert (control > 0).all()
    assert (control < feature).all()  # gradients point where features move most


def test_curvature_is_the_hessian_s():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    x, y = torch.randn(10, 3), torch.randint(2, (10,))
    named = {n: p.detach() for n, p in model.named_parameters()}
    names = ["0.weight", "2.bias"]

    def loss(vector):
        state = {**named, **unflattened(vector, named, names)}
        return F.cross_entropy(functional_call(model, state, (x,)), y)

    h = hessian(loss, flat(named, names))
    v = torch.randn(5, len(h))
    wanted = torch.einsum("np,pq,nq->n", v, h, v) / v.square().sum(1)
    np.testing.assert_allclose(quotients(model, x, y, v, names), wanted.numpy(), rtol=1e-4)


def test_moved_states():
    state = {"a": torch.zeros(2, 2), "b": torch.ones(3), "buffer": torch.ones(1)}
    found = moved(state, torch.arange(7.0), ["b", "a"])
    assert found["b"].tolist() == [1, 2, 3]
    assert found["a"].tolist() == [[3, 4], [5, 6]]
    assert found["buffer"] is state["buffer"]


def test_isotropy_of_a_run(run, tmp_path):
    from featdyn.analysis import analyses

    with pytest.raises(FeatdynError, match=r"no noise was sampled yet; run: featdyn analyze .* noise"):
        isotropy(run)
    record(run.path, analyses()["noise"], {"draws": 12, "probes": 2, "every": 2})
    found = isotropy(Run(run.path))
    assert found["parameter_verdict"].dims == ("cut", "t")
    assert found["feature_pvalue"].dims == ("test", "cut", "t", "probe")
    robust = found["parameter_pvalue"].sel(test="sign_test")
    assert ((robust >= 0) & (robust <= 1)).all()
    assert (found["parameter_holm"] >= found["parameter_pvalue"]).where(found["parameter_pvalue"].notnull(), True).all()
    assert (found["parameter_share"].diff("k") >= 0).all()
    shares = [found[f"feature_{name}"] for name in ("held_out", "half_overlap", "drift_share_halves")]
    assert all(((share >= 0) & (share <= 1)).where(share.notnull(), True).all() for share in shares)
    np.testing.assert_array_equal(found["control_held_out_isotropic"].sel(k=1).notnull(), True)
    assert (found["parameter_share_isotropic"] <= found["parameter_share_isotropic_high"]).all()
    assert set(np.unique(found["parameter_verdict"].values)) <= {"isotropic", "anisotropic", "undecided"}
    assert found["t"].values.tolist() == list(range(run.checkpoints))[::-2][::-1]


def test_a_run_of_another_loop_has_no_training_data(tmp_path):
    bare = make_run(tmp_path / "b.zarr")
    with pytest.raises(FeatdynError):
        noise(bare)
    with pytest.raises(FeatdynError, match="batch_size 5000 is more than the"):
        Sampler(train(load("digits", PLAIN), tmp_path / "r.zarr"), None, 5000, 0)


def test_gradients_of_single_samples_average_to_the_full_gradient_of_a_network_with_batchnorm(tmp_path):
    changes = [c for c in PLAIN if "network" not in c]
    run = train(load("digits", changes), tmp_path / "r.zarr")
    sampler = Sampler(run, None, 1, 0, stored_statistics=True)
    assert not sampler.normalised
    sampler.at(States(run, sampler.model)[-1])
    full = sampler.full()
    names = list(full)
    each = torch.stack([flat(draw, names) for draw in sampler.draws(100, replacement=False)])
    torch.testing.assert_close(each.double().mean(0), flat(full, names), rtol=1e-3, atol=1e-6)


OPTIONS = {"draws": 5, "probes": 3, "curvature": 20, "keep": "raw", "directions": 2}


def test_workers_change_nothing_and_what_they_need_is_said_first(run, clusters, caplog):
    alone = noise(run, **OPTIONS)
    same_on(clusters, noise, alone, run, **OPTIONS)
    plans(noise, run, caplog, **OPTIONS)


def test_a_convolution_s_gradient_sees_how_many_threads_sum_it_but_not_where(tmp_path, clusters):
    changes = [c for c in PLAIN if "network" not in c] + ["network.name=cnn"]
    run = train(load("digits", changes), tmp_path / "r.zarr")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = noise(run, **OPTIONS, every=2)
    torch.set_num_threads(2)
    more = noise(run, **OPTIONS, every=2)
    torch.set_num_threads(threads)
    same_on(clusters, noise, alone, run, **OPTIONS, every=2)
    for name in ("parameter_centred", "feature_centred", "noise_curvature"):
        scale = float(np.abs(alone[name]).max())
        np.testing.assert_allclose(more[name] / scale, alone[name] / scale, atol=1e-4)


def test_draws_of_a_checkpoint_do_not_depend_on_others(run):
    every, some = noise(run, **OPTIONS), noise(run, **OPTIONS, every=2)
    for name in ("control_centred", "isotropic_curvature", "parameter_centred"):
        np.testing.assert_array_equal(every[name].sel(t=some["t"]), some[name])
    seconds = noise(run, **OPTIONS | {"curvature": 0})
    np.testing.assert_array_equal(every["control_centred"], seconds["control_centred"])


def test_dropout_draws_the_same_whoever_else_draws(run):
    """Its generator is the process's."""
    from concurrent.futures import ThreadPoolExecutor

    def sampler():
        found = Sampler(run, None, 10, 0)
        found.model.append(torch.nn.Dropout(0.5))
        found._dropout = True
        return found

    def drawn(one):
        return torch.stack([flat(draw, list(draw)) for draw in one.draws(20, True)])

    alone = drawn(sampler())
    with ThreadPoolExecutor(2) as pool:
        for together in pool.map(drawn, [sampler(), sampler()]):
            assert torch.equal(together, alone)
