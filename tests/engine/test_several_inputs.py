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
    labels = torch.arange(N) % 3
    for batches, words in (
        ([(IDS, labels), (IDS[:, :4], labels)], r"hold inputs of shapes \(5,\) and \(4,\) for a sample"),
        ([(IDS, labels), ({"x": IDS}, labels)], "the same inputs and labels as the first|for a sample"),
        ([((IDS, IDS[:3]), labels)], r"a batch has inputs \(24, 5\) and inputs.1 \(3, 5\)"),
        ([(IDS, None)], "give the inputs twice"),
        ([({"a": "text"}, labels)], r"inputs\['a'\] must be a tensor"),
    ):
        with pytest.raises(FeatdynError, match=words) as said:
            analyze(run, "noise", model=net, batches=batches, rate=0.1)
        assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["tuple", "dict"])
def test_noise_is_that_of_single_gradients_in_float64(tmp_path, name):
    run, net, given, labels = recorded(tmp_path / "r.zarr", name)
    several = given if isinstance(given, tuple) else tuple(given.values())

    def rows(i: int, j: int) -> Any:
        mine = tuple(x[i:j] for x in several)
        return dict(zip(given, mine, strict=True)) if isinstance(given, dict) else mine

    batches = [(rows(i, i + 7), labels[i : i + 7]) for i in range(0, N, 7)]
    cut, rate = {"tuple": "tanh", "dict": "mix"}[name], 0.2
    how = {"draws": N, "batch_size": 1, "replacement": False, "keep": "raw", "every": STEPS, "curvature": N}
    found = analyze(
        run, "noise", model=net, batches=batches, rate=rate, cuts=[cut], probes=2, permuted=False,
        loss=None if name == "tuple" else by_name, **how,
    )  # fmt: skip
    exact = deepcopy(net).double().eval()
    exact.load_state_dict(run.state(STEPS - 1))
    moving = [p for key, p in exact.named_parameters() if not key.startswith("head")]
    assert found["prefix_params"].item() == sum(p.numel() for p in moving)

    def gradient(i: int, j: int, graph: bool = False) -> Tensor:
        loss = nn.functional.cross_entropy(call(exact, rows(i, j)), labels[i:j])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, moving, create_graph=graph)])

    full = gradient(0, N)
    np.testing.assert_allclose(found["gradient_norm"].item(), full.norm().item(), rtol=1e-5)
    noise = torch.stack([gradient(i, i + 1) - full for i in range(N)])
    draws = torch.from_numpy(found[f"draws_{cut}"].values[0]).double()
    apart = torch.cdist(draws, noise)
    order = apart.argmin(1)
    assert sorted(order.tolist()) == list(range(N))
    assert float(apart.amin(1).max()) < 1e-6 * float(noise.norm(dim=1).max()) + 1e-7

    along = gradient(0, N, graph=True)
    for k in range(3):  # the Hessian along a draw
        v = noise[order[k]]
        hv = torch.cat([g.flatten() for g in torch.autograd.grad(along @ v, moving, retain_graph=True)])
        np.testing.assert_allclose(found["noise_curvature"].values[0, 0, k], (hv @ v / (v @ v)).item(), rtol=1e-4)

    # Features answer to a step by the Jacobian there, which differences of the network's own layers give.
    probe = int(str(found["probe"].values[0]))
    kept: list[Tensor] = []
    layer = exact.mix if name == "dict" else exact.head
    hook = layer.register_forward_hook(lambda m, a, out: kept.append((out if name == "dict" else a[0]).detach()))

    def moved(step: Tensor) -> Tensor:
        before = [p.detach().clone() for p in moving]
        with torch.no_grad():
            for p, change in zip(moving, step.split([p.numel() for p in moving]), strict=True):
                p += change.view_as(p)
            call(exact, rows(probe, probe + 1))
            for p, value in zip(moving, before, strict=True):
                p.copy_(value)
        return kept.pop().flatten()

    start, small = -rate * full, 1e-5
    response = [
        (moved(start - rate * small * noise[k]) - moved(start + rate * small * noise[k])) / (2 * small) for k in order
    ]
    hook.remove()
    z = torch.stack(response)
    z = z - z.mean(0)
    at = found.isel(cut=0, t=0, probe=0)
    np.testing.assert_allclose(at["feature_centred"], z @ z.T, rtol=1e-3, atol=1e-6 * float((z @ z.T).max()) + 1e-12)
    assert analyze(Run(run.path), "isotropy")["parameter_pvalue"].notnull().any()


def by_name(outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs["logits"], labels, reduction="none")


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


def test_the_default_layers_of_several_inputs_are_cuts(tmp_path):
    """Not what stands outermost, of which there may be nothing but the logits."""
    net, given, _ = CASES["dict"]
    with Recorder(net().eval(), Probes(given, torch.arange(N) % 3), tmp_path / "r.zarr", dtype="float32") as recorder:
        recorder.record(step=0)
    assert set(run_layers := list(recorder.layers)) >= {"mix"}
    assert "head" not in run_layers  # the output
    seen: list[Tensor] = []
    (whole := net().eval()).mix.register_forward_hook(lambda module, args, out: seen.append(out))
    call(whole, given)
    stored = Run(tmp_path / "r.zarr").array("layers/mix/activation")[0]
    np.testing.assert_array_equal(stored, seen[0].detach())


class Translator(nn.Module):
    """Encoder and decoder, each with tokens of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.encoder, self.decoder, self.head = (
            nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 11),
        )  # fmt: skip

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        real = attention_mask[:, :, None]
        source = (torch.relu(self.encoder(self.embed(input_ids))) * real).sum(1) / real.sum(1)
        return self.head(torch.relu(self.decoder(self.embed(decoder_input_ids) + source[:, None])))


@pytest.mark.parametrize("masked", [True, False])
def test_encoder_and_decoder_have_each_its_own_padding(tmp_path, masked):
    given = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": IDS.flip(0)}
    masks = {"encoder": MASK, "decoder": MASK.flip(0) if masked else torch.ones_like(MASK)}
    given |= {"decoder_attention_mask": masks["decoder"]} if masked else {}
    with Recorder(Translator(), Probes(given, IDS), tmp_path / "r.zarr", layers=[*masks]) as recorder:
        recorder.record(step=0)
    run = Run(tmp_path / "r.zarr")
    there = {name: run.array(f"layers/{name}/activation")[0].notnull().all("feature") for name in masks}
    there["decoder again"] = run.array("outputs/logits")[0].notnull().all("class")
    for name, found in there.items():
        np.testing.assert_array_equal(found, masks[name.split()[0]].bool(), err_msg=name)
