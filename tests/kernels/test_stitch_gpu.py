"""``stitch.SuffixBank`` by Triton against float64: on a GPU, or under Triton's interpreter on small odd shapes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from featdyn_kernels import stitch
from featdyn_kernels._dispatch import interpreting
from tests.kernels.test_stitch import CLASSES, Attention, Residual, Untraceable, Weighted, head
from tests.kernels.test_stitch_kernels_gpu import DEVICE, close, needs_cuda, reduced

pytestmark = [
    pytest.mark.skipif(not (torch.cuda.is_available() or interpreting()), reason="needs CUDA or TRITON_INTERPRET=1"),
    # The interpreter is numpy, which warns where a GPU only computes: of infinity minus infinity, say.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Last(nn.Sequential):
    """The last state of a recurrent layer, which returns a tuple."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[1](self[0](x)[0][:, -1])


class Sized(nn.Module):
    """Reads the number of samples, of its input and of what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(x).view(x.size(0), -1)
        return torch.cat([self.down(y), self.down(y.reshape(y.shape[0], 4))], 1)


# name -> how to make a suffix, shape of its features, what the path says
NETS = {
    "resnet": (
        lambda: nn.Sequential(Residual(5, 8, 2), Residual(8, 8), *head(8)),
        (5, 5, 3),
        "4 3x3 implicit product, 1 pooled head with scores, 1 by torch",
    ),
    "projections": (
        lambda: nn.Sequential(Residual(4, 6, 2, True, True), *head(6)), (4, 5, 4), "1 1x1 implicit product",
    ),
    "cnn": (
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 7, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(7, 14, 3, groups=7, padding="same")),
            *(nn.BatchNorm2d(14), nn.Flatten(), nn.Linear(56, 11), nn.BatchNorm1d(11), nn.ReLU(True), nn.Dropout(0.5)),
            nn.Linear(11, CLASSES),
        ),
        (3, 5, 4),
        "1 3x3 implicit product, 1 linear, 1 head with scores, 4 by torch",
    ),
    "mlp": (
        lambda: nn.Sequential(nn.ReLU(), nn.Linear(37, 20), nn.BatchNorm1d(20), nn.GELU(), nn.Linear(20, CLASSES)),
        (37,),
        "1 linear, 1 head with scores",
    ),
    "head": (lambda: nn.Sequential(*head(17)), (17, 3, 2), "1 head with scores, 2 by torch"),
    "many classes": (lambda: nn.Sequential(*head(5), nn.ReLU(), nn.Linear(CLASSES, 300)), (5, 1, 1), "2 linear"),
    "attention": (Attention, (6, 32), "2 linear, 1 head with scores"),
    "weighted": (Weighted, (16, 2, 3), "1 3x3 implicit product, 2 1x1"),
    "recurrent": (lambda: Last(nn.GRU(12, 8, batch_first=True), nn.Linear(8, CLASSES)), (5, 12), "1 head with scores"),
    "sized": (Sized, (6,), "3 linear"),
}  # fmt: skip


def checkpoints(name: str, count: int = 2) -> list[nn.Module]:
    """Make suffixes with BatchNorm buffers as if trained."""
    made = [NETS[name][0]().to(DEVICE) for _ in range(count)]
    for part in (part for module in made for part in module.modules()):
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (part.weight.data, part.running_var):
                tensor.uniform_(0.5, 2)
            for tensor in (part.bias.data, part.running_mean):
                tensor.normal_()
    return made


def features(name: str, n: int = 3) -> torch.Tensor:
    return torch.randn(n, *NETS[name][1], device=DEVICE)


def reference(modules: list[nn.Module], x: torch.Tensor, *compared: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Return the scores of float64 modules."""
    doubles = [copy.deepcopy(module).double().cpu().eval() for module in modules]
    with torch.inference_mode():
        return reduced(torch.stack([module(x.cpu().double()) for module in doubles]), *compared)


@pytest.mark.parametrize("name", NETS)
def test_suffixes(name: str) -> None:
    modules, x, labels = checkpoints(name), features(name), torch.randint(CLASSES, (3,))
    wanted = reference(modules, x, labels)
    bank = stitch.SuffixBank(modules, backend="gpu", exact=False)
    found = bank.run(x, labels.to(DEVICE))
    assert bank.path.name == "fused", bank.path.why
    assert NETS[name][2] in bank.path.why
    assert torch.equal(found.predictions.cpu(), wanted["prediction"])
    close(found.loss, wanted["loss"], torch.float32)
    close(found.margin, wanted["margin"], torch.float32)
    close(found.log_odds, wanted["log_odds"], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["projections", "mlp", "attention"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    modules, x, labels = checkpoints(name), features(name), torch.randint(CLASSES, (3,))
    wanted = reference(modules, x, labels)
    bank = stitch.SuffixBank(modules, dtype=dtype, backend="gpu")
    found = bank.run(x, labels)
    assert bank.path.name == "fused", bank.path.why
    assert f"activations of {str(dtype).removeprefix('torch.')}" in bank.path.why
    close(found.loss, wanted["loss"], dtype)
    close(found.margin, wanted["margin"], dtype)
    sure = wanted["gap"] > bank.bound * wanted["scale"].amax(1, keepdim=True)
    assert sure.any()
    assert torch.equal(found.predictions.cpu()[sure], wanted["prediction"][sure])


def test_close_calls_are_left_to_the_module() -> None:
    modules, x = checkpoints("mlp"), features("mlp", 40)
    with torch.inference_mode():
        wanted = torch.stack([copy.deepcopy(module).eval()(x).argmax(-1) for module in modules])
    bank = stitch.SuffixBank(modules, dtype=torch.bfloat16, exact=True, backend="gpu")
    assert torch.equal(bank.run(x).predictions, wanted)


def test_nan_and_infinity_give_what_the_module_gives() -> None:
    modules, x, labels = checkpoints("projections"), features("projections"), torch.randint(CLASSES, (3,))
    x[1, 0, 0, 0], x[2, 3, 4, 3] = torch.nan, torch.inf
    wanted = reference(modules, x, labels)
    for exact in (False, True):
        found = stitch.SuffixBank(modules, backend="gpu", exact=exact).run(x, labels)
        assert torch.equal(found.predictions.cpu(), wanted["prediction"])
        assert found.loss[:, 1:].isnan().all()
        close(found.loss[:, :1], wanted["loss"][:, :1], torch.float32)


def test_samples_and_checkpoints_are_split_to_bound_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from featdyn_kernels.stitch.gpu import fused

    modules, x, labels = checkpoints("mlp", 5), features("mlp", 11), torch.randint(CLASSES, (11,))
    own = torch.randn(5, 11, CLASSES)
    bank = stitch.SuffixBank(modules, backend="gpu", exact=False)
    wanted = bank.run(x, labels, own)
    seen = []
    real = bank._runner._compute
    monkeypatch.setattr(fused, "MIN_BLOCK", 3)
    monkeypatch.setattr(fused, "WORKSPACE", bank._runner._bytes * 3 * 2)
    monkeypatch.setattr(
        bank._runner._replays, "_run", lambda given, group: seen.append((len(given[0]), group)) or real(given, group)
    )
    found = bank.run(x, labels, own)
    assert {n for n, _ in seen} == {3, 2}
    assert [group for _, group in seen[:3]] == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert torch.equal(found.predictions, wanted.predictions)
    close(found.loss, wanted.loss.double().cpu(), torch.float32)
    close(found.divergence, reference(modules, x, None, own)["divergence"], torch.float32)
    monkeypatch.setattr(fused, "WORKSPACE", 1)  # less than anything needs: one sample, one checkpoint at a time
    seen.clear()
    assert torch.equal(bank.run(x[:2]).predictions, wanted.predictions[:, :2])
    assert seen == [(1, slice(t, t + 1)) for _ in range(2) for t in range(5)]


def test_memory_of_activations_is_what_is_alive() -> None:
    bank = stitch.SuffixBank(checkpoints("resnet"), backend="gpu", exact=False)
    bank.run(features("resnet"))
    # 5x3 pixels become 3x2: at most the block's two images of 8 channels and its input, float32.
    assert bank._runner._bytes == 3 * 8 * 6 * 4


def test_what_cannot_be_fused_runs_as_it_stands() -> None:
    modules = [Untraceable(nn.Linear(8, CLASSES)).to(DEVICE) for _ in range(3)]
    x, labels = torch.randn(5, 8, device=DEVICE), torch.randint(CLASSES, (5,))
    bank = stitch.SuffixBank(modules, backend="gpu")
    found, wanted = bank.run(x, labels), reference(modules, x, labels)
    assert bank.path.name == "general"
    assert "cannot trace Untraceable" in bank.path.why
    assert torch.equal(found.predictions.cpu(), wanted["prediction"])
    close(found.loss, wanted["loss"], torch.float32)


def test_arrays_in_arrays_out_and_bad_input_is_named() -> None:
    modules, x = checkpoints("mlp"), features("mlp").cpu()
    bank = stitch.SuffixBank(modules, backend="gpu", exact=False)
    found = bank.run(x.numpy(), np.array([1, 2, 3], np.uint8))
    assert isinstance(found.predictions, np.ndarray)
    again = bank.run(x.double().T.contiguous().T)
    assert again.loss is None
    assert again.predictions.device.type == "cpu"
    assert (found.predictions == again.predictions.numpy()).all()
    assert bank.run(x[:0]).predictions.shape == (2, 0)
    assert bank.nbytes == 2 * 4 * (37 * 20 + 20 + 20 * CLASSES + CLASSES)
    with pytest.raises(ValueError, match="labels must be below 10, the number of classes, got 10"):
        bank.run(x, torch.tensor([0, 10, 1]))
    with pytest.raises(ValueError, match="own: the suffix returns 10 classes, got logits of 7"):
        bank.run(x, own=torch.zeros(2, 3, 7))
    with pytest.raises(ValueError, match=r"a linear layer takes \(..., 37\), got \(3, 5\)"):
        bank.run(x[:, :5])
    binary, z = nn.Linear(4, 1), torch.randn(9, 4)
    one = stitch.SuffixBank([binary], backend="gpu").run(z, torch.ones(9, dtype=torch.int64))
    assert (one.predictions == (binary(z)[:, 0] > 0)).all()
    torch.testing.assert_close(one.loss[0], torch.nn.functional.softplus(-binary(z).detach()[:, 0]))
    with pytest.raises(ValueError, match="must return logits"):
        stitch.SuffixBank([nn.Conv2d(2, 3, 1)], backend="gpu").run(torch.zeros(3, 2, 2, 2))
    with pytest.raises(TypeError, match=r"torch.bfloat16 or torch.float16, got torch.float64"):
        stitch.SuffixBank(modules, backend="gpu", dtype=torch.float64)


def test_what_cannot_be_captured_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    from featdyn_kernels.stitch.gpu.replay import Replays

    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    bank = stitch.SuffixBank(checkpoints("head"), backend="gpu", exact=False)
    x = features("head")
    wanted = bank.run(x).predictions
    replays = bank._runner._replays
    replays.why_not = ""
    monkeypatch.setattr(Replays, "_capture", refuse)
    for _ in range(3):
        assert torch.equal(bank.run(x).predictions, wanted)
    assert "no CUDA graph: operation not permitted when stream is capturing" in bank.path.why


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_give_what_launches_give(dtype: torch.dtype) -> None:
    modules = checkpoints("resnet", 5)
    bank = stitch.SuffixBank(modules, dtype=dtype, exact=False)
    blocks = [features("resnet", n) for n in (100, 100, 100, 37, 100)]
    for x in blocks:
        found = bank.run(x)
        assert torch.equal(found.predictions, stitch.SuffixBank(modules, dtype=dtype, exact=False).run(x).predictions)
    assert "replayed as a CUDA graph" in bank.path.why
