"""What is given with probes and checkpoints, and what a storage dtype cannot hold."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from featdyn.capture import Probes, Recorder
from featdyn.capture.fit import Fit
from featdyn.capture.options import CaptureOptions
from featdyn.errors import NetworkError, TrainingError
from featdyn.store import Run
from featdyn_kernels.summaries import rounded


def mlp(scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        net[0].weight.mul_(scale)
        net[0].bias.mul_(scale)
    return net


def data(n: int = 20, **coords: object) -> Probes:
    generator = torch.Generator().manual_seed(1)
    return Probes(torch.randn(n, 6, generator=generator), torch.arange(n) % 3, coords)


def record(store, net=None, probes=None, **options) -> Run:
    options = {"layers": ["0"], **options}
    with Recorder(net or mlp(), probes or data(), store, **options) as recorder:
        recorder.record(step=0)
    return Run(store)


@pytest.mark.parametrize("scale", [1e-5, 1e-8, 1e-30])
def test_activations_that_vanish_in_float16_are_refused_and_float32_keeps_them(tmp_path, scale):
    with pytest.raises(TrainingError, match=r"layers/0/activation at checkpoint 0 vanishes in float16 .*dtype float32"):
        record(tmp_path / "a.zarr", mlp(scale))
    assert not (tmp_path / "a.zarr").exists()
    found = record(tmp_path / "b.zarr", mlp(scale), dtype="float32").values("layers/0/activation")[0]
    exact = mlp(scale).double()[0](data().inputs.double()).detach().numpy()
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-5 * np.abs(exact).max())


def test_a_share_of_samples_that_vanish_is_refused_but_not_dead_ones(tmp_path):
    net = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 3))
    inputs = data().inputs.clone()
    inputs[::2] = 0
    record(tmp_path / "dead.zarr", net, Probes(inputs, data().labels))
    inputs[::2] = 1e-7 * data().inputs[::2]
    with pytest.raises(TrainingError, match="for 10 of 20 probes"):
        record(tmp_path / "r.zarr", net, Probes(inputs, data().labels))


def test_gradients_that_all_vanish_are_refused_and_some_are_not(tmp_path):
    def tiny(outputs: Tensor, labels: Tensor) -> Tensor:
        return 1e-10 * nn.functional.cross_entropy(outputs, labels, reduction="none")

    with pytest.raises(TrainingError, match="layers/0/gradient at checkpoint 0 vanishes in float16"):
        record(tmp_path / "a.zarr", loss=tiny)
    found = record(tmp_path / "b.zarr", loss=tiny, dtype="float32").values("layers/0/gradient")
    assert np.abs(found).max() > 0

    def mixed(outputs: Tensor, labels: Tensor) -> Tensor:  # all but the last class are fitted
        return torch.where(labels == 2, 1.0, 1e-10) * nn.functional.cross_entropy(outputs, labels, reduction="none")

    assert record(tmp_path / "c.zarr", loss=mixed).checkpoints == 1


NORMAL = 2.0**-14
"""The smallest normal number of float16: what is smaller loses digits."""


@pytest.mark.parametrize(
    ("kind", "largest", "refused"),
    [
        ("activation", [1.0] * 9 + [NORMAL / 2], True),  # one of ten living ones is the share that is refused
        ("activation", [1.0] * 10 + [NORMAL / 2], False),
        ("activation", [1.0] * 9 + [NORMAL / 2] + [0.0] * 20, True),  # dead ones do not live
        ("activation", [1.0] * 9 + [NORMAL], False),  # which is kept whole
        ("gradient", [NORMAL / 2] * 2, True),
        ("gradient", [NORMAL / 2] * 2 + [0.0], True),
        ("gradient", [1.0] + [NORMAL / 2] * 2, False),
        ("gradient", [0.0] * 3, False),
    ],
)
def test_what_share_of_samples_may_vanish(kind: str, largest: list[float], refused: bool) -> None:
    fit, values = Fit(CaptureOptions()), torch.tensor(largest)
    fit.see(f"layers/0/{kind}", values.half(), values)
    if not refused:
        fit.judge(3)
        return
    lost = sum(0 < value < NORMAL for value in largest)
    with pytest.raises(
        TrainingError, match=rf"at checkpoint 3 vanishes in float16 for {lost} of {len(largest)} probes"
    ):
        fit.judge(3)


NAN, INF = float("nan"), float("inf")
FITS: dict[str, tuple[str, list[list[float]], dict[str, Any], str]] = {
    # what: the array, its values by probe, options, and what is wrong with it
    "small": ("layers/a/activation", [[1.0, -2.0], [0.0, 0.0]], {}, ""),
    "infinite by design": ("layers/a/activation", [[1.0, -INF], [INF, 2.0]], {}, ""),
    "beyond float16": (
        "layers/a/activation", [[1.0, 0.0], [1e5, 0.0]], {},
        "does not fit float16 (largest 65504): record with dtype float32",
    ),
    "within float32": ("layers/a/activation", [[1e5, 1e-30]], {"dtype": "float32"}, ""),
    "beyond float32": (
        "layers/a/activation", [[1e39, 0.0]], {"dtype": "float32"},
        "does not fit float32 (largest 3.40282e+38): leave the layer out",
    ),
    "NaN": (
        "layers/a/activation", [[1.0, NAN], [NAN, NAN], [1.0, 2.0]], {},
        "is not finite for 2 of 3 probes, though outputs and loss are: leave the layer out",
    ),
    "NaN in a gradient": (
        "layers/a/gradient", [[1.0, NAN], [1.0, 2.0]], {},
        "is not finite for 1 of 2 probes, though outputs and loss are: leave the layer out, or gradients=False",
    ),
    "a gradient beyond what is stored": (
        "layers/a/gradient", [[1e5, 0.0]], {},
        "does not fit float16 (stored 4096 times larger, so the largest is 16; here 24.4): record with dtype float32",
    ),
    "masked classes": ("outputs/logits", [[1.0, -INF], [-INF, 2.0]], {}, ""),
    "an infinite logit": (
        "outputs/logits", [[1.0, INF], [0.0, 2.0]], {},
        "is not finite for 1 of 2 probes: training has diverged, try a smaller learning rate",
    ),
    "of the best": ("outputs/top_logits", [[1.0, NAN]], {}, "is not finite for 1 of 1 probes: training has diverged"),
    "of the target": ("outputs/target_logit", [[-INF], [3.0]], {}, ""),
    "an infinite loss": ("outputs/loss", [[-INF], [INF], [1.0]], {}, "is not finite for 2 of 3 probes: training has"),
    "outputs are float32": ("outputs/logits", [[1e6, 1e-20]], {}, ""),
}  # fmt: skip


@pytest.mark.parametrize("what", FITS)
def test_what_does_not_fit_is_said_with_its_numbers(what):
    path, rows, options, said = FITS[what]
    values = torch.tensor(rows, dtype=torch.float64)
    fit = Fit(CaptureOptions(**options))
    dtype = "float32" if path.startswith("outputs/") else options.get("dtype", "float16")
    stored = torch.empty(values.shape, dtype=getattr(torch, dtype))
    fit.see(path, stored, torch.as_tensor(rounded(values, stored)))
    if not said:
        fit.judge(2)
        return
    with pytest.raises(TrainingError) as error:
        fit.judge(2)
    assert str(error.value).startswith(f"{path} at checkpoint 2 {said}")
    if "diverged" not in said and not said.endswith("has"):
        assert str(error.value).endswith(said)


def test_outputs_are_judged_first_and_their_inputs_named():
    fit, bad = Fit(CaptureOptions(), lambda: 2), torch.tensor([[NAN], [1.0]])
    for path in ("layers/a/activation", "outputs/loss"):
        fit.see(path, bad, bad[:, 0].double())
    with pytest.raises(TrainingError, match=r"outputs/loss .* the inputs of 2 probes hold NaN or infinite values"):
        fit.judge(0)


def test_the_true_limit_of_gradients_is_named(tmp_path):
    def large(outputs: Tensor, labels: Tensor) -> Tensor:
        return 1e3 * nn.functional.cross_entropy(outputs, labels, reduction="none")

    with pytest.raises(TrainingError, match=r"layers/2/gradient .*so the largest is 16; here \d+\): record with dtype"):
        record(tmp_path / "r.zarr", layers=["2"], loss=large)


class Mask(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(torch.arange(8, device=x.device) > 5, float("-inf"))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_masked_scores_are_stored_as_they_are(tmp_path, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), Mask(), nn.Softmax(-1), nn.Linear(8, 3))
    found = record(tmp_path / "r.zarr", net, layers=["1"], dtype=dtype).values("layers/1/activation")[0]
    assert (found[:, 6:] == -np.inf).all()
    exact = net.double()[0](data().inputs.double()).detach().numpy()[:, :6]
    np.testing.assert_allclose(found[:, :6], exact, rtol=1e-3, atol=1e-4)


class Blow(nn.Module):
    """Scores too large for float16 beside masked ones; then softmax makes them finite again."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x * 1e6, torch.full_like(x, float("-inf"))], 1)


class Hole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, torch.nan)


class Fill(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.nan_to_num()


def test_only_what_has_diverged_is_said_to_have(tmp_path):
    torch.manual_seed(0)
    nets = {
        "does not fit float16": nn.Sequential(nn.Linear(6, 4), Blow(), nn.Softmax(-1), nn.Linear(8, 3)),
        "not finite for .* though outputs and loss are: leave the layer out": nn.Sequential(
            nn.Linear(6, 8), Hole(), Fill(), nn.Linear(8, 3)
        ),
    }
    for number, (message, net) in enumerate(nets.items()):
        with pytest.raises(TrainingError, match=message) as caught:
            record(tmp_path / f"{number}.zarr", net, layers=["1"], gradients=False)
        assert "diverged" not in str(caught.value)
    broken = mlp()
    with torch.no_grad():
        broken[2].bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"outputs/.* not finite for 20 of 20 probes: training has diverged"):
        record(tmp_path / "r.zarr", broken)
    odd = data().inputs
    odd[3, 2] = float("nan")
    with pytest.raises(TrainingError, match=r"for 1 of 20 probes: the inputs of 1 probe hold NaN") as caught:
        record(tmp_path / "r.zarr", probes=Probes(odd, torch.arange(20) % 3))
    assert "diverged" not in str(caught.value)


def test_a_loss_tensor_is_a_coordinate(tmp_path):
    net, probes = mlp(), data()
    loss = nn.functional.cross_entropy(net(probes.inputs), probes.labels)
    given = [loss, loss.detach().bfloat16(), np.float32(0.5), np.array(0.25), torch.tensor(7), 2]
    with Recorder(net, probes, tmp_path / "r.zarr", layers=["0"], coords=["train_loss"]) as recorder:
        for value in given:
            recorder.step(train_loss=value)
        for wrong in (torch.ones(2), torch.ones(1), "0.5", None, 1j, torch.tensor(1j)):
            with pytest.raises((TypeError, ValueError), match="train_loss must be"):
                recorder.step(train_loss=wrong)
        with pytest.raises(ValueError, match="coords must be train_loss, got none"):
            recorder.step()
    assert Run(tmp_path / "r.zarr").values("train_loss").tolist() == [
        float(v.detach() if isinstance(v, Tensor) else v) for v in given
    ]


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", None])
def test_every_is_a_whole_number_from_one_on_or_a_cadence(tmp_path, every):
    with pytest.raises(ValueError, match="every must be a "):
        Recorder(mlp(), data(), tmp_path / "r.zarr", layers=["0"], every=every)
    assert not (tmp_path / "r.zarr").exists()


def test_a_state_that_is_not_tensors_is_refused_in_one_line(tmp_path):
    net = mlp()
    optimizer = torch.optim.Adam(net.parameters())
    with Recorder(net, data(), tmp_path / "r.zarr", layers=["0"]) as recorder:
        with pytest.raises(TypeError, match="optimizer_tensors"):
            recorder.record(step=0, state=optimizer.state_dict())
        with pytest.raises(ValueError, match="step must be a whole number"):
            recorder.record(step=0.5)
        recorder.record(step=0)
    assert Run(tmp_path / "r.zarr").checkpoints == 1


def test_probes_take_lists_arrays_and_tensors_and_leave_the_callers_things_alone():
    inputs, split = torch.randn(3, 2, requires_grad=True), np.array(["a", "b", "a"], dtype=object)
    coords = {"split": split, "origin": ["x", "y", "x"]}
    frozen = np.array([0, 1, 0], np.int32)
    frozen.flags.writeable = False
    for labels in ([0, 1, 0], frozen, torch.tensor([0, 1, 0], dtype=torch.uint8), np.array([False, True, False])):
        probes = Probes(inputs, labels, coords)
        assert probes.labels.dtype == torch.int64
        assert probes.labels.tolist() == [0, 1, 0]
        assert not probes.inputs.requires_grad
        assert inputs.requires_grad
        assert coords.keys() == {"split", "origin"}
        assert probes.coords["origin"].tolist() == ["x", "y", "x"]
    assert "label" not in Probes(inputs, [0.5, 1.5, 2.5]).coords  # real numbers are no classes
    for wrong, message in (
        (
            {"inputs": {"a": ["x"]}},
            r"inputs\['a'\] must be a tensor, array or list of numbers, .* got list",
        ),
        ({"labels": ["a", "b", "c"]}, "labels must be a tensor"),
        ({"labels": torch.tensor(1)}, r"labels must have shape \(3, ...\) like inputs, got \(\)"),
        ({"coords": {"note": np.array(["a", None, "b"], dtype=object)}}, "note must hold numbers or text, got None"),
        ({"coords": {"note": np.array(["2020"] * 3, "M8[Y]")}}, "note must hold numbers or text"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Probes(**{"inputs": inputs, "labels": [0, 1, 0], **wrong})


def test_labels_without_a_class_are_refused_unless_the_loss_is_given(tmp_path):
    probes = Probes(data().inputs, torch.arange(20) % 3 - 100 * (torch.arange(20) == 7))
    with pytest.raises(ValueError, match=r"labels must lie in 0..2 .* got -99 at probe 7 \(1 of 20\)"):
        record(tmp_path / "a.zarr", probes=probes)
    with pytest.raises(ValueError, match="integer labels"):
        record(tmp_path / "a.zarr", probes=Probes(data().inputs, torch.rand(20)))
    with pytest.raises(ValueError, match=r"one class a position"):
        record(tmp_path / "a.zarr", nn.Sequential(nn.Linear(6, 6), nn.Unflatten(1, (2, 3))))
    binary = nn.Sequential(nn.Linear(6, 1))
    with pytest.raises(ValueError, match=r"0..1 for outputs of width 1, got 2"):
        record(tmp_path / "a.zarr", binary)
    with pytest.raises(NetworkError, match=r"does not run on the probes: RuntimeError: .*mat1"):
        record(tmp_path / "a.zarr", nn.Sequential(nn.Linear(7, 3)))
    kinds = r"inputs are torch.float32, the network torch.float64: give inputs of that type"
    for net, said in ((nn.Linear(6, 3).double(), True), (nn.Linear(7, 3), False), (nn.Flatten(9), False)):
        with pytest.raises(NetworkError, match=r"does not run on the probes") as caught:
            record(tmp_path / "a.zarr", nn.Sequential(net))
        assert bool(re.search(kinds, str(caught.value))) == said
        assert "inputs are" not in str(caught.value) or said
    assert not (tmp_path / "a.zarr").exists()

    def squared(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs[:, 0] - labels) ** 2

    targets = torch.rand(20)
    found = record(tmp_path / "r.zarr", binary, Probes(data().inputs, targets), loss=squared)
    exact = (binary.double()(data().inputs.double())[:, 0] - targets.double()) ** 2
    np.testing.assert_allclose(found.values("outputs/loss")[0], exact.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_the_origin_of_probes_is_stored_and_read_as_xarray(tmp_path):
    origin = np.repeat(np.array(["a/1", "a/2"], dtype=object), 10)
    record(tmp_path / "r.zarr", probes=data(origin=origin))
    tree = xr.open_datatree(tmp_path / "r.zarr", engine="zarr")
    assert tree["origin"].dims == ("sample",)
    assert tree["origin"].values.tolist() == origin.tolist()


def test_a_diverged_loss_is_strict_json_for_programs(tmp_path):
    import json

    from click.testing import CliRunner

    from featdyn.cli.info import command

    with Recorder(mlp(), data(), tmp_path / "r.zarr", layers=["0"], coords=["train_loss"]) as recorder:
        for step, value in enumerate((0.5, float("inf"), float("-inf"), float("nan"))):
            recorder.record(step=step, train_loss=value)
    shown = CliRunner().invoke(command, [str(tmp_path / "r.zarr"), "--json"], catch_exceptions=False).output
    rows = json.loads(shown, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["history"]
    assert [row["train_loss"] for row in rows] == [0.5, None, None, None]


one_hot = nn.functional.one_hot(torch.arange(20) % 3, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((torch.arange(20) % 3)[:, None], r"shape \(20,\), got \(20, 1\): write labels\[:, 0\], or give loss="),
        (torch.zeros(20, 1), r"got \(20, 1\): write labels\[:, 0\].long\(\), or give loss="),
        (one_hot, r"got \(20, 3\): they are one-hot: write labels.argmax\(1\), or give loss="),
        (one_hot.float(), r"they are one-hot: write labels.argmax\(1\)"),
        (one_hot.bool(), r"they are one-hot: write labels.argmax\(1\)"),
        (one_hot * 2, r"got \(20, 3\): give loss="),
        (torch.full((20, 3), 1 / 3), r"got \(20, 3\): give loss="),
        ({"y": torch.arange(20) % 3}, "takes one tensor of labels, got dict"),
        (torch.zeros(20, dtype=torch.cfloat), "takes integer labels, got torch.complex64"),
    ],
)
def test_labels_of_another_form_are_refused_in_a_line_that_says_what_to_write(tmp_path, labels, message):
    with pytest.raises(ValueError, match=message) as said:
        record(tmp_path / "r.zarr", probes=Probes(data().inputs, labels))
    assert "\n" not in str(said.value)
    assert not (tmp_path / "r.zarr").exists()


class Overwritten(nn.Module):
    """Not differentiable as written: a result that the way back needs is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        z.relu_()
        z += 1
        return self.b(z)


def ragged() -> Tensor:
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


X = data().inputs
REFUSED = {
    "overwritten": ({"net": Overwritten, "layers": ["a"]}, "loss has no gradient .* modified by .* gradients=False"),
    "lazy": (
        {"net": lambda: nn.Sequential(nn.LazyLinear(3))},
        r"network's 0.weight has no shape yet .* run the network",
    ),
    "float64": ({"inputs": X.double()}, r"inputs are torch.float64, the network torch.float32: give inputs"),
    "int8": ({"inputs": X.to(torch.int8)}, r"inputs are torch.int8, the network torch.float32: give inputs"),
    "sparse": ({"inputs": X.to_sparse()}, r"inputs must be a plain tensor, got one that is torch.sparse_coo"),
    "nested": ({"inputs": ragged}, r"inputs must be a plain tensor, got one that is nested"),
    "empty": ({"inputs": X[:0]}, r"inputs hold no samples"),
    "a loss that fails": ({"loss": lambda outputs, labels: 1 / 0}, r"loss fails on the probes: ZeroDivisionError: "),
    "labels that are spread": (
        {"net": lambda: nn.Sequential(nn.Linear(6, 1)), "loss": lambda outputs, labels: (outputs - labels) ** 2},
        r"got \(4, 4\): labels of shape \(sample,\) are spread over .* compare with outputs\[:, 0\]",
    ),
    "a loss of one": ({"loss": lambda outputs: outputs.sum(1)}, r"loss fails on the probes: TypeError: .*positional"),
}


@pytest.mark.filterwarnings("ignore:.*(nested tensors|Lazy modules)")
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_network_or_loss_does_not_take_is_refused_in_a_line(tmp_path, name):
    given, message = REFUSED[name]
    options = {"net": mlp, "inputs": X, "layers": ["0"], **given}
    net, inputs = options.pop("net"), options.pop("inputs")
    with pytest.raises((NetworkError, ValueError, TypeError), match=message) as said:
        Recorder(net(), Probes(inputs() if inputs is ragged else inputs, data().labels), tmp_path / "r.zarr", **options)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "r.zarr").exists()


def test_a_layer_that_is_gone_is_named_at_the_next_checkpoint(tmp_path):
    net = mlp().append(nn.Tanh())
    with Recorder(net, data(), tmp_path / "r.zarr", layers=["2", "3"]) as recorder:
        recorder.record(step=0)
        net[2] = nn.Linear(8, 3)  # another in its place is recorded
        recorder.record(step=1)
        del net[3]
        with pytest.raises(NetworkError, match=r"layer 3 is no module .* any more"):
            recorder.record(step=2)
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [0, 1]


def test_tables_are_taken_as_arrays():
    frame = pd.DataFrame(X.numpy())
    assert torch.equal(Probes(frame, pd.Series([0, 1] * 10)).inputs, X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_of_quantized_layers_the_values_are_recorded_that_they_stand_for(tmp_path):
    quantization = torch.ao.quantization
    torch.manual_seed(0)
    net = nn.Sequential(
        quantization.QuantStub(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), quantization.DeQuantStub()
    ).eval()  # fmt: skip
    net.qconfig = quantization.get_default_qconfig("x86")
    quantization.prepare(net, inplace=True)
    net(X)
    quantization.convert(net, inplace=True)
    run = record(tmp_path / "r.zarr", net, layers=["default"], gradients=False, dtype="float32")
    value = X
    for name, module in net.named_children():
        value = module(value)
        exact = value.dequantize() if value.is_quantized else value
        np.testing.assert_array_equal(run.values(f"layers/{name}/activation")[0], exact)
    with pytest.raises(NetworkError, match=r"layer 1 is torch.quint8, which has no gradient: gradients=False"):
        record(tmp_path / "g.zarr", net, layers=["1"])
