"""Networks as people write them: hooks, forward functions of their own, constants, masks, settings around them."""

from __future__ import annotations

import types
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featdyn import analyze
from featdyn.analysis.code import code_of
from featdyn.analysis.composites.batchnorm_statistics import by_batch, reestimated
from featdyn.analysis.composites.state import composite_state
from featdyn.analysis.inputs.weights import States
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError, NetworkError, StoreError
from featdyn.store import Run

N, SPLIT = 40, np.array(["train"] * 20 + ["test"] * 20, dtype=object)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def probes(dtype: torch.dtype = torch.float32, split: Any = SPLIT) -> Probes:
    random = np.random.default_rng(0)
    inputs = torch.tensor(random.normal(size=(N, 6))).to(dtype)
    return Probes(inputs, torch.tensor(random.integers(0, 3, N)), {"split": split})


def record(path, model: nn.Module, given: Probes, steps: int = 2, **options: Any) -> Run:
    random = torch.Generator().manual_seed(1)
    with Recorder(model, given, path, **{"layers": ["1"], "dtype": "float32", **options}) as recorder:
        for step in range(steps):
            recorder.record(step=step)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.3 * torch.randn(parameter.shape, generator=random).to(parameter.dtype)
    return Run(path)


def composites(run: Run, model: nn.Module, inputs: torch.Tensor, behind: int) -> np.ndarray[Any, Any]:
    """Return the classes ``(t1, t2, probe)`` of all pairs, from plain modules in float64."""

    def at(t: int) -> Any:
        found = deepcopy(model).double()
        found.load_state_dict(run.state(t))
        return found.eval()

    with torch.no_grad():
        halves = [at(t)[:behind](inputs.double()) for t in range(run.checkpoints)]
        return np.array([[at(t)[behind:](z).argmax(1).numpy() for t in range(run.checkpoints)] for z in halves])


def test_a_layer_with_a_forward_function_of_its_own_runs_it(tmp_path):
    model, given = mlp(), probes()
    model[2].forward = types.MethodType(lambda self, x: F.linear(x, 2 * self.weight, self.bias), model[2])
    run = record(tmp_path / "r.zarr", model, given)
    found = analyze(run, "consistency", model=model, cuts=["1"])
    np.testing.assert_array_equal(found["prediction"][0], composites(run, model, given.inputs, 2))


HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "behind": lambda layer: layer.register_forward_hook(lambda module, args, out: 2 * out),
    "before": lambda layer: layer.register_forward_pre_hook(lambda module, args: (2 * args[0],)),
}


@pytest.mark.parametrize("where", HOOKS)
@pytest.mark.parametrize("analysis", ["consistency", "drift", "averaging"])
def test_hooks_that_change_outputs_are_refused_and_others_are_not_missed(tmp_path, analysis, where):
    model, given = mlp(), probes()
    handle = HOOKS[where](model[2])
    run = record(tmp_path / "r.zarr", model, given)
    with pytest.raises(NetworkError, match=r"without its hooks differ.*write what they do into its forward function"):
        analyze(run, analysis, model=model)
    handle.remove()
    seen: list[int] = []
    model = mlp()
    model[2].register_forward_hook(lambda module, args, out: seen.append(1))
    run = record(tmp_path / "s.zarr", model, given)
    before = len(seen)
    analyze(run, analysis, model=model)
    assert len(seen) == before


class Viewed(nn.Module):
    """Maps seen as one row of numbers, which they are in one memory format only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(2, 4, 2), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.conv(x)
        return self.last(z.view(len(z), -1))


def test_a_network_keeps_the_memory_format_that_it_is_given_in(tmp_path):
    x = torch.randn(N, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    given = Probes(x, torch.arange(N) % 3, {"split": SPLIT})
    run = record(tmp_path / "r.zarr", Viewed(), given, layers=["conv"])
    found = analyze(run, "consistency", model=Viewed(), cuts=["conv"])
    nets = [Viewed().double() for _ in range(run.checkpoints)]
    for t, net in enumerate(nets):
        net.load_state_dict(run.state(t))
    maps = [net.conv(x.double()).flatten(1) for net in nets]
    expected = [[net.last(z).argmax(1).tolist() for net in nets] for z in maps]
    np.testing.assert_array_equal(found["prediction"][0], expected)


@pytest.mark.parametrize("tied", [False, True])
def test_weights_under_two_names_on_both_sides_of_a_cut_are_of_one_checkpoint(tmp_path, tied):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    if tied:
        model[2].weight = model[0].weight
    run = record(tmp_path / "r.zarr", model, probes())
    assert torch.equal(composite_state(run, ["1"], [1, 1], model)["2.weight"], run.state(1)["2.weight"])
    held = States(run, model)[1]
    assert (held["0.weight"] is held["2.weight"]) == tied
    if tied:
        with pytest.raises(FeatdynError, match="weight is used on both sides of a cut: no one state dict holds it"):
            composite_state(run, ["1"], [0, 1], model)
    else:
        found = composite_state(run, ["1"], [0, 1], model)
        assert all(torch.equal(found[name], run.state(t)[name]) for t, name in ((0, "0.weight"), (1, "2.weight")))


class Capped(nn.Module):
    def __init__(self, cap: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cap, self.first, self.last = cap, nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.clamp(self.first(x), -self.cap, self.cap))


def test_another_constant_is_another_network_at_whichever_checkpoint_it_shows(tmp_path):
    model, given = Capped(100.0), probes()
    with Recorder(model, given, tmp_path / "r.zarr", layers=["first"], dtype="float32") as recorder:
        for step, scale in enumerate((50.0, 1.0)):
            with torch.no_grad():
                model.first.weight.mul_(scale if step == 0 else 1 / 50)
            recorder.record(step=step)
    with pytest.raises(NetworkError, match="with the weights of checkpoint 0 its outputs differ"):
        analyze(Run(tmp_path / "r.zarr"), "consistency", model=Capped(5.0))
    assert code_of(Capped(5.0)) != code_of(Capped(100.0))
    assert code_of(Capped(100.0)) == code_of(model)


def scaled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def scaled_else(x: torch.Tensor) -> torch.Tensor:
    return 3 * x


def variant(what: str, number: int) -> nn.Module:
    """Return a network that differs from its sister in one thing that no weight and no type name shows."""
    enclosed, default = (number if what == each else 0 for each in ("enclosed", "default"))

    class Net(nn.Module):
        def __init__(self, what: str, number: int) -> None:  # what is enclosed here would be seen in any case
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.numbers = {"list": [1, number], "set": {number}} if what == "attribute" else None
            self._private = number if what == "private" else 0
            self.function = (lambda x: number * x) if what == "lambda" else None
            self.table = torch.arange(3) * number if what == "tensor" else None
            self.helper = (scaled if number == 2 else scaled_else) if what == "function" else None
            self.register_buffer("mask", torch.full((2,), float(number if what == "buffer" else 0)), persistent=False)

        def forward(self, x: torch.Tensor, by: int = default) -> torch.Tensor:
            return self.layer(x) * (enclosed + by)

    return Net(what, number)


def calling(scale: int = 1, factor: int = 2, helper: str = "mine.net") -> nn.Module:
    """Return a network whose forward function calls one of a module, and reads a number, by their names."""
    names: dict[str, Any] = {"__name__": "mine.net", "nn": nn}
    exec(
        f"SCALE = {scale}\ndef helper(x):\n    return x * {factor}\n"
        "class Net(nn.Module):\n    def forward(self, x):\n        return helper(x) * SCALE\n",
        names,
    )
    names["helper"].__module__ = helper
    found: nn.Module = names["Net"]()
    return found


def test_what_forward_calls_is_seen_where_it_is_of_the_same_package():
    assert code_of(calling()) == code_of(calling())
    assert code_of(calling(scale=2)) != code_of(calling())
    for module, seen in (("mine.net", True), ("mine.other", True), ("elsewhere.net", False)):
        assert (code_of(calling(factor=3, helper=module)) != code_of(calling(helper=module))) == seen


@pytest.mark.parametrize(
    "what", ["attribute", "private", "lambda", "tensor", "function", "buffer", "default", "enclosed"]
)
def test_what_a_network_computes_besides_its_weights_is_seen(what):
    assert code_of(variant(what, 2)) == code_of(variant(what, 2))
    assert code_of(variant(what, 2)) != code_of(variant(what, 3))
    watched, plain = variant(what, 2).eval(), variant(what, 2)
    watched.register_forward_hook(lambda *_: None)  # neither hooks nor mode are of the function
    assert code_of(watched) == code_of(plain)


class NormAct(nn.BatchNorm1d):
    """Norm and activation in one, as model libraries have it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        given = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.relu(F.batch_norm(input, *given, self.training, 0.1, self.eps))


class Normed(nn.Module):
    def __init__(self, own: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.start, self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = (NormAct if own else nn.BatchNorm1d)(8)
        self.own = own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.norm(input=self.first(self.start(x)))  # by keyword, as some write
        return self.last(z if self.own else F.relu(z))


@pytest.mark.parametrize("own", [False, True])
def test_batch_statistics_with_a_norm_of_ones_own(own):
    model, x = Normed(own).eval(), torch.randn(30, 6, generator=torch.Generator().manual_seed(3))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.inference_mode(), by_batch(model):
        found = model(x)
    trained = deepcopy(model).train()
    torch.testing.assert_close(found, trained(x), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(part.training for part in model.modules())
    z = model.first(model.start(x)).double()
    new = reestimated(model, before, [x[:15], x[15:]])
    torch.testing.assert_close(new["norm.running_mean"].double(), z.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(new["norm.running_var"].double(), z.var(0), rtol=1e-5, atol=1e-6)


def test_analyses_of_batchnorm_see_a_norm_of_ones_own(tmp_path):
    found = {}
    for own in (False, True):
        model = Normed(own)
        run = record(tmp_path / f"{own}.zarr", model, probes(), layers=["start"])
        both = analyze(run, "averaging", model=model), analyze(run, "batchnorm", model=model, cuts=["start"])
        found[own] = both[0]["loss"].values, both[1]["accuracy"].values, both[1]["norms"].values
    for plain, mine in zip(found[False], found[True], strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-5)
    assert found[True][2].tolist() == [1]


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.last = nn.Linear(6, 12), nn.Linear(12, 3)
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x).view(-1, 3, 4)
        return self.last((h + (h @ h.transpose(1, 2) + self.mask).softmax(-1) @ h).flatten(1))


def test_averages_of_networks_with_a_mask_of_infinities(tmp_path):
    model, given = Causal(), probes()
    run = record(tmp_path / "r.zarr", model, given, 3, layers=["embed"])
    found = analyze(run, "averaging", model=model).sel(average="weights")
    for window in (1, 2, 3):
        states = [run.state(t) for t in range(3 - window, 3)]
        mean = {k: v if k == "mask" else sum(s[k].double() for s in states) / window for k, v in states[0].items()}
        net = deepcopy(model).double()
        net.load_state_dict(mean)
        logits = net(given.inputs.double())
        assert (found["prediction"].sel(window=window).values == logits.argmax(1).numpy()).all()
        for name in ("train", "test"):
            mine = torch.tensor(name == SPLIT)
            loss = F.cross_entropy(logits[mine], given.labels[mine]).item()
            assert found["loss"].sel(set=name, window=window).item() == pytest.approx(loss, rel=1e-5)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.register_buffer("gate", torch.tensor(torch.inf))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x / self.gate + x)


def test_predictions_of_networks_that_are_none_are_missing(tmp_path):
    model = Normed(False)
    run = record(tmp_path / "r.zarr", model, probes(split=np.array(["test"] * N, dtype=object)), layers=["first"])
    found = analyze(run, "averaging", model=model)
    assert found["prediction"].sel(average="weights").isnull().all()
    status = found["prediction_status"]
    assert status.attrs["flag_meanings"].split()[status.sel(average="weights").values.max()] == "no_training_probes"
    assert found["prediction"].sel(average="predictions").notnull().all()
    model = Gated()
    with Recorder(model, probes(), tmp_path / "s.zarr", layers=["last"], dtype="float32") as recorder:
        for step in range(2):
            recorder.record(step=step)
            model.gate *= -1
    found = analyze(Run(tmp_path / "s.zarr"), "averaging", model=model)  # the mean of the two gates is no number
    assert found["prediction"].isnull().values.any(-1).tolist() == [[False, True], [False, False]]
    for of in ("accuracy", "loss", "prediction"):
        cells = found[of].sel(average="weights", window=2)
        assert cells.isnull().all()
        codes = found[found[of].attrs["ancillary_variables"]]
        assert (codes.sel(average="weights", window=2).values > 0).all()
        assert codes.attrs["flag_meanings"].split()[-1] in ("not_finite", "no_probe_has_a_prediction")


@pytest.mark.parametrize(
    "setting", ["autocast", *(pytest.param(s, marks=pytest.mark.slow) for s in ("dtype", "device", "precision"))]
)
def test_numbers_are_those_of_a_fresh_process(tmp_path, setting):
    model = mlp()
    run = record(tmp_path / "r.zarr", model, probes())
    asked = {"consistency": "loss", "controls": "accuracy", "drift": "motion"}
    right = {name: analyze(run, name, model=model, fresh=True, cuts=["1"])[of].values for name, of in asked.items()}
    try:
        if setting == "dtype":
            torch.set_default_dtype(torch.float64)
        if setting == "device":
            torch.set_default_device("meta")
        if setting == "precision":
            torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "autocast"):
            for name, of in asked.items():
                found = analyze(run, name, model=model, fresh=True, cuts=["1"])
                np.testing.assert_array_equal(found[of].values, right[name], err_msg=name)
        assert setting != "dtype" or torch.get_default_dtype() == torch.float64
        assert setting != "precision" or torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_float32_matmul_precision("highest")


ALL = ("consistency", "drift", "density", "batchnorm", "controls", "rewind", "averaging", "spectra", "layer_isotropy")


def test_a_bfloat16_network_can_be_asked_everything(tmp_path):
    model, given = mlp().bfloat16(), probes(torch.bfloat16)
    run = record(tmp_path / "r.zarr", model, given)
    for name in ALL:
        network = {} if name in ("spectra", "layer_isotropy") else {"model": model}
        found = analyze(run, name, **network)
        if name == "consistency":
            plain = [torch.tensor(run.block("outputs/logits", t, 0)).argmax(1).numpy() for t in range(2)]
            mine = found["prediction"][0].values[[0, 1], [0, 1]]
            assert (mine == np.array(plain)).mean() > 0.9  # ties of eight bits fall either way


@pytest.mark.parametrize("kind", [int, bool])
def test_sets_may_be_called_by_numbers(tmp_path, kind):
    run = record(tmp_path / "r.zarr", mlp(), probes(split=np.arange(N) % 2 == 1 if kind is bool else np.arange(N) % 2))
    names = ["False", "True"] if kind is bool else ["0", "1"]
    for name in ("spectra", "consistency"):
        found = analyze(run, name, **({} if name == "spectra" else {"model": mlp()}))
        assert found["set"].values.tolist() == names
        assert found["set_size"].values.tolist() == [N // 2, N // 2]


def test_a_layer_whose_name_is_a_path_is_refused_at_once(tmp_path):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.last = nn.ModuleDict({"a/b": nn.Linear(6, 6)}), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.part["a/b"](x))

    with pytest.raises(StoreError, match=r"layer 'part.a/b' cannot be stored"):
        record(tmp_path / "r.zarr", Odd(), probes(), layers=["part.*"])
    assert not (tmp_path / "r.zarr").exists()


def test_why_there_is_no_linear_probe_is_true(tmp_path):
    model = mlp()
    run = record(tmp_path / "r.zarr", model, probes())
    found = analyze(run, "drift", model=model, sets=["test"])
    assert found["linear_status"].attrs["flag_meanings"] == "computed training_probes_are_not_among_the_sets"
    assert found.attrs["linear_labels"] == "label"


def test_a_result_says_of_each_cell_why_it_is_missing_whatever_it_is_called(tmp_path):
    import xarray as xr

    from featdyn.analysis import Analysis, Variable
    from featdyn.validation import Options

    run = record(tmp_path / "r.zarr", mlp(), probes())

    def ask(variables: dict[str, Any], found: dict[str, Any]) -> xr.Dataset:
        return analyze(run, Analysis("odd", "q", "s", Options, variables, lambda context: xr.Dataset(found)))

    odd = ask(
        {"v": Variable("t", "x"), "v_status": Variable("t", "a number")},
        {"v": ("t", [1.0, np.nan]), "v_status": ("t", [7.0, 8.0])},
    )
    assert odd["v_status"].values.tolist() == [7.0, 8.0]
    assert odd[odd["v"].attrs["ancillary_variables"]].values.tolist() == [0, 1]
    odd = ask({"v": Variable("t", "x")}, {"v": ("t", np.array([1j, np.nan]))})
    assert odd[odd["v"].attrs["ancillary_variables"]].values.tolist() == [0, 1]
    flags = {"flag_values": [0, 1], "flag_meanings": "computed not"}
    with pytest.raises(ValueError, match="st has dimensions"):
        ask(
            {"v": Variable("t", "x", status="st")},
            {"v": ("t", [1.0, np.nan]), "st": (("t", "u"), np.array([[0, 1], [0, 1]], np.int8), flags)},
        )


def loader() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of a training, as ``--batches`` finds them."""
    given = probes()
    return [(given.inputs[i : i + 8], given.labels[i : i + 8]) for i in range(0, 24, 8)]


def test_the_command_line_takes_a_network_and_its_training_by_name(tmp_path, featdyn):
    run = record(tmp_path / "r.zarr", mlp(), probes(), steps=3)
    expected = analyze(Run(run.path), "consistency", model=mlp(), cuts=["1"])
    here = __name__
    code, out, err = featdyn("analyze", run.path, "consistency", "--cuts", "1", "--model", f"{here}:mlp", "--fresh")
    assert code == 0, err
    assert "committed" in out + err
    np.testing.assert_array_equal(Run(run.path).result("consistency")["prediction"], expected["prediction"])
    asked = ["--draws", "4", "--probes", "2", "--cuts", "1", "--rate", "0.1"]
    code, _, err = featdyn(
        "analyze", run.path, "noise", *asked, "--model", f"{here}:mlp", "--batches", f"{here}:loader"
    )
    assert code == 0, err
    assert np.isfinite(Run(run.path).result("noise")["parameter_centred"]).any()
    for wrong in (["--model", "nowhere:mlp"], ["--model", f"{here}:loader"], []):
        code, _, err = featdyn("analyze", run.path, "rewind", *wrong)
        assert (code, err.count("\n")) == (1, 1)
        assert "--model" in err or "nowhere" in err
    assert "--model" not in featdyn("analyze", "spectra", "--help")[1]


@pytest.mark.parametrize(
    "analysis",
    [
        *("averaging", "controls", "rewind", "consistency"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("density", "drift")),
    ],
)
def test_the_command_line_stitches_networks_of_ones_own(tmp_path, featdyn, analysis):
    """Where stored features are enough, no network need be given."""
    run, network = record(tmp_path / "run.zarr", mlp(), probes()), ["--model", f"{__name__}:mlp"]
    ways: list[list[str]] = [network]
    help_ = featdyn("analyze", analysis, "--help")[1]
    if "--features" in help_ and "--cuts" in help_:
        ways.append([*network, "--features", "stored", "--cuts", "1"])
    if analysis in ("density", "drift"):
        ways.append([])
    for given in ways:
        code, _, err = featdyn("analyze", run.path, analysis, "--fresh", *given)
        assert code == 0, err
        result = Run(run.path).result(analysis)
        numbers = [v for v in result.data_vars.values() if v.dtype.kind == "f"]
        assert any(np.isfinite(v.values).any() for v in numbers)


@pytest.mark.parametrize("analysis", ["drift", "consistency"])
def test_the_command_line_asks_no_more_of_sets_than_python(tmp_path, featdyn, analysis):
    run = record(tmp_path / "r.zarr", mlp(), Probes(probes().inputs, probes().labels))  # no split: one set, "probes"
    network = ["--model", f"{__name__}:mlp"]
    code, _, err = featdyn("analyze", run.path, analysis, *network, "--train", "training")
    assert (code, "train='training' is no set of probes; there are probes" in err) == (1, True)
    code, _, err = featdyn("analyze", run.path, analysis, *network)
    assert code == 0, err
    assert Run(run.path).result(analysis)["set"].values.tolist() == ["probes"]


def test_true_labels_are_asked_for_where_they_differ_from_those_in_use(tmp_path):
    given = probes()
    true = given.labels.numpy().copy()
    found = {}
    for name, changed in (("same", []), ("other", [3, 25])):
        true[changed] = (true[changed] + 1) % 3
        asked = Probes(given.inputs, given.labels, {"split": SPLIT, "true_label": true.copy()})
        run = record(tmp_path / f"{name}.zarr", mlp(), asked)
        found[name] = analyze(run, "consistency", model=mlp(), cuts=["1"])
    assert "accuracy_true" not in found["same"]
    right = found["other"]["prediction"].sel(cut="1").values == true
    for name in ("train", "test"):
        at = found["other"]["accuracy_true"].sel(cut="1", set=name).values
        np.testing.assert_allclose(at, right[..., name == SPLIT].mean(-1))
