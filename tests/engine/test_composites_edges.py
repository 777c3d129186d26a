"""Composites where runs are at their edges: each number beside a float64 reference, or missing with its reason."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from featdyn.analysis import analyses
from featdyn.analysis.composites.batchnorm_statistics import OneValue, by_batch, nearly_equal, reestimated
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError, NetworkError
from featdyn.statistics.relative_change import relative_change
from featdyn.store import Run, RunWriter

ROOM = ("consistency", "controls", "batchnorm", "rewind", "averaging")
UNITS = 8


def mlp(outputs=3, act=nn.ReLU, norm=True):
    """With a cut before its BatchNorm."""
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(UNITS)] if norm else []
    deep = [nn.Linear(UNITS, UNITS), *middle, act(), nn.Linear(UNITS, outputs)]
    return nn.Sequential(nn.Linear(6, UNITS), nn.ReLU(), *deep)


def binary(outputs, labels):
    return F.binary_cross_entropy_with_logits(outputs[:, 0], labels.float(), reduction="none")


def drifting(path, model, split, labels=None, checkpoints=3, seed=0, edit=None, **options):
    """Record a network whose weights move at random; ``edit`` changes inputs in place."""
    random, n = torch.Generator().manual_seed(seed), len(split)
    inputs = torch.randn(n, 6, generator=random)
    labels = torch.arange(n) % 3 if labels is None else labels
    inputs[:, 0] += labels.clamp(0, 2)
    if edit is not None:
        edit(inputs)
    dtype = next(model.parameters()).dtype
    coords = {"split": np.array(split, dtype=object)} | options.pop("coords", {})
    probes = Probes(inputs.to(dtype), labels, coords)
    with Recorder(model, probes, path, layers=["*"], gradients=False, **options) as recorder, torch.no_grad():
        for t in range(checkpoints):
            recorder.record(step=10 * t)
            for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
                tensor += (0.2 * torch.rand(tensor.shape, generator=random)).to(dtype)
    return Run(path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return what records a run once for all analyses of the room: its run, and a copy of its network."""
    made = {}

    def once(name, model, *given, **options):
        if name not in made:
            made[name] = drifting(tmp_path_factory.mktemp("edges") / "r.zarr", model, *given, **options), model
        run, model = made[name]
        return run, copy.deepcopy(model)

    return once


def halves(n):
    return ["train"] * (n // 2) + ["test"] * (n - n // 2)


def explained(found):
    """Check that every missing number has a reason, and that limits lie around estimates and within their range."""
    for name, variable in found.data_vars.items():
        if variable.dtype.kind != "f":
            continue
        missing = variable.isnull()
        if bool(missing.any()) and "missing" not in variable.attrs:
            words = reasons(found, name)
            assert words is not None, name
            assert bool(((words != "") | ~missing).all()), name
            assert "not defined" not in words.values, name
        low, high = variable.attrs.get("valid_range", (-np.inf, np.inf))
        assert bool(((variable >= low) & (variable <= high) | missing).all()), name
    for name in found.data_vars:
        if f"{name}_low" in found:
            low, middle, high = (found[name + end] for end in ("_low", "", "_high"))
            there = middle.notnull()
            assert bool(((low <= middle + 1e-9) & (middle <= high + 1e-9) | ~there).all()), name
            assert bool(((high - low > 1e-6) | ~there).all()), name  # a width, also where all are right


@pytest.fixture(scope="module")
def one_logit(tmp_path_factory):
    model = mlp(1)
    labels = (torch.arange(42) % 2).long()
    return drifting(tmp_path_factory.mktemp("one") / "r.zarr", model, halves(42), labels, loss=binary), model


def last_right(run, model):
    """Return in float64 which probes the last network has right, and their binary cross-entropy."""
    own = copy.deepcopy(model).double()
    own.load_state_dict({k: v.double() for k, v in run.state(run.checkpoints - 1).items()})
    z = own.eval()(torch.from_numpy(run.values("inputs/input")).double())[:, 0].detach().numpy()
    labels = run.coords["label"].values
    return (z > 0) == labels, np.logaddexp(0, -z * (2 * labels - 1))


@pytest.mark.parametrize("name", ROOM)
def test_one_logit_is_that_of_class_1_against_class_0(one_logit, name):
    run, model = one_logit
    found = analyses()[name](run, model=model)
    right, loss = last_right(run, model)
    assert 0 < right.mean() < 1
    pick = {"batchnorm": {"policy": "travel"}, "controls": {"kind": "drift"}, "averaging": {"average": "predictions"}}
    cell = found.sel(pick.get(name, {}))
    where = (
        {"window": 0} if name == "averaging" else {"t1": -1, "t2": -1, ("segment" if name == "rewind" else "cut"): 0}
    )
    for s in ("train", "test"):
        mine = run.coords["split"].values == s
        assert float(cell["accuracy"].isel(where).sel(set=s)) == right[mine].mean()
        if "loss" in cell:
            assert float(cell["loss"].isel(where).sel(set=s)) == pytest.approx(loss[mine].mean(), rel=1e-4)
    if "diagonal_differences" in cell:
        assert (cell["diagonal_differences"] == 0).all()


@pytest.mark.parametrize("tail", [0, 1, 4])
def test_statistics_estimated_anew_count_each_probe_once(tmp_path, tail):
    """The batch of the capture is 16: what stands behind whole ones must not weigh more, nor end it."""
    n, model = 32 + tail, mlp(norm=True)
    run = drifting(tmp_path / "r.zarr", model, ["train"] * n + ["test"] * 9, batch=16)
    found = analyses()["batchnorm"](run, model=model, cuts=("1",))
    labels, train = run.coords["label"].values, run.coords["split"].values == "train"
    inputs, last = torch.from_numpy(run.values("inputs/input")).double(), run.state(2)
    for t1 in range(3):
        first = run.state(t1)
        z = (inputs @ first["0.weight"].double().T + first["0.bias"].double()).relu()
        z = z @ last["2.weight"].double().T + last["2.bias"].double()
        variance, mean = torch.var_mean(z[train], 0)  # no BatchNorm lies before: exact whatever the batches
        y = (z - mean) / (variance + 1e-5).sqrt() * last["3.weight"].double() + last["3.bias"].double()
        logits = y.relu() @ last["5.weight"].double().T + last["5.bias"].double()
        for name, mine in (("train", train), ("test", ~train)):
            right = (logits.argmax(1).numpy() == labels)[mine].mean()
            assert float(found["accuracy"].sel(policy="reestimated", set=name)[0, t1, 0]) == right
    assert found["accuracy"].notnull().all()
    explained(found)
    explained(analyses()["averaging"](run, model=model))


def test_pooled_statistics_follow_the_law_of_total_variance():
    torch.manual_seed(0)
    layer, x = nn.BatchNorm2d(3).eval(), 1e3 + torch.randn(29, 3, 4, 5)
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    for sizes in ([29], [20, 9], [28, 1], [10, 10, 9]):
        found = reestimated(layer, state, x.split(sizes))
        values = x.double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(found["running_mean"].double(), values.mean(1), rtol=1e-6, atol=0)
        torch.testing.assert_close(found["running_var"].double(), values.var(1), rtol=1e-5, atol=0)
        assert int(found["num_batches_tracked"]) == len(sizes)
    assert all(torch.equal(state[k], v) for k, v in layer.state_dict().items())
    assert not layer.training
    with pytest.raises(OneValue), by_batch(nn.BatchNorm1d(3).eval()) as _:
        reestimated(nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3).state_dict(), [torch.randn(1, 3)])
    for n, most in ((257, 256), (7, 3), (5, 9), (1, 4)):
        parts = [len(range(n)[part]) for part in nearly_equal(n, most)]
        assert sum(parts) == n
        assert max(parts) <= most
        assert max(parts) - min(parts) <= 1


EDGES = {
    "one checkpoint": ({"checkpoints": 1}, halves(24)),
    "sets of two": ({}, ["train"] * 2 + ["test"] * 2),
    "one probe": ({}, ["train"] * 1 + ["test"] * 5),
    "no training probes": ({}, ["test"] * 9),
    "one class": ({"labels": torch.zeros(20, dtype=torch.int64)}, halves(20)),
    "nobody else of a class": ({"labels": torch.tensor([0, 1, 2, 0, 1, 2])}, halves(6)),
    "equal inputs": ({"edit": lambda x: x.copy_(x[:1].expand_as(x).clone())}, halves(12)),
    "interleaved": ({}, ["train", "test"] * 10),
    "copies": ({"coords": {"origin": np.repeat(np.arange(6), 4)}}, halves(24)),
}


LIKE_OTHERS = {"sets of two": "one probe", "copies": "test_copies_of_an_image_widen_intervals_by_their_number"}
"""Edges that are slow tests, and what asks the same of every analysis."""


@pytest.mark.parametrize("name", ROOM)
@pytest.mark.parametrize("edge", [pytest.param(e, marks=[pytest.mark.slow] * (e in LIKE_OTHERS)) for e in EDGES])
def test_no_edge_ends_an_analysis(recorded, edge, name):
    options, split = EDGES[edge]
    run, model = recorded(edge, mlp(), split, **options)
    found = analyses()[name](run, model=model)
    explained(found)
    if name == "controls" and edge == "nobody else of a class":
        same = found.sel(kind="same_class").isel(t1=0)
        assert same["accuracy"].isnull().all()
        assert (same["without_control"] == same["set_size"]).all()
        assert (
            reasons(found, "accuracy").sel(kind="same_class").isel(t1=0) == "no other image of the class moves"
        ).all()
        assert found["accuracy"].sel(kind=["drift", "isotropic", "other_class"]).notnull().all()
    if name == "batchnorm" and edge == "no training probes":
        assert found["accuracy"].sel(policy=["travel", "batch"]).notnull().all()
        anew = found["accuracy"].sel(policy="reestimated")
        assert (found["norms"] > 0).any()
        assert (anew.isnull().all(["set", "t1", "t2"]) == (found["norms"] > 0)).all()


@pytest.mark.parametrize("name", ROOM)
def test_a_dead_layer_is_a_number_or_a_reason(recorded, name):
    model = mlp(norm=False)
    with torch.no_grad():
        model[0].bias.fill_(-1e3)
    run, model = recorded("dead", model, halves(20))
    found = analyses()[name](run, model=model, **({} if name == "averaging" else {"cuts": ("all",)}))
    explained(found)
    if name == "controls":
        dead = found.sel(cut="1")
        assert (dead["zero_features"] == dead["set_size"]).all()
        assert (np.isnan(dead["motion"].isel(t2=0)[..., :-1])).all()
        assert (reasons(found, "motion").sel(cut="1").isel(t1=0) == "features are zero").all()
        assert (found["motion"].isel(t1=-1, t2=-1) == 0).all()


def test_motion_leaves_zero_features_out_and_counts_them(tmp_path):
    """Probe 3 has no features at all at the cut, at any checkpoint."""
    model = nn.Sequential(nn.Linear(6, UNITS, bias=False), nn.ReLU(), nn.Linear(UNITS, 3))
    run = drifting(tmp_path / "r.zarr", model, ["train"] * 12, edit=lambda x: x[3].zero_())
    found = analyses()["controls"](run, model=model, cuts=("1",), t2="all")
    inputs = torch.from_numpy(run.values("inputs/input")).double()
    z = np.stack([(inputs @ run.state(t)["0.weight"].double().T).relu().numpy() for t in range(3)])
    length = np.linalg.norm(z, axis=-1)
    assert (length[:, 3] == 0).all()
    for t1 in range(3):
        for t2 in range(3):
            there = length[t2] > 0
            moved = np.linalg.norm(z[t1] - z[t2], axis=1)[there] / length[t2][there]
            assert float(found["motion"][0, 0, t1, t2]) == pytest.approx(moved.mean(), rel=1e-5, abs=1e-12)
            assert int(found["zero_features"][0, 0, t1, t2]) == (~there).sum()
    np.testing.assert_array_equal(relative_change([1.0, 2.0, 0.0], [2.0, 0.0, 0.0]), [0.5, np.nan, np.nan])


def joined(inputs, states):
    """Return the logits of a network of three linear layers, each of its own state, with ReLUs between them."""
    z = inputs
    for place, state in zip((0, 2, 4), states, strict=True):
        z = (z.relu() if place else z) @ state[f"{place}.weight"].T + state[f"{place}.bias"]
    return z


@pytest.mark.parametrize("name", ROOM)
def test_logits_that_hold_nan_are_no_prediction(tmp_path, name):
    """What checkpoint 0 hands on is too large for the next layer of checkpoint 1, but where it is nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    states = [{k: v.clone() for k, v in model.state_dict().items()} for _ in range(2)]
    for state, scale in zip(states, (1e30, 1e-20), strict=True):
        state["0.bias"][:] = 0
        state["0.weight"] *= scale
        state["2.weight"] /= scale
    inputs, labels = torch.randn(40, 6), torch.arange(40) % 3
    inputs[::4] = 0
    mean = {k: ((states[0][k].double() + states[1][k]) / 2).float() for k in states[0]}
    logits = joined(inputs, [mean] * 3 if name == "averaging" else [states[0], states[1], states[1]])
    known, predicted = ~logits.isnan().any(1).numpy(), logits.argmax(1).numpy()
    own = joined(inputs, [states[1]] * 3).argmax(1).numpy()
    split = np.array(halves(40), dtype=object)
    split[np.flatnonzero(~known)[:3]] = "lost"
    probes = Probes(inputs, labels, {"split": split})
    with Recorder(model, probes, tmp_path / "r.zarr", layers=["1"], dtype="float32", gradients=False) as recorder:
        for t, state in enumerate(states):
            model.load_state_dict(state)
            recorder.record(step=t)
    found = analyses()[name](
        Run(tmp_path / "r.zarr"), model=model, **({"window": 2} if name == "averaging" else {"cuts": ("1",)})
    )
    explained(found)
    where = {"batchnorm": {"policy": "travel"}, "controls": {"kind": "drift"}}.get(name, {})
    pair = {"average": "weights", "window": 2} if name == "averaging" else {"t1": 0, "t2": 1}
    part = {"averaging": {}, "rewind": {"segment": "1"}}.get(name, {"cut": "1"})
    cell = found.sel(where | pair | part)
    right, labels = predicted == labels.numpy(), labels.numpy()
    lost = (own == labels).astype(float) - right
    for s in ("train", "test"):
        mine, there = split == s, known & (split == s)
        assert 0 < there.sum() < mine.sum()
        of_set = cell.sel(set=s)
        assert float(of_set["accuracy"]) == pytest.approx(right[there].mean())
        assert int(of_set["without_prediction"]) == (mine & ~known).sum()
        for measure, wanted in (
            ("agreement", (predicted == own)[there].mean()),
            ("drop", lost[there].mean()),
            (
                "forgetting",
                max(
                    0, (joined(inputs, [states[0]] * 3).argmax(1).numpy() == labels)[there].mean() - right[there].mean()
                ),
            ),
        ):
            if measure in of_set:
                assert float(of_set[measure]) == pytest.approx(wanted)
    assert np.isnan(float(cell["accuracy"].sel(set="lost")))
    why = reasons(found, "accuracy").sel(where | pair | part).sel(set="lost").item()
    assert why == "no probe has a prediction"
    if name in ("consistency", "averaging"):
        none = np.nan if name == "averaging" else -1
        np.testing.assert_array_equal(cell["prediction"].values, np.where(known, predicted, none))


@pytest.mark.parametrize("names", [("body", "head", "out"), ("head", "body", "out")])
def test_a_cut_called_head_leaves_segments_of_different_names(tmp_path, names):
    model = nn.Sequential()
    for name, width in zip(names, (6, 6, 3), strict=True):
        model.add_module(name, nn.Linear(6, width))
    run = drifting(tmp_path / "r.zarr", model, halves(12))
    found = analyses()["rewind"](run, model=model, t2="last")
    assert found["segment"].values.tolist() == [*names[:2], f"behind {names[1]}"]
    inputs, labels = torch.from_numpy(run.values("inputs/input")).double(), torch.arange(12) % 3
    first, last = run.state(0), run.state(2)
    for segment, back in zip(found["segment"].values, names, strict=True):
        z = inputs
        for name in names:
            state = first if name == back else last
            z = z @ state[f"{name}.weight"].double().T + state[f"{name}.bias"].double()
        right = (z.argmax(1) == labels).double()
        cell = found["accuracy"].sel(segment=segment, t1=0).isel(t2=0)
        assert cell.sel(set="train").item() == pytest.approx(right[:6].mean().item())
        assert cell.sel(set="test").item() == pytest.approx(right[6:].mean().item())


class Inverse(nn.Module):
    """Of features that may be infinite it makes finite ones."""

    def forward(self, x):
        return 1 / (1 + x.abs())


class Exponential(nn.Module):
    """Its output is infinite where its input is large."""

    def forward(self, x):
        return x.exp()


def test_one_probe_of_infinite_features_is_left_out_and_counted_everywhere(tmp_path):
    torch.manual_seed(0)
    apart = nn.Unflatten(1, (8, 1)), nn.Conv1d(8, 8, 1, groups=8, bias=False)  # a layer that mixes no features
    model = nn.Sequential(nn.Linear(6, 8), Exponential(), *apart, Inverse(), nn.Flatten(), nn.Linear(8, 3))
    run = drifting(tmp_path / "r.zarr", model, halves(40), edit=lambda x: x[25].fill_(1000), dtype="float32")
    found = analyses()["controls"](run, model=model, cuts=("2",)).sel(cut="2", set="test", t2=2)
    drift = analyses()["drift"](run, model=model, cuts=("2",)).sel(cut="2", set="test", t2=2)
    inputs = torch.from_numpy(run.values("inputs/input"))[20:]
    z = [(inputs @ run.state(t)["0.weight"].T + run.state(t)["0.bias"]).exp().double().numpy() for t in range(3)]
    finite = np.arange(20) != 5
    assert [np.isfinite(of).all(1).tolist() for of in z] == [finite.tolist()] * 3
    assert (drift["undefined"] == 1).all()
    assert (found["undefined"] == 1).all()
    assert (found["without_control"].sel(kind=["isotropic", "gaussian", "same_class", "other_class"]) == 1).all()
    assert found["accuracy"].notnull().all()
    assert (found["norm_error"] < 1e-3).all()
    z = [of[finite] for of in z]
    for t in (0, 1):
        moved = np.linalg.norm(z[t] - z[2], axis=1)
        wanted = (moved / np.linalg.norm(z[2], axis=1)).mean()
        assert float(found["motion"].sel(t1=t)) == pytest.approx(wanted, rel=1e-4)
        wanted = (moved / np.linalg.norm(z[t], axis=1)).mean()
        assert float(drift["motion"].sel(t1=t)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ROOM)
def test_another_function_of_the_same_weights_is_refused(recorded, name):
    run, _ = recorded("plain", mlp(), halves(20))
    with pytest.raises(NetworkError, match="the model is not the one recorded") as caught:
        analyses()[name](run, model=mlp(act=nn.Tanh))
    assert "\n" not in str(caught.value)
    assert not run.results(name)


@pytest.mark.parametrize("name", ROOM)
def test_the_model_is_left_as_it_was(recorded, name):
    run, model = recorded("plain", mlp(), halves(20))
    model.train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    random = torch.random.get_rng_state()
    analyses()[name](run, model=model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules())
    assert model[3].momentum == 0.1
    assert torch.equal(torch.random.get_rng_state(), random)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float16) for name in ROOM), ("batchnorm", torch.float64)]
    + [pytest.param(name, torch.float64, marks=pytest.mark.slow) for name in ROOM if name != "batchnorm"],
)
def test_networks_of_another_precision(recorded, name, dtype):
    run, model = recorded(dtype, mlp().to(dtype), halves(20), dtype="float32")
    found = analyses()[name](run, model=model)
    explained(found)
    if name == "batchnorm":
        assert (found["diagonal_differences"].sel(policy="travel") == 0).all()


# All are handed the network by one driver, which unwraps it.
@pytest.mark.parametrize("name", [ROOM[0], *(pytest.param(name, marks=pytest.mark.slow) for name in ROOM[1:])])
def test_a_compiled_model_is_the_one_inside(recorded, name):
    run, model = recorded("plain", mlp(), halves(20))
    plain = analyses()[name](run, model=model)
    found = analyses()[name](run, model=torch.compile(model, backend="eager"))
    assert found.drop_attrs().identical(plain.drop_attrs())


@pytest.mark.parametrize("name", ROOM)
def test_labels_that_losses_leave_out_take_no_part(recorded, name):
    labels = torch.arange(24) % 3
    labels[[1, 15]] = -100

    def loss(outputs, targets):
        return F.cross_entropy(outputs, targets, reduction="none", ignore_index=-100)

    run, model = recorded("left out", mlp(), halves(24), labels, loss=loss)
    found = analyses()[name](run, model=model)
    explained(found)
    assert found["set_size"].values.tolist() == [11, 11]
    if name == "consistency":
        predicted = run.values("outputs/logits")[-1].argmax(-1)
        kept = (run.coords["split"].values == "test") & (labels.numpy() >= 0)
        right = (predicted == labels.numpy())[kept].mean()
        assert float(found["accuracy"].sel(set="test")[0, -1, -1]) == right


def test_no_label_is_a_class(tmp_path):
    run = drifting(tmp_path / "r.zarr", mlp(), halves(8), torch.full((8,), -100), loss=lambda o, _: o.square().sum(1))
    for name in ROOM:
        with pytest.raises(FeatdynError, match="no probe has a label from 0 to 2"):
            analyses()[name](run, model=mlp())


def weighted(outputs, labels):
    return F.binary_cross_entropy_with_logits(
        outputs[:, 0], labels.float(), reduction="none", pos_weight=outputs.new_tensor(3.0)
    )


def squared(outputs, labels):
    return (outputs[:, 0] - labels).square()


def log_of_shares(outputs, labels):
    return F.nll_loss(outputs.log(), labels, reduction="none")


@pytest.mark.parametrize(
    ("model", "labels", "loss", "line"),
    [
        (mlp(1), torch.arange(8), squared, "its loss counts labels such as 2, which is none of 2 classes"),
        (mlp(1), torch.arange(8) % 2, squared, "its one output is no logit"),
        (mlp(1), torch.arange(8) % 2 * 2 - 1, lambda o, y: F.relu(1 - o[:, 0] * y), "labels such as -1"),
        (mlp(2), torch.arange(8), squared, "its loss counts labels such as 2, which is none of 2 classes"),
        (nn.Sequential(*mlp(), nn.Softmax(1)), torch.arange(8) % 3, log_of_shares, "outputs are probabilities, not lo"),
        (mlp(1), torch.linspace(0, 1, 8), squared, "(no integer labels, which are classes|needs labels: its probes)"),
        (mlp(1), torch.arange(8) % 2, weighted, ""),
        (mlp(1), torch.arange(8) % 2, None, ""),
    ],
)
@pytest.mark.parametrize("name", ["consistency", "rewind"])
def test_what_has_another_loss_than_that_of_classes_predicts_none(tmp_path, model, labels, loss, line, name):
    model = copy.deepcopy(model)
    run = drifting(tmp_path / "r.zarr", model, halves(8), labels, loss=loss)
    if line:
        with pytest.raises(FeatdynError, match=line):
            analyses()[name](run, model=model)
    else:
        assert analyses()[name](run, model=model)["accuracy"].notnull().any()


def test_copies_of_an_image_widen_intervals_by_their_number(tmp_path):
    """Four equal copies tell as much as one: intervals are those of a quarter of the probes."""

    def same(x):
        x.copy_(x[::4].repeat_interleave(4, 0))

    labels, model = torch.arange(96) // 4 % 3, mlp()
    origin = {"coords": {"origin": np.arange(96) // 4}}
    run = drifting(tmp_path / "r.zarr", model, ["train"] * 96, labels, edit=same, **origin)
    for name in ROOM:
        found = analyses()[name](run, model=model)
        widths = found["accuracy_high"] - found["accuracy_low"] if "accuracy_low" in found else None
        if widths is None:  # the drift against itself: no difference among 24 images, Tango's limits
            widths = (found["advantage_high"] - found["advantage_low"]).sel(kind="drift")
            assert float(widths.min()) >= 2 * 1.959964**2 / (24 + 1.959964**2) * 0.999
            continue
        p = found["accuracy"]
        for n, wider in ((96, True), (24, False)):
            z2 = 1.959963984540054**2
            wilson = 2 * np.sqrt(z2) / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
            within = (p > 0) & (p < 1)
            assert bool((widths > 1.3 * wilson).where(within, True).all()) if wider else True
            assert bool((widths >= wilson * 0.999).where(within, True).all())


def test_integer_buffers_stay_those_of_the_last_checkpoint(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.c = nn.Linear(6, UNITS), nn.Linear(UNITS, 3)
            self.register_buffer("kind", torch.tensor([True, False]))
            self.register_buffer("turns", torch.tensor(7))

        def forward(self, x):
            return self.c(self.a(x).relu()) * self.turns

    model = Net()
    run = drifting(tmp_path / "r.zarr", model, halves(20))
    found = analyses()["averaging"](run, model=model)
    states, inputs = [run.state(t) for t in range(3)], torch.from_numpy(run.values("inputs/input")).double()
    for window in (1, 2, 3):
        w = {
            k: torch.stack([s[k].double() for s in states[-window:]]).mean(0)
            for k in ("a.weight", "a.bias", "c.weight", "c.bias")
        }
        logits = 7 * ((inputs @ w["a.weight"].T + w["a.bias"]).relu() @ w["c.weight"].T + w["c.bias"])
        assert (found["prediction"].sel(average="weights", window=window).values == logits.argmax(1).numpy()).all()


class TestReuse:
    """An earlier result is kept only where it is of the same version, options, network, store and probes."""

    def run(self, tmp_path, checkpoints=2):
        model = mlp(norm=False)
        return drifting(tmp_path / "r.zarr", model, halves(12), checkpoints=checkpoints), model

    def poisoned(self, run, model, **options):
        """Commit a result whose predictions are all 2, so that what is kept shows."""
        found = analyses()["consistency"](run, model=model, **options)
        found["prediction"][:] = 2
        with RunWriter.open(run.place) as writer:
            writer.result("consistency", found)
        return Run(run.path), found

    def kept(self, found):
        return bool((found["prediction"][:, :2, :2] == 2).all())

    def test_the_same_question_keeps_it_and_fresh_does_not(self, tmp_path):
        run, model = self.run(tmp_path)
        run, _ = self.poisoned(run, model)
        consistency = analyses()["consistency"]
        assert self.kept(consistency(run, model=model))
        assert self.kept(consistency(run, model=model, window=1.0))  # no cell depends on it
        assert not self.kept(consistency(run, model=model, fresh=True))
        assert not self.kept(consistency(run, model=model, cuts=("all",)))

    def test_the_right_model_after_a_wrong_one(self, tmp_path, monkeypatch):
        from featdyn.analysis.inputs import stitchable

        run, model = self.run(tmp_path)
        wrong = mlp(norm=False, act=nn.Tanh)
        with monkeypatch.context() as patch:
            patch.setattr(stitchable, "refuse_other_function", lambda *_: None)
            run, _ = self.poisoned(run, wrong)
        found = analyses()["consistency"](run, model=model)
        assert not self.kept(found)
        assert (found["diagonal_differences"] == 0).all()

    def test_another_version_keeps_nothing(self, tmp_path):
        from dataclasses import replace

        run, model = self.run(tmp_path)
        run, _ = self.poisoned(run, model)
        consistency = analyses()["consistency"]
        assert not self.kept(replace(consistency, version=consistency.version + 1)(run, model=model))

    def test_another_checkpoint_costs_what_is_new(self, tmp_path):
        run, model = self.run(tmp_path)
        run, _ = self.poisoned(run, model)
        inputs, labels = (torch.from_numpy(run.values(f"inputs/{name}")) for name in ("input", "target"))
        coords = {"split": run.coords["split"].values}
        with Recorder(model, Probes(inputs, labels, coords), run.path, layers=["*"], gradients=False) as recorder:
            recorder.record(step=20)
        grown = Run(run.path)
        found = analyses()["consistency"](grown, model=model)
        assert self.kept(found)
        fresh = analyses()["consistency"](grown, model=model, fresh=True)
        np.testing.assert_array_equal(found["prediction"][:, 2], fresh["prediction"][:, 2])
        np.testing.assert_array_equal(found["prediction"][:, :, 2], fresh["prediction"][:, :, 2])

    def test_other_probes_keep_nothing(self, tmp_path):
        run, model = self.run(tmp_path / "a")
        _, found = self.poisoned(run, model)
        other, _ = drifting(tmp_path / "b.zarr", mlp(norm=False), halves(12), checkpoints=2, seed=1), None
        with RunWriter.open(other.place) as writer:
            writer.result("consistency", found)
        assert not self.kept(analyses()["consistency"](Run(other.path), model=model))
