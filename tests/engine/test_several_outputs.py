"""Layers that return several tensors: one of them is recorded, with the values that a plain hook gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from featdyn.capture import Axis, Probes, Recorder
from featdyn.capture.again import run_again
from featdyn.capture.several_outputs import replaced, tensors
from featdyn.errors import NetworkError
from featdyn.store import Run


class Pair(NamedTuple):
    mask: Tensor
    values: Tensor


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"mask": x > 0, "states": [x * 2, self.inner(x)], "pair": Pair(x > 1, x.square())}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.LSTM(5, 6, batch_first=True)
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)
        self.named, self.head = Named(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, (last, _) = self.cell(x)
        y, weights = self.attend(x, x, x)
        named = self.named((y + weights @ x).relu_())
        return self.head((named["states"][1] + named["pair"].values).mean(1) + last[0])


PROBES = Probes(torch.randn(7, 4, 5, generator=torch.Generator().manual_seed(1)), torch.arange(7) % 3)
PLACES: dict[str, tuple[Any, Any]] = {
    "cell": (None, lambda out: out[0]),
    "attend": (Axis(output=1, position=2), lambda out: out[1]),
    "named": ("none", lambda out: out["states"][0]),
    "named.inner": (None, lambda out: out),
}


def record(path: Path, layers: Any, **options: Any) -> Run:
    with Recorder(Network(), PROBES, path, layers=layers, dtype="float32", batch=4, **options) as recorder:
        recorder.start()
    return Run(path)


def hooked(places: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return activations and gradients by plain hooks that hand nothing on."""
    net, kept = Network().eval(), dict[str, Tensor]()
    for name, place in places.items():
        net.get_submodule(name).register_forward_hook(
            lambda m, a, out, name=name, place=place: kept.__setitem__(name, place(out))
        )
    logits = net(PROBES.inputs.clone().requires_grad_())
    loss = nn.functional.cross_entropy(logits, PROBES.labels, reduction="sum")
    found = torch.autograd.grad(loss, list(kept.values()), allow_unused=True)
    gradients = {n: torch.zeros_like(kept[n]) if g is None else g for n, g in zip(kept, found, strict=True)}
    return kept, gradients


def test_values_and_gradients_are_those_of_plain_hooks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = record(tmp_path / "run.zarr", {name: axis for name, (axis, _) in PLACES.items()})
    said = capsys.readouterr().err
    assert "the first of real numbers is recorded (cell 0, named states.0)" in said
    activations, gradients = hooked({name: place for name, (_, place) in PLACES.items()})
    for name in PLACES:
        expected = activations[name].detach(), gradients[name]
        for kind, values in zip(("activation", "gradient"), expected, strict=True):
            if name == "attend":
                values = values.movedim(2, 1)
            found = torch.from_numpy(run.block(f"layers/{name}/{kind}", 0, 0).copy())
            torch.testing.assert_close(found, values, rtol=1e-5, atol=1e-6)
    places = {spec.path: spec.attrs.get("output") for spec in run.schema.arrays if spec.path.endswith("/activation")}
    assert places == {
        "layers/cell/activation": "0",
        "layers/attend/activation": "1",
        "layers/named/activation": "states.0",
        "layers/named.inner/activation": None,
    }


def test_an_output_may_lie_deeper_with_its_samples_elsewhere(tmp_path: Path) -> None:
    run = record(tmp_path / "run.zarr", ["cell:sample=1:output=1.0"])
    activations, _ = hooked({"cell": lambda out: out[1][0]})
    found = torch.from_numpy(run.block("layers/cell/activation", 0, 0).copy())
    torch.testing.assert_close(found, activations["cell"].detach().movedim(1, 0), rtol=1e-5, atol=1e-6)
    _, _, compared = run_again(Network(), PROBES, tmp_path / "run.zarr")
    assert {one.path for one in compared} >= {"layers/cell/activation", "layers/cell/gradient"}
    assert all(one.equal for one in compared)


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ({"cell": Axis(output=2)}, "layer cell returns a tuple of 0, 1.0, 1.1, no output 2: leave it out"),
        ({"head": Axis(output=1)}, "layer head returns one tensor, no output 1: leave it out"),
        ({"named": Axis(output="mask")}, "layer named returns torch.bool, not real numbers"),
        (["cell:output=1.0"], r'its samples are axis 1: write layers={"cell": Axis\(sample=1, output="1.0"\)}'),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, layers: Any, why: str) -> None:
    with pytest.raises(NetworkError, match=why):
        record(tmp_path / "run.zarr", layers)
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.parametrize("wrong", [-1, True, "", 1.0, "-1"])
def test_an_output_is_a_place_or_a_key(wrong: Any) -> None:
    with pytest.raises(ValueError, match="output must be a place from 0 on or a key"):
        Axis(output=wrong)


def test_one_tensor_is_replaced_and_what_was_given_stays() -> None:
    one, two, three = torch.zeros(1), torch.ones(2), torch.ones(3)
    given = {"a": Pair(one, two), "b": [three, (one,)], "c": torch.max(torch.ones(2, 2), 0)}
    for at, tensor in tensors(given):
        value = tensor + 5
        found = dict(tensors(replaced(given, at, value)))
        assert found.pop(at) is value
        rest = dict(tensors(given))
        assert rest.pop(at) is tensor
        assert found.keys() == rest.keys()
        assert all(found[place] is rest[place] for place in rest)
    assert type(replaced(given, ("a", "x"[:0] or 0), two)["a"]) is Pair
    assert type(replaced(given, ("c", 0), two)["c"]) is torch.return_types.max
