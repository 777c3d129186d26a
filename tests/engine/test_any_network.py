"""Analyses of networks that nothing traces, that are wrapped, or that are not known at all."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from featdyn import analyze
from featdyn.capture import Probes, Recorder
from featdyn.capture.again import run_again
from featdyn.errors import FeatdynError, NetworkError
from featdyn.networks import unwrap
from featdyn.store import Run
from tests.engine.test_ways import Branching, Texts, moved

N = 24
BEFORE = {
    "branching": {"layers.0": ("layers.0.",), "layers.1": ("layers.0.", "layers.1.")},
    "masked texts": {"layers.0": ("words.", "places.", "layers.0.")},
}


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if name == "branching":
        return Branching(), torch.randn(N, 6)
    return Texts(masked=True), torch.randint(1, 13, (N, 6)) * (torch.rand(N, 6) < 0.8)


def record(path, model: nn.Module, inputs: torch.Tensor, sets=("fit", "held out"), **options) -> Run:
    """Record three checkpoints that differ in all weights and buffers."""
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, len(inputs)))
    split = np.repeat(np.array(sets, dtype=object), len(inputs) // 2)
    probes = Probes(inputs, labels, {"split": split})
    live = copy.deepcopy(model)
    given = {"layers": ["default"], "dtype": "float32", "gradients": False, "batch": 7, **options}
    with Recorder(live, probes, path, coords=("learning_rate",), **given) as recorder:
        for t in range(3):
            live.load_state_dict(moved(model, t).state_dict())
            recorder.record(step=10 * t, learning_rate=0.1)
    return Run(path)


@pytest.fixture(scope="module", params=BEFORE)
def recorded(request, tmp_path_factory):
    model, inputs = network(request.param)
    return request.param, model, inputs, record(tmp_path_factory.mktemp("runs") / "r.zarr", model, inputs)


def mixed(run: Run, model: nn.Module, inputs: torch.Tensor, early: tuple[str, ...]) -> np.ndarray:
    """Return the classes (t1, t2, probe) of mixed state dicts, in the recorded batches."""
    model, found = copy.deepcopy(model).eval(), np.zeros((3, 3, N), int)
    for t1, t2 in np.ndindex(3, 3):
        one, other = run.state(t1), run.state(t2)
        state = {key: (one if key.startswith(early) else other)[key] for key in other}
        with torch.no_grad():
            logits = [functional_call(model, state, (part,)) for part in inputs.split(7)]
        found[t1, t2] = torch.cat(logits).argmax(1).numpy()
    return found


def test_composites_are_those_of_mixed_state_dicts(recorded):
    name, model, inputs, run = recorded
    result = analyze(run, "consistency", model=model, cuts=list(BEFORE[name]), features="recomputed")
    assert result.attrs["cut_method"].startswith("forward hooks")
    assert "cut_difference" not in result.attrs
    assert result["diagonal_differences"].values.tolist() == [0] * len(BEFORE[name])
    for cut, early in BEFORE[name].items():
        np.testing.assert_array_equal(result["prediction"].sel(cut=cut), mixed(run, model, inputs, early))
    if name == "masked texts":  # whose layers return dicts, which are not recorded
        return
    read = analyze(run, "consistency", model=model, cuts=["layers.0"], features="stored")
    np.testing.assert_array_equal(read["prediction"][0], result["prediction"].sel(cut="layers.0"))


@pytest.mark.parametrize("analysis", ["rewind", "controls", "batchnorm", "averaging", "drift", "density"])
def test_every_analysis_takes_them(recorded, analysis):
    name, model, inputs, run = recorded
    result = analyze(run, analysis, model=model)
    if analysis == "rewind":
        early, last = "layers.0.", run.checkpoints - 1
        back = mixed(run, model, inputs, ("words.", "places.", early))
        first = str(result["segment"].values[0])
        if first == "layers.0":
            labels = run.coords["label"].values
            mine = run.coords["split"].values == "fit"
            right = [(back[t1, last] == labels)[mine].mean() for t1 in range(3)]
            np.testing.assert_array_equal(result["accuracy"].sel(segment=first, set="fit").values[:, -1], right)
    if analysis == "batchnorm":
        norms = {"branching": [2, 1], "masked texts": [0, 0]}
        assert (
            result["norms"].sel(cut=["layers.0", "layers.1"]).values.tolist() == norms[name]
            if "layers.0" in result["cut"]
            else True
        )


def test_the_network_stays_as_it_was(recorded):
    _, model, _, run = recorded
    model = copy.deepcopy(model).train()
    model.head.weight.requires_grad_(False)
    next(model.layers.children()).eval()
    before = copy.deepcopy(model)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    analyze(run, "consistency", model=model, fresh=True)
    assert torch.equal(torch.rand(3), wanted)
    for one, other in zip(model.modules(), before.modules(), strict=True):
        assert one.training == other.training
        assert type(one).__name__ == type(other).__name__
        assert vars(one).keys() == vars(other).keys()
    for (name, one), (_, other) in zip(
        model.state_dict(keep_vars=True).items(), before.state_dict(keep_vars=True).items(), strict=True
    ):
        assert torch.equal(one, other), name
        assert one.requires_grad == other.requires_grad
        assert one.grad is None
        assert one.device == other.device


def test_wrappers_do_not_show(recorded, tmp_path):
    name, model, inputs, run = recorded
    wrapped = torch.optim.swa_utils.AveragedModel(nn.DataParallel(torch.compile(model)))
    assert type(unwrap(wrapped)) is type(model)
    assert unwrap(wrapped).state_dict().keys() == model.state_dict().keys()
    compiled = copy.deepcopy(model)
    compiled.compile()
    assert unwrap(compiled) is compiled
    again = record(tmp_path / "r.zarr", wrapped.module, inputs)
    assert again.layers == run.layers
    assert again.state(0).keys() == run.state(0).keys()
    for each in (wrapped, compiled):
        found = analyze(run, "consistency", model=each, cuts=["layers.0"], fresh=True)
        np.testing.assert_array_equal(found["prediction"][0], mixed(run, model, inputs, BEFORE[name]["layers.0"]))


# Without a network.


@pytest.mark.parametrize("analysis", ["drift", "density"])
def test_features_need_no_network(recorded, analysis):
    _, model, _, run = recorded
    alone = analyze(run, analysis)
    assert alone["cut"].values.tolist() == run.layers
    assert alone.attrs["cut_method"].startswith(
        "not at all, layers stand as they were recorded; the network was not given"
    )
    known = analyze(run, analysis, model=model, cuts=run.layers, features="stored")
    for name, variable in known.data_vars.items():
        if "distance" in name or "prefix" in name or "suffix" in name:
            continue
        np.testing.assert_array_equal(alone[name].values, variable.values, err_msg=name)
    if analysis == "drift":
        assert alone["prefix_distance"].isnull().all()
        assert "the_network_is_not_taken_apart" in alone["prefix_status"].attrs["flag_meanings"]


def test_what_was_recorded_can_be_asked_for_where_it_is_no_cut(recorded, tmp_path):
    _, model, inputs, _ = recorded
    inner = next(name for name, _ in model.named_modules() if name in ("layers.1.linear", "layers.1.qkv"))
    run = record(tmp_path / "r.zarr", model, inputs, layers=[inner])
    found = analyze(run, "drift", model=model, cuts=[inner])
    assert found["cut"].values.tolist() == [inner]
    assert f"no cut '{inner}'" in found.attrs["cut_method"]
    with pytest.raises(NetworkError, match=f"no cut '{inner}'"):
        analyze(run, "consistency", model=model, cuts=[inner])


# Roles and training data of the user's own.


def test_roles_are_given_to_sets_of_any_name(recorded):
    _, model, _, run = recorded
    without = analyze(run, "drift", model=model)
    assert without["linear_accuracy"].isnull().all()
    assert "no_training_probes" in without["linear_status"].attrs["flag_meanings"]
    told = analyze(run, "drift", model=model, train="fit", test="held out")
    assert told["linear_accuracy"].notnull().all()
    assert told.attrs["cka_set"] == "held out"
    with pytest.raises(FeatdynError, match="train='traning' is no set of probes; there are fit, held out"):
        analyze(run, "drift", model=model, train="traning")


def squares(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (outputs - F.one_hot(labels, outputs.shape[1])).square().sum(1)


def test_noise_takes_the_user_s_network_loss_and_loader(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    inputs, labels = torch.randn(N, 6), torch.randint(0, 3, (N,))
    run = record(tmp_path / "r.zarr", model, inputs)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, labels), batch_size=8)
    how = {"cuts": ["1"], "draws": 6, "probes": 2, "keep": "raw", "test": "held out"}
    found = analyze(run, "noise", model=model, batches=loader, loss=squares, **how)
    assert found.attrs["batch_size"] == 8
    assert found.attrs["samples"] == N
    assert found.attrs["training_data"] == "batches that were given"
    assert found["rate"].values.tolist() == [0.1] * 3
    at = copy.deepcopy(model)
    for t in range(3):
        at.load_state_dict(run.state(t))
        gradient = torch.autograd.grad(squares(at(inputs).double(), labels).mean(), list(at.parameters())[:2])
        length = torch.cat([g.flatten() for g in gradient]).norm()
        np.testing.assert_allclose(found["gradient_norm"][0, t], length.item(), rtol=1e-5)
    assert analyze(run.path, "isotropy").sizes["t"] == 3
    with pytest.raises(FeatdynError, match="model=model, batches=loader"):
        analyze(run, "noise", model=model)
    with pytest.raises(FeatdynError, match="drift needs no training data"):
        analyze(run, "drift", model=model, batches=loader)
    with pytest.raises(FeatdynError, match=r"batches must give pairs \(inputs, labels\), got Tensor"):
        analyze(run, "noise", model=model, batches=[inputs])
    with pytest.raises(FeatdynError, match="leave its mean out"):
        analyze(run, "noise", model=model, batches=loader, loss=F.cross_entropy)


class Twofold(nn.Module):
    """Two answers, and a way to be asked that is not its forward function."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.other = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.tanh(self.body(x))
        return self.one(z), self.other(z)

    def ask(self, x: torch.Tensor, sign: float) -> torch.Tensor:
        return sign * self.other(torch.sin(self.body(x)))


def second(outputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return outputs[1]


def negative(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model.ask(x, -1.0)


@pytest.mark.parametrize(
    ("asked", "named", "of"),
    [({"output": 1}, {}, second), ({"output": second}, {"output": second}, second),
     ({"forward": negative}, {"forward": negative}, None)],
    ids=["place", "function", "forward"],
)  # fmt: skip
def test_a_network_is_asked_as_it_was_recorded(tmp_path, asked, named, of):
    torch.manual_seed(0)
    model, inputs, labels = Twofold(), torch.randn(N, 6), torch.arange(N) % 3
    live = copy.deepcopy(model)
    probes = Probes(inputs, labels, {"split": np.repeat(np.array(["train", "test"], dtype=object), N // 2)})
    with Recorder(live, probes, tmp_path / "r.zarr", layers=["body"], dtype="float32", **asked) as recorder:
        for t in range(3):
            live.load_state_dict(moved(model, t).state_dict())
            recorder.record(step=t)
    run, exact = Run(tmp_path / "r.zarr"), copy.deepcopy(model).double()
    found = analyze(run, "consistency", model=model, cuts=["body"], **named)
    assert (found["apart"] == 0).all()
    for t1, t2 in np.ndindex(3, 3):
        early = {key: value for key, value in run.state(t1).items() if key.startswith("body")}
        exact.load_state_dict({**run.state(t2), **early})
        logits = negative(exact, inputs.double()) if of is None else of(exact(inputs.double()))
        np.testing.assert_array_equal(found["prediction"].isel(cut=0, t1=t1, t2=t2), logits.argmax(1))
    assert analyze(run, "averaging", model=model, **named)["loss"].notnull().any()
    if named:
        with pytest.raises(FeatdynError, match=r"recorded with a function as .*give .*= as it was given") as said:
            analyze(run, "consistency", model=model)
        assert "\n" not in str(said.value)
        with pytest.raises(FeatdynError, match="recorded with a function as"):
            run_again(model, probes, run.path)
    assert all(each.equal for each in run_again(model, probes, run.path, **named)[2])


class Clamped(nn.Sequential):
    """Large inputs are made smaller, which few probes show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.clamp(max=4.0))


@pytest.mark.parametrize("analysis", ["rewind", "controls", "batchnorm"])
def test_halves_that_are_traced_are_compared_on_all_probes_too(tmp_path, analysis):
    torch.manual_seed(0)
    layers = nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)
    inputs = torch.randn(N, 6).clamp(-3, 3)
    inputs[20] = 40.0  # in the third batch of seven
    run = record(tmp_path / "r.zarr", Clamped(*layers), inputs, sets=("train", "test"))
    analyze(run, analysis, model=Clamped(*layers))
    with pytest.raises(NetworkError, match=r"for 3 of 3 checkpoints it gives other outputs \(of checkpoint 0 for 1 "):
        analyze(run, analysis, model=nn.Sequential(*layers))


def test_tied_weights_are_one_tensor_at_every_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 6, bias=False), nn.Linear(6, 3))
    model[2].weight = model[0].weight
    inputs = torch.randn(N, 6)
    run = record(tmp_path / "r.zarr", model, inputs)
    found = analyze(run, "consistency", model=model, cuts=["1"])
    early, late = (copy.deepcopy(model).double() for _ in range(2))
    early.load_state_dict(run.state(0))
    late.load_state_dict(run.state(2))
    with torch.no_grad():
        wanted = late[2:](early[:2](inputs.double())).argmax(1)
    np.testing.assert_array_equal(found["prediction"].isel(cut=0, t1=0, t2=2), wanted)
