"""The noise sampler."""

from __future__ import annotations

import itertools
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.functional import hessian
from torch.func import functional_call

from featdyn.analysis import analyses
from featdyn.analysis.driver import analyze
from featdyn.analysis.gradient_noise import gram_arrays as grams
from featdyn.analysis.gradient_noise.noise import MOST, NoiseOptions
from featdyn.analysis.gradient_noise.noise.checkpoint import NoiseAt, _share, chosen, places
from featdyn.analysis.gradient_noise.noise.compute import FLOAT32, RANDOM_LAYERS, _known, _statuses
from featdyn.analysis.gradient_noise.noise.curvature import quotients
from featdyn.analysis.gradient_noise.sampler import Sampler, flat, moved, parameters, unflattened
from featdyn.analysis.gradient_noise.training_data import Given, training_data
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.weights import States, network
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.networks import cuts, resolve
from featdyn.statistics import Gram
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.stage import train
from featdyn_kernels import set_threads
from tests.engine.conftest import SMALL
from tests.engine.on_workers import plans, same_on
from tests.engine.synthetic_run import make_run

noise = analyses()["noise"]
PLAIN = [*SMALL, "network.name=mlp", "data.train_size=100", "training.batch_size=20", "training.epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network without BatchNorm, so that gradients of batches average to the full gradient."""
    return train(load("digits", PLAIN), tmp_path_factory.mktemp("noise") / "r.zarr")


@pytest.fixture(scope="module")
def sample(run):
    return noise(run, draws=12, probes=3, keep="raw", curvature=50)


def test_gradients_are_autograd_s(run):
    sampler = Sampler(training_data(run, None, None, None), None, 0)
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
    many = torch.stack([flat(draw, names) for draw in sampler.draws(100, replacement=True)]).double()
    error = (many.mean(0) - flat(full, names)).norm() / (many.std(0).norm() / 10)
    assert 0.5 < error < 2  # of a mean of 100


def test_noise_shrinks_with_the_batch_as_it_must(run):
    scale = {}
    for size, replacement in itertools.product((10, 50), (True, False)):
        sampler = Sampler(training_data(run, None, None, None), size, 1)
        sampler.at(States(run, network(run))[-1])
        full = sampler.full()
        names = list(full)
        draws = torch.stack([flat(d, names) for d in sampler.draws(100, replacement)]).double() - flat(full, names)
        scale[size, replacement] = float(draws.square().sum(1).mean())
    assert scale[10, True] / scale[50, True] == pytest.approx(5, rel=0.25)
    for size in (10, 50):  # C/B (N-B)/(N-1)
        assert scale[size, False] / scale[size, True] == pytest.approx((100 - size) / 99, rel=0.25)


@given(checkpoints=st.integers(1, 10_000), every=st.none() | st.integers(1, 200))
def test_by_default_few_checkpoints_are_sampled_evenly_back_from_the_last(checkpoints, every):
    times = NoiseOptions(every=every).sampled(checkpoints)
    assert times[-1] == checkpoints - 1
    steps = set(np.diff(times))
    if every is None:
        assert len(times) <= MOST
        assert len(steps) <= 1
        (step,) = steps or {checkpoints}
        assert step == 1 or -(-checkpoints // (step - 1)) > MOST  # as many as may be
    else:
        assert steps <= {every}
        assert times[0] < every


def test_sampling_leaves_buffers_and_repeats(small_store):
    run = Run(small_store)
    sampler = Sampler(training_data(run, None, None, None), 64, 3)
    state = States(run, sampler.model)[-1]
    sampler.at(state)
    first = next(sampler.draws(1, True))
    for name, tensor in sampler.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    again = next(sampler.draws(1, True))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert sampler.apart == ["BatchNorm by batch"]


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
            main = np.linalg.svd(draws[t] - draws[t].mean(0), full_matrices=False)[2][:3]
            assert np.square(main @ basis[:, :3]).sum() / 3 == pytest.approx(1, abs=1e-3)
        (place,) = resolve(cuts(network(run), torch.zeros(1, 1, 8, 8)), [cut])
        names = parameters(place.prefix, place.prefix)
        way = flat(saved[1], names) - flat(saved[0], names)
        np.testing.assert_allclose(sample["drift_dot"].values[c, 0], draws[0] @ way.numpy(), rtol=1e-3, atol=1e-6)
    assert sample["drift_dot"].isel(t=-1).isnull().all()
    assert sample["feature_drift_square"].isel(t=-1).isnull().all()


def test_features_of_a_tiny_step_are_not_rounding(tmp_path):
    """Beside differences of two float64 passes, one step of plain SGD apart, at a rate where float32 passes differ by
    rounding alone."""
    run = train(load("digits", [*PLAIN, "training.learning_rate=1e-7"]), tmp_path / "r.zarr")
    sample, model = noise(run, draws=12, probes=3, every=2), network(run)
    state = States(run, model)[-1]
    sampler = Sampler(training_data(run, None, None, None), None, 0)
    sampler.at(state)
    rate = sampler.data.rate(run.checkpoints - 1)
    assert 0 < rate <= 1e-7
    full, draws = sampler.full(), list(sampler.draws(12, True))
    index = [run.coords["sample"].values.tolist().index(probe) for probe in sample["probe"].values]
    x = torch.from_numpy(run.values("inputs/input")[index]).double()
    random = np.random.default_rng(0)
    for c, cut in enumerate(sample["cut"].values):
        (place,) = resolve(cuts(model, torch.zeros(1, 1, 8, 8)), [cut])

        def at(gradient, place=place):
            changed = {
                n: state[n].double() - rate * gradient[n].double() for n in parameters(place.prefix, place.prefix)
            }
            return functional_call(place.prefix, changed, (x,)).detach().flatten(1)

        shifts = torch.stack([at(draw) - at(full) for draw in draws], 1).numpy()
        for p in range(3):
            found = grams.of(sample.isel(cut=c, t=-1, probe=p), "feature")
            wanted = Gram.of(shifts[p])
            np.testing.assert_allclose(found.centred, wanted.centred, atol=1e-5 * np.abs(wanted.centred).max())
        control = np.trace(sample["control_centred"].values[c, -1].sum(0)) / 11  # isotropic noise of the same length
        names = parameters(place.prefix, place.prefix)
        size = sum(state[n].numel() for n in names)
        moves = []
        for _ in range(12):
            v = torch.from_numpy(random.standard_normal(size))
            step = unflattened(v, {n: state[n].double() for n in names}, names)
            moves.append((at({n: full[n] + step[n] / v.norm() for n in names}) - at(full)).numpy())
        gram = grams.of(sample.isel(cut=c, t=-1), "parameter")
        noise_square = np.mean(np.diag(gram.centred) + 2 * gram.along_mean + gram.mean_square)
        assert control == pytest.approx(np.square(np.stack(moves)).sum() / 12 * noise_square, rel=0.7)
    assert (sample["feature_nonlinear"].isel(t=-1) < 1e-6).all()
    assert (sample["feature_rounding"] < 1e-4).all()


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
    np.testing.assert_allclose(quotients(model, F.cross_entropy, x, y, v, names), wanted.numpy(), rtol=1e-4)


def test_moved_states():
    state = {"a": torch.zeros(2, 2), "b": torch.ones(3), "buffer": torch.ones(1)}
    found = moved(state, torch.arange(7.0), ["b", "a"])
    assert found["b"].tolist() == [1, 2, 3]
    assert found["a"].tolist() == [[3, 4], [5, 6]]
    assert found["buffer"] is state["buffer"]


def test_a_run_of_another_loop_has_no_training_data(tmp_path):
    bare = make_run(tmp_path / "b.zarr")
    with pytest.raises(FeatdynError):
        noise(bare)
    with pytest.raises(FeatdynError, match="batch_size 5000 is more than the"):
        Sampler(training_data(train(load("digits", PLAIN), tmp_path / "r.zarr"), None, None, None), 5000, 0)


def test_gradients_of_single_samples_average_to_the_full_gradient_of_a_network_with_batchnorm(tmp_path):
    changes = [c for c in PLAIN if "network" not in c] + ["data.train_size=40"]
    run = train(load("digits", changes), tmp_path / "r.zarr")
    sampler = Sampler(training_data(run, None, None, None), 1, 0, stored_statistics=True)
    assert not sampler.apart
    sampler.at(States(run, sampler.model)[-1])
    full = sampler.full()
    names = list(full)
    each = torch.stack([flat(draw, names) for draw in sampler.draws(40, replacement=False)])
    torch.testing.assert_close(each.double().mean(0), flat(full, names), rtol=1e-3, atol=1e-6)
    asked = {"draws": 4, "probes": 1, "every": 99, "keep": "raw", "directions": 0, "seed": 0}
    norms = []
    for kept in ("batch", "stored"):
        found = noise(run, statistics=kept, batch_size=8, **asked)
        of = Sampler(training_data(run, None, None, None), 8, 0, stored_statistics=kept == "stored")
        of.at(States(run, of.model)[-1])
        gradient = of.full()
        before = [name for name in gradient if not name.startswith("fc")]  # the last cut is in front of the head
        norms.append(float(flat(gradient, before).norm()))
        np.testing.assert_allclose(found["gradient_norm"].isel(t=-1, cut=-1), norms[-1], rtol=1e-3)
    assert abs(norms[0] / norms[1] - 1) > 0.01


OPTIONS = {"draws": 5, "probes": 3, "curvature": 20, "keep": "raw", "directions": 2}


def test_workers_change_nothing_and_what_they_need_is_said_first(run, clusters, caplog):
    options = OPTIONS | {"every": 2}
    alone = noise(run, **options)
    assert alone.sizes["t"] > 1
    same_on(clusters, noise, alone, run, **options)
    plans(noise, run, caplog, **options)


@pytest.mark.slow
def test_a_convolution_s_gradient_sees_how_many_threads_sum_it_but_not_where(tmp_path, clusters):
    changes = [c for c in PLAIN if "network" not in c] + ["network.name=cnn", "network.options.widths=[4,4]"]
    run = train(load("digits", changes), tmp_path / "r.zarr")
    threads, options = torch.get_num_threads(), OPTIONS | {"every": 9, "curvature": 5}  # one checkpoint
    torch.set_num_threads(1)
    alone = noise(run, **options)
    torch.set_num_threads(2)
    more = noise(run, **options)
    torch.set_num_threads(threads)
    same_on(clusters, noise, alone, run, **options)
    for name in ("parameter_centred", "feature_centred", "noise_curvature"):
        scale = float(np.abs(alone[name]).max())
        np.testing.assert_allclose(more[name] / scale, alone[name] / scale, atol=1e-4)


def test_draws_of_a_checkpoint_do_not_depend_on_others(run):
    every, some = noise(run, **OPTIONS), noise(run, **OPTIONS, every=2)
    for name in ("control_centred", "isotropic_curvature", "parameter_centred"):
        np.testing.assert_array_equal(every[name].sel(t=some["t"]), some[name])
    without = noise(run, **OPTIONS | {"curvature": 0}, every=2)
    np.testing.assert_array_equal(some["control_centred"], without["control_centred"])


def test_dropout_draws_the_same_whoever_else_draws(run):
    """Its generator is the process's."""

    def sampler():
        found = Sampler(training_data(run, None, None, None), 10, 0)
        found.model.append(torch.nn.Dropout(0.5))
        return found

    def drawn(one):
        return torch.stack([flat(draw, list(draw)) for draw in one.draws(20, True)])

    alone = drawn(sampler())
    # Which masks a draw has is the same in every version: what was sampled before goes on.
    assert alone.double().norm(dim=1)[:6].tolist() == pytest.approx(
        [1.323, 1.226, 1.957, 1.554, 2.001, 1.875], rel=1e-2
    )
    with ThreadPoolExecutor(2) as pool:
        for together in pool.map(drawn, [sampler(), sampler()]):
            assert torch.equal(together, alone)


def test_rounding_is_that_of_the_first_draw_in_float64(run, sample):
    state = States(run, network(run))[0]
    sampler = Sampler(training_data(run, None, None, None), None, 0)
    sampler.at(state)
    rough, exact = (next(sampler.draws(1, True, dtype=kind)) for kind in (torch.float32, torch.float64))
    full, names = sampler.full(), list(rough)
    assert names == list(exact)
    error = (flat(rough, names).double() - flat(exact, names)).norm()
    noise_ = (flat(exact, names) - flat(full, names)).norm()
    deepest = float(sample["rounding"].isel(cut=-1, t=0))
    assert 1e-9 < deepest < 1e-4
    assert deepest == pytest.approx(float(error / noise_), rel=1)  # of the prefix, here of the whole network


def mean_beside_its_error(sampler, n=64):
    """``n |mean|^2 / mean |.|^2`` of the noise: 1 about a centre that is known."""
    full = sampler.full()
    names = list(full)
    xi = torch.stack([flat(draw, names) for draw in sampler.draws(n, True)]).double() - flat(full, names)
    return float(n * xi.mean(0).square().sum() / xi.square().sum(1).mean())


def test_the_centre_is_known_only_where_the_full_gradient_is_the_mean_over_draws(run, tmp_path):
    plain = Sampler(training_data(run, None, None, None), 20, 0)
    plain.at(States(run, plain.model)[-1])
    assert not plain.apart
    assert 0.5 < mean_beside_its_error(plain) < 1.6

    augmented = train(load("digits", [*PLAIN, "training.augment=true"]), tmp_path / "augmented.zarr")
    other = Sampler(training_data(augmented, None, None, None), 20, 0, stored_statistics=True)
    other.at(States(augmented, other.model)[-1])
    assert other.apart == ["augmentation"]
    assert mean_beside_its_error(other) > 3
    found = noise(augmented, draws=4, probes=1, every=9, permuted=False)
    assert found.attrs["center"] == "estimated"
    assert found.attrs["center_because"] == "augmentation"

    plain.model.append(torch.nn.Dropout(0.5))
    del plain.random  # which was looked at before
    plain.model.train()
    assert plain.apart == ["layers that are random"]
    assert mean_beside_its_error(plain) > 3
    assert noise(run, draws=4, probes=0, every=9, replacement=False).attrs["center"] == "estimated"


def test_permuted_labels_are_those_of_the_training_set_in_another_order(run):
    sampler = Sampler(training_data(run, None, None, None), 100, 0)
    sampler.at(States(run, network(run))[-1])
    every = next(sampler.draws(1, False, permuted=True))
    names = list(every)
    own = sampler.data.labels.numpy()
    shuffled = sampler.data.labels[sampler._permutation]
    assert sorted(own.tolist()) == sorted(shuffled.tolist())
    assert (shuffled.numpy() != own).mean() > 0.5
    inputs, _ = sampler.data.of(torch.arange(100), 0)
    loss = F.cross_entropy(sampler.model(inputs).double(), shuffled)
    wanted = torch.autograd.grad(loss, [dict(sampler.model.named_parameters())[name] for name in names])
    torch.testing.assert_close(flat(every, names), torch.cat([w.flatten() for w in wanted]), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layer", [None, torch.nn.Dropout(0.5)], ids=["plain", "random"])
def test_one_pass_forward_gives_the_gradients_of_both_labels(run, layer):
    sampler = Sampler(training_data(run, None, None, None), 20, 0)
    sampler.at(States(run, network(run))[-1])
    if layer is not None:
        sampler.model.append(layer).train()
    assert (sampler.random, sampler.small) == (layer is not None, layer is None)  # which takes passes of its own, once
    passes = []
    sampler.model[0].register_forward_hook(lambda *_: passes.append(1))
    own, permuted = zip(*sampler.with_permuted(3, True), strict=True)
    assert len(passes) == 3
    for found, how in ((own, False), (permuted, True)):
        for one, alone in zip(found, sampler.draws(3, True, permuted=how), strict=True):
            assert one.keys() == alone.keys()
            assert all(torch.equal(one[name], alone[name]) for name in one)
    assert not torch.equal(flat(own[0], list(own[0])), flat(permuted[0], list(own[0])))


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    set_threads(3)
    yield
    set_threads(None)
    torch.set_num_threads(before)


def test_gradients_computed_side_by_side_have_the_bits_of_one_after_the_other(run, three_threads, monkeypatch):
    def gradients(sampler):
        own, permuted = zip(*sampler.with_permuted(7, True), strict=True)
        return [sampler.full(), *sampler.draws(7, False), *own, *permuted]

    sampler = Sampler(training_data(run, None, None, None), 15, 0)  # seven batches, the last of ten samples
    sampler.at(States(run, network(run))[-1])
    assert sampler.threads == 3
    together, whole = gradients(sampler), noise(run, **OPTIONS, every=9)
    names, several = set(), threading.Event()

    def seen(*_):
        names.add(threading.current_thread().name)
        if len(names) > 1:
            several.set()
        assert several.wait(240)  # or one thread alone could have done it all before another came

    hook = sampler.model[0].register_forward_hook(seen)
    list(sampler.draws(7, True))
    hook.remove()
    set_threads(1)
    assert sampler.threads == 1
    for one, alone in zip(together, gradients(sampler), strict=True):
        assert all(torch.equal(one[name], alone[name]) for name in alone)
    xr.testing.assert_equal(whole, noise(run, **OPTIONS, every=9))


def test_gradients_that_hold_much_or_draw_from_one_generator_come_one_after_the_other(run, three_threads, monkeypatch):
    def threads(layer=None):
        sampler = Sampler(training_data(run, None, None, None), 20, 0)
        if layer is not None:
            sampler.model.append(layer)
        return sampler.threads

    assert threads() == 3
    assert threads(torch.nn.Dropout(0.5)) == 1
    sampler = Sampler(training_data(run, None, None, None), 20, 0)
    one = sampler.pass_bytes(0, 0) + sum(tensor.nbytes for tensor in sampler.model.state_dict().values())
    for more, wanted in ((0, 1), (1.5 * one, 2), (99 * one, 3)):
        monkeypatch.setattr("featdyn.analysis.gradient_noise.sampler.BESIDE", more)
        assert threads() == wanted


def test_the_user_s_random_state_is_left_alone(run):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sampler = Sampler(training_data(run, None, None, None), 10, 0)
    sampler.model.append(torch.nn.Dropout(0.5))
    list(sampler.draws(2, True))
    noise(run, draws=4, probes=1, every=9)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_whole_analysis_takes_no_notice_of_what_is_ordinary(run, tmp_path, caplog):
    """No probes; one checkpoint; gradients that are not finite; directions without length."""
    with caplog.at_level(logging.INFO, "featdyn"):
        bare = noise(run, draws=4, probes=0, every=9, directions=0, curvature=5)
    assert "feature_centred" not in bare
    assert bare.sizes["t"] == 1
    assert bare["drift_dot"].isnull().all()
    assert re.search(r"multiply-adds, about [\d.,]+ (s|min|h) on one worker", caplog.text)
    lost = grams.gram_of(np.full((4, 3), np.inf))
    assert np.isnan(lost.centred).all()
    assert (lost.n, lost.p) == (4, 3)
    x, y = torch.randn(5, 3), torch.arange(5) % 2
    model = torch.nn.Linear(3, 2)
    assert np.isnan(quotients(model, F.cross_entropy, x, y, torch.zeros(1, 8), ["weight", "bias"])).all()


def test_a_model_of_one_s_own_is_refused_in_one_line(run, tmp_path):
    with pytest.raises(FeatdynError, match="takes model= and batches= together"):
        noise(run, model=network(run))
    with pytest.raises(FeatdynError, match="noise needs training data"):
        noise(make_run(tmp_path / "b.zarr"), model=torch.nn.Linear(1, 1))


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_only_what_is_new_is_sampled_and_what_was_stopped_goes_on(tmp_path, monkeypatch, every):
    run = train(load("digits", PLAIN), tmp_path / "r.zarr")
    options = {"draws": 4, "probes": 2, "every": every}
    whole = noise(run, **options)
    sample, asked = NoiseAt.sample, []

    def stopped(self, item):
        if item[0] == whole["t"].values[-1]:
            raise KeyboardInterrupt
        return sample(self, item)

    monkeypatch.setattr("featdyn.analysis.context.KEPT_EVERY", -np.inf)
    monkeypatch.setattr(NoiseAt, "sample", stopped)
    with pytest.raises(KeyboardInterrupt):
        analyze(run, "noise", **options)

    def counted(self, item):
        asked.append(item[0])
        return sample(self, item)

    monkeypatch.setattr(NoiseAt, "sample", counted)
    again = analyze(Run(run.path), "noise", **options)
    assert asked == whole["t"].values[-2:].tolist()  # of the last that was kept nothing said where drift leads
    xr.testing.assert_equal(again, whole)
    del asked[:]
    xr.testing.assert_equal(noise(Run(run.path), **options), whole)
    assert not asked


def test_behind_a_frozen_layer_alone_there_is_noise(tmp_path):
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    model = torch.nn.Sequential(linear(6, 5), relu(), linear(5, 4), relu(), linear(4, 3))
    model[0].requires_grad_(False)
    x, y = torch.randn(24, 6, generator=torch.manual_seed(0)), torch.arange(24) % 3
    with Recorder(model, Probes(x, y), tmp_path / "r.zarr", layers=["1", "3"], gradients=False) as recorder:
        recorder.start()
    asked = {"model": model, "batches": list(zip(x.split(8), y.split(8), strict=True)), "draws": 4, "batch_size": 8}
    with pytest.raises(FeatdynError, match=r"no parameter before cut 1 is trained, so there is no noise: ask at 3$"):
        noise(Run(tmp_path / "r.zarr"), cuts=["1", "3"], rate=0.1, **asked)
    found = noise(Run(tmp_path / "r.zarr"), cuts=["3"], rate=0.1, **asked)
    assert found.sizes["parameter_3"] == 24  # weights and biases of the one layer that is trained


X, Y = torch.arange(12.0).reshape(6, 2), torch.arange(6) % 2
ODD_BATCHES = {
    r"batches must give pairs \(inputs, labels\), got Tensor": [X],
    r"batches must give pairs \(inputs, labels\), got list": [[X, Y, Y]],
    r"batches: .*": [(X, "words")],
    r"a batch has inputs \(6, 2\) and labels \(5,\)": [(X, Y[:5])],
    r"a batch has inputs \(6, 2\) and labels \(\)": [(X, torch.tensor(1))],
    r"a batch has inputs \(6, 2\) and inputs.b \(4, 2\)": [({"a": X, "b": X[:4]}, Y)],
    r"batches hold inputs of shapes \(2,\) and \(3,\) for a sample: give all of one shape": [
        (X, Y), (X.reshape(4, 3), Y[:4]),
    ],
    r"batches hold labels of shapes \(\) and \(1,\) for a sample": [(X, Y), (X, Y[:, None])],
    r"batches hold inputs.c of shapes None and \(2,\)": [({"a": X}, Y), ({"a": X, "c": X}, Y)],
    "each batch must hold the same inputs and labels as the first": [({"a": X, "c": X}, Y), ({"a": X}, Y)],
    "batches must give inputs and labels: for a loss of neither, give the inputs twice": [(X, ())],
    "batches gives no batch": [],
}  # fmt: skip


@pytest.mark.parametrize("said", ODD_BATCHES)
def test_batches_that_are_none_are_refused_in_one_line(said):
    with pytest.raises(FeatdynError, match=rf"^{said}") as error:
        Given.of(torch.nn.Identity(), ODD_BATCHES[said], None)
    assert "\n" not in str(error.value)


def test_batches_are_all_samples_and_as_large_as_the_largest():
    given = Given.of(torch.nn.Identity(), [[{"a": X[:2]}, Y[:2]], ({"a": X[2:]}, Y[2:])], None)
    assert (given.samples, given.batch_size) == (6, 4)
    assert torch.equal(given.inputs["a"], X)
    assert torch.equal(given.labels, Y)


def test_training_data_need_a_rate_and_a_recipe(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2))
    with Recorder(model, Probes(X, Y), tmp_path / "r.zarr", layers=["0"], gradients=False) as recorder:
        recorder.start()
    run, given = Run(tmp_path / "r.zarr"), Given.of(model, [(X, Y)], None)
    with pytest.raises(FeatdynError, match="the learning rate is not known: record the coordinate learning_rate"):
        training_data(run, given, None, None)
    with pytest.raises(FeatdynError, match="was not made by 'featdyn train', so its training data are not known"):
        training_data(run, None, None, None)
    data = training_data(run, given, None, 0.25)
    assert (data.rate(0), data.samples, data.nbytes) == (0.25, 6, 6 * 2 * 4 + 6 * 8)
    for stored in (False, True):  # dropout is off in eval mode
        sampler = Sampler(data, 3, 0, stored_statistics=stored)
        sampler.at(run.state(0))
        assert sampler.random is not stored
        assert sampler.apart == ([] if stored else ["layers that are random"])
    assert Sampler(data, 6, 0).batch_size == Sampler(data, None, 0).batch_size == 6
    with pytest.raises(FeatdynError, match="batch_size 7 is more than the 6 training samples"):
        Sampler(data, 7, 0)
    model[0].weight = torch.nn.Parameter(model[0].weight.to(torch.complex64))
    with pytest.raises(FeatdynError, match=r"the parameter 0.weight is complex: the noise of real ones is sampled"):
        Sampler(training_data(run, Given.of(model, [(X, Y)], None), None, 1.0), None, 0)


def test_places_are_where_parameters_stand_among_others():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1), torch.nn.Linear(1, 4))
    whole = ["1.bias", "0.weight", "2.weight", "1.weight", "0.bias"]
    vector = flat(dict(model.named_parameters()), whole)
    for count in range(1, 6):
        for names in itertools.permutations(whole, count):
            at = places(model, list(names), whole)
            assert torch.equal(vector[at], flat(dict(model.named_parameters()), list(names)))
            assert isinstance(at, slice) == (list(names) == whole[:count])


@pytest.mark.parametrize(
    ("probes", "test", "sizes"),
    [(0, "b", (0, 0, 0)), (3, "b", (0, 3, 0)), (4, "b", (0, 4, 0)), (6, "b", (2, 4, 0)), (9, "b", (5, 4, 0)),
     (10, "b", (5, 4, 1)), (99, "b", (5, 4, 2)), (7, "none", (5, 2, 0)), (6, "c", (4, 0, 2))],
)  # fmt: skip
def test_probes_of_the_test_set_are_moved_first(probes, test, sizes):
    """One of each image; then those of the other sets in their order."""
    origins = np.r_[np.arange(5), 10 + np.arange(8) // 2, [20, 21]]
    members = [np.isin(np.arange(15), place) for place in (range(5), range(5, 13), range(13, 15))]
    sets, run = ProbeSets(["a", "b", "c"], members, origins), SimpleNamespace(coords={})
    found = chosen(run, sets, NoiseOptions(probes=probes, test=test))
    assert tuple(int(member[found].sum()) for member in members) == sizes
    assert found.tolist() == sorted(set(found.tolist()))
    assert len(set(origins[found].tolist())) == len(found)


@pytest.mark.parametrize(
    ("random", "exact", "why"),
    [
        (True, True, RANDOM_LAYERS),
        (True, False, RANDOM_LAYERS),
        (False, False, FLOAT32),
        (False, True, "does_not_move"),
    ],
)
@pytest.mark.parametrize("features", [True, False])
def test_what_is_missing_of_a_sample_has_its_reason(random, exact, why, features):
    some, none = [1.0, np.nan], np.nan
    found = xr.Dataset(
        {"parameter_mean_square": (("cut", "t"), [[1, none, 1]]), "rounding": (("cut", "t"), [[1, none, none]]),
         "noise_curvature": (("cut", "t", "draw"), [[some, [none] * 2, [1, 1]]])}
    )  # fmt: skip
    dims = ("cut", "t", "probe")
    if features:
        found["feature_mean_square"] = dims, [[[1, none], [none, none], [1, 1]]]
        for name in ("feature_rounding", "feature_nonlinear"):
            found[name] = dims, [[some, [none] * 2, [none, 1]]]
    wanted = {
        "parameter_status": [["", "not_finite", ""]],
        "rounding_status": [["", "not_finite", why]],
        "curvature_status": [[["", "does_not_move"], ["not_finite"] * 2, ["", ""]]],
    }
    if features:
        wanted["feature_status"] = [[["", "not_finite"], ["not_finite"] * 2, ["", ""]]]
        for name, reason in (("feature_rounding", why), ("feature_nonlinear", "does_not_move")):
            wanted[f"{name}_status"] = [[["", "not_finite"], ["not_finite"] * 2, [reason, ""]]]
    statuses = _statuses(found, SimpleNamespace(random=random, exact=exact))
    said = {}
    for name, status in statuses.items():
        words = np.array(["", *status.attrs["flag_meanings"].split()[1:]], object)
        said[name] = words[status.values].tolist()
    assert said == wanted


@pytest.mark.parametrize(
    ("weights", "items", "kept"),
    [
        (7, [(0, 3), (3, 6), (6, None)], [0, 3, 6]),
        (6, [(0, 3), (3, 6), (6, None)], [0, 3]),  # of the last one drift may lead on now
        (7, [(0, 6), (6, None)], [6]),
        (7, [(0, 2), (2, 4), (3, 6)], [3]),
        (6, [(0, 6), (6, None)], None),
        (7, [], None),
    ],
)
def test_what_an_earlier_sample_holds_of_the_same_ways_is_kept(weights, items, kept):
    assert _known(None, items, 7) is None
    flags = {"flag_meanings": "computed"}
    earlier = xr.Dataset(
        {"rounding": ("t", [1.0, 2.0, 3.0]), "rounding_status": ("t", [0, 0, 0], flags)},
        {"t": [0, 3, 6], "step": ("t", [0, 30, 60])}, {"identity": {"weights": [""] * weights}, "feature_moves": "so"},
    )  # fmt: skip
    found = _known(earlier, items, 7)
    if kept is None:
        assert found is None
        return
    wanted = xr.Dataset({"rounding": ("t", [1.0 + t / 3 for t in kept])}, {"t": kept}, {"feature_moves": "so"})
    xr.testing.assert_identical(found, wanted)
    del earlier.attrs["feature_moves"]
    assert _known(earlier, items, 7).attrs == {}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Return a network of one's own with seven training samples."""
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)), torch.randn(7, 2)
    path = tmp_path_factory.mktemp("few") / "r.zarr"
    with Recorder(model, Probes(x, torch.arange(7) % 2), path, layers=["1"], gradients=False) as recorder:
        recorder.start()
    return training_data(Run(path), Given.of(model, [(x, torch.arange(7) % 2)], None), None, 0.1), x


@pytest.mark.parametrize("size", range(1, 8))
def test_the_full_gradient_is_of_all_samples_whatever_the_batch(few, size):
    data, x = few
    sampler = Sampler(data, size, 0)
    full = sampler.full()
    wanted = torch.autograd.grad(
        F.cross_entropy(data.model(x).double(), torch.arange(7) % 2), [*data.model.parameters()]
    )
    for found, exact in zip(full.values(), wanted, strict=True):
        torch.testing.assert_close(found, exact.double(), rtol=1e-5, atol=1e-7)
    draws = list(sampler._batches(9, replacement=False))
    for start in range(0, 9 - 7 // size + 1, 7 // size):  # parts of one order after the other
        part = torch.cat(draws[start : start + 7 // size])
        assert len(part.unique()) == len(part) == 7 // size * size
    inputs, labels = sampler.subset(size)
    assert len(inputs) == len(labels) == size
    assert len(sampler.subset(99)[1]) == 7
    assert len(inputs.unique(dim=0)) == size


def test_bytes_of_a_pass_grow_with_the_batch_or_with_the_samples_of_the_curvature(few):
    data, _ = few
    one = Sampler(data, 1, 0).pass_bytes(0, 0) // 2
    for size in (2, 5, 7):
        sampler = Sampler(data, size, 0)
        assert sampler.pass_bytes(0, 0) == pytest.approx(2 * size * one, abs=2 * size)
        assert sampler.pass_bytes(0, 11) - sampler.pass_bytes(0, 0) == 2 * size * 32 * 11
        for curvature in (1, 2, 3, 7, 50):
            times = max(2 * size, 7 * min(curvature, 7))
            assert sampler.pass_bytes(curvature, 3) == pytest.approx(times * (one + 96), abs=times)


def test_a_share_is_of_lengths_and_of_nothing_there_is_none():
    part, whole = (
        torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 2.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
    )
    np.testing.assert_array_equal(_share(part, whole), [2.5, 0.0, np.nan, np.nan])
