"""Inputs, outputs and targets of any nest: recorded as plain hooks see them, or refused in one line."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from featdyn.analysis.driver import analyze
from featdyn.capture import Probes, Recorder
from featdyn.capture.nest import leaves, mapped, nest, restored, structure
from featdyn.errors import NetworkError, StoreError
from featdyn.store import Run, verify

N = 11


def seeded(model: type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return model().eval()


class Reader(nn.Module):
    """As language models are called: tokens and a mask by name, several outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> UserDict[str, Tensor]:
        hidden = torch.tanh(self.body(self.embed(input_ids)))
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return UserDict(logits=self.head((hidden * weights).sum(1) / weights.sum(1)), hidden=hidden)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(6, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (self.left(left) - self.right(right)).square().sum(1)


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return self.decoder(mean), mean, log_variance


class Segmentation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(F.relu(self.stem(x)))}


def evidence(outputs: Any, inputs: Tensor) -> Tensor:
    made, mean, log_variance = outputs
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
    return (made - inputs).square().sum(1) + divergence


def by_pixel(outputs: Any, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs["out"], labels, reduction="none").mean((1, 2))


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


MASK = (torch.arange(6) < 1 + torch.arange(N)[:, None] % 6).long()
TOKENS = {"input_ids": torch.arange(N * 6).reshape(N, 6) % 7, "attention_mask": MASK}
IMAGE = made(N, 6)
CASES: dict[str, tuple[type[nn.Module], Any, Any, str, dict[str, Any], Any]] = {
    "named": (Reader, UserDict(TOKENS), torch.arange(N) % 3, "body", {}, None),
    "pair": (
        Siamese, (made(N, 4), made(N, 6)), made(N), "left", {"loss": lambda o, y: (o - y) ** 2}, None,
    ),
    "autoencoder": (Autoencoder, IMAGE, IMAGE, "encoder", {"loss": evidence, "output": 0}, lambda o: o[0]),
    "pixels": (
        Segmentation, made(N, 2, 4, 5), torch.arange(N * 20).reshape(N, 4, 5).to(torch.int32) % 3, "stem",
        {"loss": by_pixel, "output": "out"}, lambda o: o["out"],
    ),
}  # fmt: skip


def by_hooks(model: nn.Module, inputs: Any, labels: Any, layer: str, loss: Any, pick: Any) -> tuple[Tensor, ...]:
    """Return activation, gradient, logits and loss, sample by sample in batches of the recorded shape."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, given, out: kept.append(out))
    if isinstance(inputs, dict):
        outputs = model(**inputs)
    else:
        outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    handle.remove()
    logits = pick(outputs) if pick else (outputs["logits"] if isinstance(outputs, UserDict) else outputs)
    losses = loss(outputs, labels) if loss else F.cross_entropy(logits, labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), kept)
    return kept[0].detach(), gradient, logits.detach(), losses.detach()


@pytest.mark.parametrize("case", CASES)
def test_what_is_recorded_is_what_plain_hooks_see(tmp_path, case):
    kind, inputs, labels, layer, asked, pick = CASES[case]
    options = dict(asked)
    model = seeded(kind)
    options |= {"layers": [layer], "dtype": "float32", "batch": N}
    with Recorder(model, Probes(inputs, labels), tmp_path / "r.zarr", **options) as recorder:
        recorder.record(step=0)
    run, exact = Run(tmp_path / "r.zarr"), labels.long() if not labels.is_floating_point() else labels
    plain = dict(inputs) if isinstance(inputs, UserDict) else inputs
    expected = by_hooks(model, plain, exact, layer, asked.get("loss"), pick)
    paths = (f"layers/{layer}/activation", f"layers/{layer}/gradient", "outputs/logits", "outputs/loss")
    mask = Probes(inputs, labels).mask
    for path, values in zip(paths, expected, strict=True):
        if mask is not None and values.ndim == 3:  # at padding nothing is recorded
            values = torch.where(mask[:, :, None], values, torch.nan)
        np.testing.assert_array_equal(run.values(path)[0], values.numpy(), err_msg=path)
    said = run.attributes["probes"]

    def load(path: str) -> Tensor:
        return torch.from_numpy(run.values(f"inputs/{path}"))

    for name, given_ in (("input", plain), ("target", exact)):
        back = restored(said[name], load)
        assert structure(back, name) == said[name]
        for (_, one), (_, other) in zip(leaves(back, name), leaves(given_, name), strict=True):
            assert torch.equal(one, other)
    assert verify(tmp_path / "r.zarr").sound
    with Recorder(model, Probes(inputs, labels), tmp_path / "r.zarr", resume=True, **options) as recorder:
        recorder.record(step=1)  # the same again is the same recording
    changed = Probes(mapped(lambda t: t.flip(0), nest("inputs", inputs)), labels)
    with pytest.raises(StoreError, match="another recording"):
        Recorder(model, changed, tmp_path / "r.zarr", resume=True, **options)


def test_without_labels_there_is_no_loss(tmp_path):
    model = seeded(Autoencoder)
    with pytest.raises(ValueError, match="without labels there is no loss to differentiate"):
        Recorder(model, Probes(IMAGE), tmp_path / "a.zarr", layers=["encoder"], output=0)
    assert not (tmp_path / "a.zarr").exists()
    with Recorder(model, Probes(IMAGE), tmp_path / "a.zarr", layers=["encoder"], output=0, gradients=False) as recorder:
        recorder.record(step=0)
    run = Run(tmp_path / "a.zarr")
    assert "outputs/loss" not in run.nodes
    assert run.attributes["probes"]["target"] is None
    np.testing.assert_allclose(run.values("outputs/logits")[0], model(IMAGE)[0].detach().numpy(), rtol=1e-6)

    def own(outputs: Any, nothing: None) -> Tensor:
        assert nothing is None
        return outputs[1].square().sum(1)

    with Recorder(model, Probes(IMAGE), tmp_path / "b.zarr", layers=["encoder"], output=0, loss=own) as recorder:
        recorder.record(step=0)
    assert "layers/encoder/gradient" in Run(tmp_path / "b.zarr").nodes


def test_a_model_is_called_as_the_user_says(tmp_path):
    class Encoder(Autoencoder):
        def encode(self, x: Tensor) -> Tensor:
            return self.encoder(x)[:, :1]

    model = seeded(Encoder)
    probes = Probes({"x": IMAGE, "note": torch.zeros(N)}, torch.arange(N) % 2)
    with Recorder(
        model, probes, tmp_path / "r.zarr", layers=["encoder"], forward=lambda m, given: m.encode(given["x"])
    ) as recorder:
        recorder.record(step=0)
    np.testing.assert_allclose(
        Run(tmp_path / "r.zarr").values("outputs/logits")[0], model.encode(IMAGE).detach().numpy(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("inputs", "labels", "options", "message"),
    [
        ({"a": IMAGE, "b": IMAGE[:5]}, None, {}, r"inputs.b must have shape \(11, ...\) like inputs.a, got \(5, 6\)"),
        ({"a": IMAGE, 3: IMAGE}, None, {}, "inputs must have names for keys, got 3"),
        ({}, None, {}, "inputs must hold a tensor"),
        (IMAGE, {"a": torch.zeros(4)}, {}, r"labels.a must have shape \(11, ...\) like inputs, got \(4,\)"),
        (
            IMAGE,
            IMAGE,
            {"loss": lambda o, y: evidence(o, y).mean(), "output": 0},
            "loss must return one number for each",
        ),
        (IMAGE, IMAGE, {"loss": evidence}, "returns tuple of 3, not one tensor of real numbers: choose with output="),
        (IMAGE, IMAGE, {"loss": evidence, "output": 3}, "returns tuple of 3, which has no 3"),
        (IMAGE, IMAGE, {"loss": evidence, "output": "logits"}, "returns tuple of 3, which has no 'logits'"),
        ({"y": IMAGE}, IMAGE, {"loss": evidence}, "does not run on the probes: TypeError: .*unexpected keyword"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, inputs, labels, options, message):
    with pytest.raises((ValueError, TypeError, NetworkError), match=message) as caught:
        Recorder(seeded(Autoencoder), Probes(inputs, labels), tmp_path / "r.zarr", layers=["encoder"], **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.zarr").exists()


tensors = st.integers(1, 3).map(lambda width: torch.zeros(2, width))
nests = st.recursive(
    tensors | st.none(),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=6,
)


@given(nests)
def test_a_nest_is_its_structure_and_its_leaves(given_):
    held = dict(leaves(nest("x", given_), "x"))
    back = restored(structure(given_, "x"), held.__getitem__)
    assert structure(back, "x") == structure(given_, "x")
    assert [t.shape for _, t in leaves(back, "x")] == [t.shape for _, t in leaves(given_, "x")]


def test_a_network_of_several_inputs_is_asked_with_it_and_without(tmp_path):
    net = seeded(Reader)
    with Recorder(
        net, Probes(TOKENS, torch.arange(N) % 3), tmp_path / "r.zarr", layers=["body", "head"], dtype="float32"
    ) as recorder:
        for step in range(2):
            recorder.record(step=step)
            with torch.no_grad():
                net.body.weight.mul_(1.5)
    run = Run(tmp_path / "r.zarr")
    found = analyze(run, "spectra", model=net)
    assert found["layer"].values.tolist() == ["body", "head"]
    assert analyze(run, "drift")["cut"].values.tolist() == ["body", "head"]  # as recorded
    assert analyze(run, "drift", model=net, cuts=["body"])["cut"].values.tolist() == ["body"]
    assert (analyze(run, "consistency", model=net)["apart"] == 0).all()
    assert np.isfinite(analyze(run, "averaging", model=net)["accuracy"]).any()


def test_of_a_network_of_several_outputs_cuts_have_the_gradient_of_the_same_loss(tmp_path):
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": self.head(F.relu(self.stem(x)) * 2)}

    model, labels = seeded(Both), torch.arange(N) % 3
    options = {"dtype": "float32", "batch": N, "output": "out"}
    with Recorder(model, Probes(IMAGE, labels), tmp_path / "a.zarr", **options) as recorder:
        recorder.record(step=0)
    run = Run(tmp_path / "a.zarr")
    for name in run.layers:
        assert run.values(f"layers/{name}/gradient").any()
    loss = lambda o, y: F.cross_entropy(o["out"], y, reduction="none")  # noqa: E731
    with Recorder(model, Probes(IMAGE, labels), tmp_path / "b.zarr", loss=loss, **options) as recorder:
        recorder.record(step=0)
    other = Run(tmp_path / "b.zarr")
    assert set(other.layers) <= {"stem", "head", *run.layers}
    for name in set(other.layers) & set(run.layers):
        np.testing.assert_array_equal(
            run.values(f"layers/{name}/gradient"), other.values(f"layers/{name}/gradient"), err_msg=name
        )
