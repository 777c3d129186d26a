"""``stitch.SuffixBank`` against the modules themselves, in float64 and as they stand."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import nn

from featdyn_kernels import set_threads, stitch
from featdyn_kernels._dispatch import interpreting
from featdyn_kernels.stitch import plan as planning
from featdyn_kernels.stitch.score import divergence, score

CLASSES = 10


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Residual(nn.Module):
    """A block whose shortcut is the input, strided and zero-padded, or projected."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, project: bool = False, inplace: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace)
        projected = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.downsample = projected if project else None
        self.stride, self.grown = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride > 1 or self.grown:
            before = self.grown // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.grown - before))
        y += x
        return self.relu(y)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.norm1(x)
        x = x + self.attention(z, z, z, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class Weighted(nn.Module):
    """Sums that are no residuals: weighted, broadcast, of a number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 1), nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.add(self.a(x), x, alpha=2)
        z = F.relu(self.b(y) + y.mean((2, 3), keepdim=True)) + 1
        return self.head((self.b(z) + 0.5).flatten(2).amax(2))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


class Viewed(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return F.linear(y.view(y.size(0), -1), torch.ones(CLASSES, 16 * 6 * 5).cumsum(0) / 480)


# name -> how to make a suffix, shape of its features, what is fused in it
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "resnet": (lambda: nn.Sequential(Residual(16, 32, 2), Residual(32, 32), *head(32)), (16, 9, 7), "Winograd"),
    "projections": (
        lambda: nn.Sequential(Residual(16, 48, 2, True, True), Residual(48, 48, inplace=True), *head(48)),
        (16, 8, 8),
        "Winograd",
    ),
    "vgg": (
        lambda: nn.Sequential(
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(32, 32, 5, padding=2)),
            *(nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32 * 15, 24), nn.BatchNorm1d(24), nn.ReLU(True)),
            nn.Linear(24, CLASSES),
        ),
        (16, 10, 7),
        "direct",
    ),
    "odd": (  # channels that fill no vector, groups, dilation, padding by reflection, strings for padding
        lambda: nn.Sequential(
            *(nn.Conv2d(5, 7, 3), nn.ReLU(), nn.Conv2d(7, 14, 3, groups=7, padding="same"), nn.BatchNorm2d(14)),
            *(nn.Conv2d(14, 16, 3, dilation=2), nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"), *head(16)),
        ),
        (5, 11, 9),
        "folded, run by torch",
    ),
    "mlp": (
        lambda: nn.Sequential(nn.ReLU(), nn.Linear(37, 64), nn.BatchNorm1d(64), nn.GELU(), nn.Linear(64, CLASSES)),
        (37,),
        "linear",
    ),
    "head": (lambda: nn.Sequential(*head(17)), (17, 3, 2), "one product"),
    "linear": (lambda: nn.Linear(64, CLASSES), (64,), "one product"),
    "attention": (Attention, (6, 32), "linear"),
    "small": (lambda: nn.Sequential(Residual(16, 32, 2), Residual(32, 32), *head(32)), (16, 3, 4), "Winograd"),
    "point": (lambda: nn.Sequential(Residual(16, 32, 2), Residual(32, 32), *head(32)), (16, 2, 1), "Winograd"),
    "weighted": (Weighted, (16, 5, 5), "Winograd"),
    "viewed": (lambda: Viewed(nn.Conv2d(16, 16, 3, padding=1)), (16, 6, 5), "Winograd"),
    "recurrent": (lambda: Last(nn.GRU(12, 8, batch_first=True), nn.Linear(8, CLASSES)), (5, 12), "linear"),
}


class Last(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[1](self[0](x)[0][:, -1])


def checkpoints(name: str, count: int = 3) -> list[nn.Module]:
    """Make suffixes with BatchNorm buffers as if trained."""
    made = []
    for _ in range(count):
        module = NETS[name][0]()
        for part in module.modules():
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                for tensor in (part.weight.data, part.running_var):
                    tensor.uniform_(0.5, 2)
                for tensor in (part.bias.data, part.running_mean):
                    tensor.normal_()
        made.append(module)
    return made


def features(name: str, n: int = 7) -> torch.Tensor:
    return torch.randn(n, *NETS[name][1])


def plain(modules: list[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """Return the logits of the modules as they stand, (checkpoint, sample, class)."""
    with torch.inference_mode():
        return torch.stack([copy.deepcopy(module).eval()(x.clone()) for module in modules])


def check(found: stitch.Stitched, logits: torch.Tensor, labels: torch.Tensor, tolerance: float = 1e-4) -> None:
    t, n, classes = logits.shape
    assert torch.equal(found.predictions, logits.argmax(-1))
    loss = F.cross_entropy(logits.reshape(-1, classes), labels.repeat(t), reduction="none").reshape(t, n)
    own = logits.gather(-1, labels.expand(t, n)[..., None])[..., 0]
    others = logits.masked_fill(F.one_hot(labels, classes).bool(), -torch.inf).amax(-1)
    torch.testing.assert_close(found.loss, loss, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.margin, own - others, rtol=tolerance, atol=tolerance)
    hidden = logits.masked_fill(F.one_hot(labels, classes).bool(), -torch.inf)
    torch.testing.assert_close(found.log_odds, own - hidden.logsumexp(-1), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("n", [1, 7, 33])
def test_fused_suffixes_give_what_the_modules_give(name: str, n: int) -> None:
    modules, x, labels = checkpoints(name), features(name, n), torch.randint(CLASSES, (n,))
    bank = stitch.SuffixBank(modules)
    found = bank.run(x, labels)
    assert bank.path.name == "fused"
    assert NETS[name][2] in bank.path.why
    check(found, plain(modules, x), labels)


@pytest.mark.parametrize("name", NETS)
def test_reference_is_float64(name: str) -> None:
    modules, x, labels = checkpoints(name), features(name), torch.randint(CLASSES, (7,))
    bank = stitch.SuffixBank(modules, backend="reference")
    assert bank.path.name == "reference"
    if name != "viewed":  # holds a float32 tensor that is no parameter
        check(bank.run(x, labels), plain([m.double() for m in modules], x.double()).float(), labels, 1e-6)


@pytest.mark.parametrize("name", ["resnet", "vgg", "mlp", "attention"])
def test_bfloat16_changes_predictions_only_where_logits_are_close(name: str) -> None:
    modules, x = checkpoints(name), features(name, 200)
    logits = plain(modules, x)
    bank = stitch.SuffixBank(modules, dtype=torch.bfloat16)
    found = bank.run(x).predictions
    differs = found != logits.argmax(-1)
    first, second = logits.topk(2).values.unbind(-1)
    close = first - second < bank.bound * logits.abs().amax((1, 2))[:, None]
    assert not (differs & ~close).any()
    assert differs.float().mean() < 0.02
    exact = stitch.SuffixBank(modules, dtype=torch.bfloat16, exact=True)
    assert torch.equal(exact.run(x).predictions, logits.argmax(-1))


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 5), t=st.integers(1, 4), classes=st.integers(2, 5), labelled=st.booleans(),
    seed=st.integers(0, 999), special=st.sampled_from([0.0, np.nan, np.inf, -np.inf]), size=st.sampled_from([1, 1000]),
)  # fmt: skip
def test_scores(n: int, t: int, classes: int, labelled: bool, seed: int, special: float, size: int) -> None:
    rng = np.random.default_rng(seed)
    logits = size * rng.integers(-3, 3, (n, t, classes)).astype(np.float32)  # integers tie often
    logits[rng.random(logits.shape) < 0.1] = special
    labels = rng.integers(0, classes, n) if labelled else np.empty(0, np.int64)
    prediction, gap, _, loss, margin, log_odds = score(logits, labels)
    tensor = torch.from_numpy(logits).transpose(0, 1)
    top = tensor.topk(2).values
    broken = torch.isnan(tensor).any(-1).numpy()
    assert (prediction == np.where(broken, -1, tensor.argmax(-1).numpy())).all()
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(gap, np.where(broken, np.nan, (top[..., 0] - top[..., 1]).numpy()))
    assert loss.shape == margin.shape == log_odds.shape == (t if labelled else 0, n)
    if labelled:
        wanted = F.cross_entropy(
            tensor.double().reshape(-1, classes), torch.from_numpy(labels).repeat(t), reduction="none"
        )
        np.testing.assert_allclose(loss, wanted.reshape(t, n).numpy(), rtol=1e-6, atol=1e-6)
        own = np.take_along_axis(tensor.numpy(), labels[None, :, None], -1)[..., 0]
        hidden = np.where(np.arange(classes) == labels[:, None], -np.inf, tensor.numpy())
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(margin, np.where(broken, np.nan, own - hidden.max(-1)))
            against = own - np.logaddexp.reduce(hidden.astype(np.float64), axis=-1)
        endless = np.isposinf(tensor.numpy()).any(-1)  # of infinite logits no chances follow
        np.testing.assert_allclose(log_odds[~endless], against[~endless], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_divergence_is_torch_s(backend: str | None) -> None:
    modules, x = checkpoints("resnet"), features("resnet", 33)
    own = 4 * torch.randn(len(modules), 33, CLASSES)
    found = stitch.SuffixBank(modules, backend=backend).run(x, own=own)
    log_q, log_p = plain(modules, x).double().log_softmax(-1), own.double().log_softmax(-1)
    wanted = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(found.divergence, wanted.float(), rtol=1e-4, atol=1e-5)
    assert found.loss is None


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 4), t=st.integers(1, 3), classes=st.integers(2, 5), scale=st.sampled_from([1.0, 1e3, 1e30]))
def test_divergence_of_any_logits(n: int, t: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng(n + 10 * t)
    own = (scale * rng.standard_normal((t, n, classes))).astype(np.float32)
    assert (divergence(own.swapaxes(0, 1).copy(), own) == 0).all()
    logits = (scale * rng.standard_normal((n, t, classes))).astype(np.float32)
    log_p, log_q = log_softmax(own.astype(np.float64), -1), log_softmax(logits.astype(np.float64), -1)
    wanted = (np.exp(log_p) * (log_p - log_q.swapaxes(0, 1))).sum(-1)
    np.testing.assert_allclose(divergence(logits, own), wanted, rtol=1e-6, atol=1e-6)
    logits[0, 0, 0] = np.nan
    assert np.isnan(divergence(logits, own)[0, 0])


def test_close_calls_are_left_to_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """With errors put into the fused logits, predictions still equal the module's."""
    modules, x = checkpoints("resnet"), features("resnet", 64)
    bank, wanted = stitch.SuffixBank(modules), plain(modules, x)
    wrong = stitch.SuffixBank(modules, exact=False)
    bank.run(x[:1])  # what it learns from the first samples comes before the errors
    wrong.run(x[:1])
    scale = float(wanted.abs().amax())
    for each in (bank, wrong):
        each.bound = 0.5

        def noisy(t: int, values: dict, space: object, inner: Callable = each._runner._own) -> torch.Tensor:
            logits = inner(t, values, space)
            return logits + 0.1 * scale * torch.randn(logits.shape).clamp(-1, 1)

        monkeypatch.setattr(each._runner, "_own", noisy)
    assert torch.equal(bank.run(x).predictions, wanted.argmax(-1))
    assert not torch.equal(wrong.run(x).predictions, wanted.argmax(-1))


def test_exact_ties_go_the_module_s_way() -> None:
    modules = checkpoints("resnet")
    for module in modules:  # classes 3 and 5 always tie
        module[-1].weight.data[5] = module[-1].weight.data[3]
        module[-1].bias.data[[3, 5]] = 10
    x = features("resnet", 50)
    assert torch.equal(stitch.SuffixBank(modules).run(x).predictions, plain(modules, x).argmax(-1))


@pytest.mark.parametrize("backend", [None, "reference"])
def test_nan_and_infinity_give_what_the_module_gives(backend: str | None) -> None:
    modules, x, labels = checkpoints("resnet"), features("resnet"), torch.randint(CLASSES, (7,))
    bank = stitch.SuffixBank(modules, backend=backend)
    clean = bank.run(x, labels)
    x[2, 0, 0, 0], x[5, 3, 4, 4] = torch.nan, torch.inf
    logits, found = plain(modules, x), bank.run(x, labels)
    assert logits[:, 2].isnan().any()
    assert torch.equal(found.predictions, logits.argmax(-1).masked_fill(logits.isnan().any(-1), -1))
    assert found.loss[:, [2, 5]].isnan().all()
    whole = [0, 1, 3, 4, 6]
    torch.testing.assert_close(found.loss[:, whole], clean.loss[:, whole])


def test_from_states_reads_its_part_of_a_network() -> None:
    networks = [nn.Sequential(nn.Conv2d(3, 16, 3), *checkpoints("resnet", 1)[0]) for _ in range(3)]
    suffix = networks[0][1:]  # keeps the names that its modules have in the network
    x = features("resnet")
    bank = stitch.SuffixBank.from_states(suffix, [n.state_dict() for n in networks])
    assert torch.equal(bank.run(x).predictions, plain([n[1:] for n in networks], x).argmax(-1))
    with pytest.raises(ValueError, match=r"no '1.conv1.weight'"):
        stitch.SuffixBank.from_states(suffix, [{}])
    state = networks[0].state_dict() | {"1.bn1.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"1.bn1.bias must have shape \(32,\), got \(3,\)"):
        stitch.SuffixBank.from_states(suffix, [state])


def test_from_states_of_a_recurrent_net() -> None:
    modules, x = checkpoints("recurrent"), features("recurrent")
    bank = stitch.SuffixBank.from_states(modules[0], [m.state_dict() for m in modules])
    assert torch.equal(bank.run(x).predictions, plain(modules, x).argmax(-1))


def test_modules_and_features_are_left_alone() -> None:
    modules, x = checkpoints("projections"), features("projections")
    before = copy.deepcopy([m.state_dict() for m in modules]), x.clone()
    stitch.SuffixBank(modules).run(x)
    assert all(m.training and m[0].relu.inplace for m in modules)
    for module, state in zip(modules, before[0], strict=True):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, state[name])
    assert torch.equal(x, before[1])


class Untraceable(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > -1e9 else -x)


class Overwrites(nn.Module):
    """Reads its input after it has written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.relu_()
        return self.linear(x + y)


def test_what_cannot_be_fused_runs_as_it_stands() -> None:
    linear = [nn.Linear(8, CLASSES) for _ in range(3)]
    batch = [nn.Sequential(nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, CLASSES)) for _ in range(2)]
    cases = {
        "cannot trace Untraceable": [Untraceable(part) for part in linear],
        "one architecture": [linear[0], nn.Sequential(linear[1], nn.ReLU())],
        "statistics of the batch": batch,
        "writes in place": [Overwrites() for _ in range(2)],
    }
    x, labels = torch.randn(11, 8), torch.randint(CLASSES, (11,))
    for why, modules in cases.items():
        bank = stitch.SuffixBank(modules)
        check(bank.run(x, labels), plain(modules, x), labels)
        assert bank.path.name == "general"
        assert why in bank.path.why
        assert bank.nbytes == 0


def test_a_fused_path_that_is_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = planning._fuse
    monkeypatch.setattr(planning, "_fuse", lambda *args: [_without_relu(step) for step in real(*args)])
    modules, x = checkpoints("resnet"), features("resnet")
    bank = stitch.SuffixBank(modules)
    assert torch.equal(bank.run(x).predictions, plain(modules, x).argmax(-1))
    assert bank.path.name == "general"
    assert "wrong" in bank.path.why


def _without_relu(step: planning.Affine | planning.Call) -> planning.Affine | planning.Call:
    if isinstance(step, planning.Affine):
        return planning.Affine(step.value, step.layer, step.source, step.norm, step.residual, False)
    return step


def test_layers_are_fused_with_what_follows() -> None:
    module = checkpoints("projections", 1)[0].eval()
    found = planning.plan(module)
    affine = [step for step in found.own if isinstance(step, planning.Affine)]
    assert len(affine) == 6
    assert sum(step.residual is not None for step in affine) == 2
    assert sum(step.relu for step in affine) == 4
    assert all(step.norm for step in affine[:-1])
    assert len(found.own) == 8  # beside them, pooling and flattening
    shortcut = planning.plan(checkpoints("resnet", 1)[0].eval())
    assert [call.op for call in shortcut.shared] == ["call_function"] * 2  # stride and padding of the features


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_any_precision(dtype: torch.dtype) -> None:
    modules, x = checkpoints("resnet"), features("resnet").to(dtype)
    found = stitch.SuffixBank(modules).run(x).predictions
    assert torch.equal(found, plain(modules, x.float()).argmax(-1))


def test_numpy_in_numpy_out_and_any_strides() -> None:
    modules, x = checkpoints("resnet"), features("resnet", 14)
    labels = np.random.default_rng(0).integers(0, CLASSES, 14)
    bank = stitch.SuffixBank(modules)
    wanted = bank.run(x, torch.from_numpy(labels))
    found = bank.run(x.numpy(), labels.astype(np.uint8))
    assert isinstance(found.predictions, np.ndarray)
    assert (found.predictions.dtype, found.loss.dtype, found.margin.dtype) == (np.int64, np.float32, np.float32)
    for strided in (x.transpose(2, 3).contiguous().transpose(2, 3), x.to(memory_format=torch.channels_last)):
        again = bank.run(strided, torch.from_numpy(labels))
        assert torch.equal(again.predictions, wanted.predictions)
        torch.testing.assert_close(again.loss, wanted.loss)
    half = bank.run(x[::2], torch.from_numpy(labels[::2]))
    assert torch.equal(half.predictions, wanted.predictions[:, ::2])
    np.testing.assert_allclose(found.loss, wanted.loss.numpy(), rtol=1e-6)
    assert bank.run(x).loss is None
    empty = bank.run(x[:0], torch.from_numpy(labels[:0]))
    assert empty.predictions.shape == empty.loss.shape == (3, 0)


def test_safe_under_many_threads_and_any_number_of_its_own() -> None:
    modules, x = checkpoints("resnet", 5), features("resnet", 41)
    wanted = plain(modules, x).argmax(-1)
    bank = stitch.SuffixBank(modules)
    try:
        for threads in (1, 3, None):
            set_threads(threads)
            with ThreadPoolExecutor(6) as pool:
                rows = [slice(0, n) for n in (41, 1, 17, 30, 41, 2, 41, 9)]
                futures = [pool.submit(bank.run, x[r]) for r in rows]
                for r, future in zip(rows, futures, strict=True):
                    assert torch.equal(future.result().predictions, wanted[:, r])
    finally:
        set_threads(None)


def test_torch_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    stitch.SuffixBank(checkpoints("vgg")).run(features("vgg"))
    assert torch.get_num_threads() == before


def test_bytes_of_the_laid_out_weights() -> None:
    modules = checkpoints("linear")
    bank = stitch.SuffixBank(modules)
    assert len(bank) == 3
    assert bank.nbytes == 4 * (64 + 1) * 32  # three heads of ten classes fill two vectors


def test_bad_input_is_named() -> None:
    bank = stitch.SuffixBank(checkpoints("resnet"))
    x = features("resnet")
    with pytest.raises(ValueError, match="suffixes must hold at least one module"):
        stitch.SuffixBank([])
    with pytest.raises(ValueError, match="states must hold at least one checkpoint"):
        stitch.SuffixBank.from_states(checkpoints("linear")[0], [])
    with pytest.raises(TypeError, match=r"dtype must be torch.float32 or torch.bfloat16, got torch.float16"):
        stitch.SuffixBank(checkpoints("linear"), dtype=torch.float16)
    with pytest.raises(ValueError, match="backend must be one of"):
        stitch.SuffixBank(checkpoints("linear"), backend="tpu")
    with pytest.raises(ValueError, match=r"features must have shape \(N, ...\), got \(7,\)"):
        bank.run(torch.zeros(7))
    with pytest.raises(TypeError, match=r"features must be floating-point, got torch.int64 of shape \(7, 16, 9, 7\)"):
        bank.run(x.long())
    for once in range(2):  # the first run compares with the modules, a later one does not
        with pytest.raises(ValueError, match=r"\(\d, 5, 9, 7\)"):
            bank.run(x[:, :5])
        if once == 0:
            bank.run(x)
    with pytest.raises(ValueError, match=r"labels must have shape \(7,\) like the features, got \(6,\)"):
        bank.run(x, torch.zeros(6, dtype=torch.int64))
    with pytest.raises(TypeError, match="labels must be integers, got float32"):
        bank.run(x, torch.zeros(7))
    with pytest.raises(ValueError, match="labels must not be negative"):
        bank.run(x, torch.full((7,), -1))
    with pytest.raises(ValueError, match="labels must be below 10, the number of classes, got 10"):
        bank.run(x, torch.full((7,), 10))
    with pytest.raises(ValueError, match=r"must return logits"):
        stitch.SuffixBank([nn.Conv2d(16, 16, 3)]).run(x)
    with pytest.raises(ValueError, match=r"labels must be below 2, the number of classes, got 2"):
        stitch.SuffixBank([nn.Linear(4, 1)]).run(torch.zeros(3, 4), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("hidden", [True, False])
def test_one_logit_is_that_of_class_1_against_class_0(backend: str | None, hidden: bool) -> None:
    """Against binary cross-entropy and the divergence of two Bernoulli laws in float64."""
    wide = [nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)) for _ in range(3)]
    suffixes = wide if hidden else [nn.Linear(4, 1) for _ in range(3)]
    x, labels, own = torch.randn(50, 4), torch.arange(50) % 2, torch.randn(3, 50, 1)
    found = stitch.SuffixBank(suffixes, backend=backend).run(x, labels, own)
    with torch.no_grad():
        z = torch.stack([copy.deepcopy(suffix).double()(x.double())[:, 0] for suffix in suffixes])
    assert (found.predictions == (z > 0)).all()
    assert 0 < int(found.predictions.sum()) < found.predictions.numel()
    sign, p = 2 * labels.double() - 1, own[..., 0].double().sigmoid()
    loss = F.binary_cross_entropy_with_logits(z, labels.double().expand(3, -1), reduction="none")
    divergence = p * (p / z.sigmoid()).log() + (1 - p) * ((1 - p) / (-z).sigmoid()).log()
    wanted_scores = (found.margin, sign * z), (found.log_odds, sign * z), (found.divergence, divergence)
    for mine, wanted in ((found.loss, loss), *wanted_scores):
        torch.testing.assert_close(mine.double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available() or interpreting(), reason="there is something to run it on")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="backend='gpu' needs a CUDA device"):
        stitch.SuffixBank(checkpoints("linear"), backend="gpu")


def test_import_is_light() -> None:
    code = "import sys; from featdyn_kernels import stitch; print({'torch', 'numba', 'triton'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("sizes", [((2, 2), (5, 3), (1, 4), (2, 2)), ((6, 5), (3, 1))])
def test_a_suffix_takes_maps_of_any_size_in_turn(sizes: tuple[tuple[int, int], ...]) -> None:
    """Of small ones a convolution is one product, whose weights are laid out when they come."""
    torch.manual_seed(0)
    module = nn.Sequential(Residual(16, 32, 1), Residual(32, 32), *head(32)).eval()
    bank = stitch.SuffixBank.from_states(module, [module.state_dict()])
    assert bank.path.name == "fused"
    for size in sizes:
        x = torch.randn(7, 16, *size)
        with torch.no_grad():
            wanted = copy.deepcopy(module).double()(x.double())
        labels = torch.arange(7) % CLASSES
        loss = F.cross_entropy(wanted, labels, reduction="none").float()
        torch.testing.assert_close(bank.run(x, labels).loss[0], loss, rtol=1e-5, atol=1e-5)


class FlatView(nn.Module):
    """A suffix that takes a view of its input, which only one order of memory has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 4 * 5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 1e9:  # what torch.fx cannot follow, so that it runs as it stands
            return x
        found: torch.Tensor = self.fc(x.view(-1, 60))
        return found


@pytest.mark.parametrize("module", [FlatView(), nn.Sequential(Residual(16, 16), *head(16))], ids=["general", "fused"])
def test_features_come_in_any_order_of_memory(module: nn.Module) -> None:
    x = torch.randn(9, 3, 4, 5) if isinstance(module, FlatView) else torch.zeros(9, 16, 6, 5)  # all tie: settled again
    bank = stitch.SuffixBank([module])
    other = x.contiguous(memory_format=torch.channels_last)
    assert other.stride() != x.stride()
    labels = torch.arange(9)
    for mine, wanted in zip(bank.run(other, labels)[:4], bank.run(x, labels)[:4], strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=0)
