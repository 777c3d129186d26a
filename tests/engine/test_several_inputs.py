"""Networks of several inputs, and of answers that hold their logits, are stitched like any other."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featdyn import analyze
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError, NetworkError
from featdyn.networks.packed import Packing
from featdyn.store import Run

N, STEPS = 24, 3
SPLIT = np.array(["train"] * 12 + ["test"] * 12, dtype=object)


class Siamese(nn.Module):
    """The same layers see both pictures; a head sees what differs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        both = [self.second(torch.relu(self.first(x.flatten(1)))) for x in (left, right)]
        return self.head(torch.tanh((both[0] - both[1]).abs()))


class Texts(nn.Module):
    """Tokens and their mask by name, an answer in a dict; a layer that code decides about."""

    def __init__(self, answer: str = "logits") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.mix, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.answer = answer

    def forward(self, input_ids: Tensor, attention_mask: Tensor, scale: Tensor) -> dict[str, Tensor]:
        if bool((input_ids > 100).any()):
            raise ValueError("no such token")
        real = attention_mask[:, :, None]
        z = torch.relu(self.mix((self.embed(input_ids) * real).sum(1) / real.sum(1)))
        return {self.answer: self.head(z * scale[:, None]), "hidden": z}


class Alone(Texts):
    """One tensor in, an answer in a dict."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": self.head(torch.relu(self.mix(x)))}


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


IDS = torch.randint(0, 11, (N, 5), generator=torch.Generator().manual_seed(1))
MASK = (torch.arange(5) < 1 + torch.arange(N)[:, None] % 5).long()
CASES: dict[str, tuple[Any, Any, list[str]]] = {
    "tuple": (Siamese, (drawn(N, 2, 4), drawn(N, 2, 4) + 1), ["head"]),
    "dict": (Texts, {"input_ids": IDS, "attention_mask": MASK, "scale": drawn(N).abs() + 0.5}, ["mix"]),
    "an answer in a dict": (Alone, drawn(N, 6), ["mix"]),
}


def call(net: nn.Module, given: Any) -> Tensor:
    kind = next(net.parameters()).dtype
    cast = (
        {k: v.to(kind) if v.is_floating_point() else v for k, v in given.items()} if isinstance(given, dict) else given
    )
    if isinstance(cast, dict):
        found = net(**cast)
    else:
        found = net(*(x.to(kind) for x in cast)) if isinstance(cast, tuple) else net(cast.to(kind))
    return found["logits"] if isinstance(found, dict) else found


def recorded(path, name: str) -> tuple[Run, nn.Module, Any, Tensor]:
    make, given, layers = CASES[name]
    net, labels = make(), torch.arange(N) % 3
    with Recorder(net, Probes(given, labels, {"split": SPLIT}), path, layers=layers, dtype="float32") as recorder:
        for step in range(STEPS):
            recorder.record(step=step)
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter += 0.4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
    return Run(path), make(), given, labels


@pytest.mark.parametrize("name", CASES)
def test_composites_are_those_of_mixed_state_dicts(tmp_path, name):
    run, net, given, labels = recorded(tmp_path / "r.zarr", name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = analyze(run, "consistency", model=net, cuts=["all"])
    late = {"tuple": ("head",), "dict": ("head",), "an answer in a dict": ("head",)}[name]
    cut = {"tuple": "tanh", "dict": "mix", "an answer in a dict": "relu"}[name]
    assert cut in found["cut"].values, found["cut"].values
    for t1 in range(STEPS):
        for t2 in range(STEPS):
            mixed = deepcopy(net).double().eval()
            state, deep = run.state(t1), run.state(t2)
            mixed.load_state_dict({k: deep[k] if k.startswith(late) else v for k, v in state.items()})
            logits = call(mixed, given)
            at = found.sel(cut=cut, t1=t1, t2=t2)
            assert at["prediction"].values.tolist() == logits.argmax(1).tolist()
            loss = nn.functional.cross_entropy(logits[12:], labels[12:]).item()
            np.testing.assert_allclose(at["loss"].sel(set="test"), loss, rtol=1e-4)
    assert type(net) is CASES[name][0]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    averaged = analyze(run, "averaging", model=net)
    mean = deepcopy(net).double().eval()
    mean.load_state_dict({k: sum(run.state(t)[k].double() for t in (1, 2)) / 2 for k in before})
    right = (call(mean, given).argmax(1) == labels)[12:].double().mean()
    np.testing.assert_allclose(averaged["accuracy"].sel(average="weights", window=2, set="test"), right)


def test_what_cannot_be_asked_is_one_line(tmp_path):
    run, net, _, _ = recorded(tmp_path / "r.zarr", "dict")
    for model, kind, words in (
        (Siamese(), NetworkError, "does not take the recorded inputs"),
        (Texts("answer"), NetworkError, "not one tensor of real numbers"),
    ):
        with pytest.raises(kind, match=words) as said:
            analyze(run, "consistency", model=model)
        assert "\n" not in str(said.value)
    batches = [({"input_ids": IDS}, torch.arange(N) % 3)]
    with pytest.raises(FeatdynError, match="the noise of networks of several inputs is not sampled yet"):
        analyze(run, "noise", model=net, batches=batches, rate=0.1)


@pytest.mark.parametrize("big", [5, 2**25, 2**40])
def test_packing_keeps_every_bit(big):
    given = {
        "a": torch.tensor([[big, 3], [-big, 2]]), "b": drawn(2, 3, 1), "c": torch.tensor([True, False]),
        "d": drawn(2).bfloat16(),
    }  # fmt: skip
    packing = Packing.of(given)
    for path, values in packing.unpack(packing.pack(given)).items():
        assert values.dtype == given[path].dtype
        assert torch.equal(values, given[path])
    with pytest.raises(ValueError, match="complex"):
        Packing.of({"z": torch.zeros(2, dtype=torch.cfloat)})
