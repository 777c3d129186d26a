"""Triton's kernels for stitching against float64: on a GPU, or under Triton's interpreter on small odd shapes."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn_kernels._dispatch import interpreting
from tests.kernels.interpreted import on_a_gpu, sized

pytestmark = [
    pytest.mark.skipif(not (torch.cuda.is_available() or interpreting()), reason="needs CUDA or TRITON_INTERPRET=1"),
    # The interpreter is numpy, which warns where a GPU only computes: of infinity minus infinity, say.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA: the interpreter has no such thing")
DEVICE = "cpu" if interpreting() else "cuda"
# What rounding of inputs and results allows: 2**-24, 2**-11 and 2**-8, some of them one after the other.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    """Compare in units of the largest number."""
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(found.double().cpu() / scale, wanted / scale, rtol=0, atol=TOLERANCE[dtype])


# (T, N, inputs, height, width, outputs, taps, stride, padding), each odd in another way
CONVOLUTIONS = [
    (1, 1, 1, 1, 1, 1, (3, 3), (1, 1), (1, 1)),
    (3, 2, 5, 5, 3, 7, (3, 3), (1, 1), (1, 1)),
    (2, 3, 17, 5, 7, 19, (3, 3), (2, 2), (1, 1)),
    (2, 1, 3, 6, 5, 33, (2, 4), (1, 3), (2, 0)),
    (1, 11, 4, 3, 5, 130, (1, 1), (2, 1), (0, 0)),
]


RESIDUALS = ("none", "own", "shared and padded")
# Of halves, the interpreter sees two of everything: a dtype changes how numbers are read and written.
HALVES = [(CONVOLUTIONS[1], "own"), (CONVOLUTIONS[2], "shared and padded")]


@pytest.mark.parametrize(
    ("shape", "residual", "dtype"),
    [
        case if case[2] == torch.float32 or case[:2] in HALVES else on_a_gpu(*case)
        for case in product(CONVOLUTIONS, RESIDUALS, TOLERANCE)
    ],
)
def test_convolution(shape: tuple, residual: str, dtype: torch.dtype) -> None:
    from featdyn_kernels.stitch.gpu.convolution import convolution

    t, n, inputs, height, width, outputs, taps, stride, padding = shape
    shared = residual != "own"
    x = torch.randn(1 if shared else t, n, inputs, height, width)
    weight, bias = torch.randn(t, outputs, inputs, *taps) / (inputs * taps[0] * taps[1]) ** 0.5, torch.randn(t, outputs)
    x, weight = x.to(dtype), weight.to(dtype)
    wanted = torch.stack([
        F.conv2d(z.double(), w.double(), b.double(), stride, padding)
        for z, w, b in zip(x.expand(t, *x.shape[1:]), weight, bias, strict=True)
    ])  # fmt: skip
    added, before = None, 0
    if residual == "own":
        added = torch.randn(wanted.shape).to(dtype)
        wanted = wanted + added.double()
    elif residual == "shared and padded":
        channels, before = max(1, outputs // 2), outputs - max(1, outputs // 2)
        strided = torch.randn(1, n, channels, 2 * wanted.shape[3], 3 * wanted.shape[4])
        added = strided[..., ::2, ::3]
        wanted[:, :, before:] += added.double()
    relu = residual != "none"
    if shared:  # any strides will do; these are the fast ones
        x = x[0].contiguous(memory_format=torch.channels_last)[None]
    found = convolution(
        x.to(DEVICE), weight.permute(0, 3, 4, 2, 1).contiguous().to(DEVICE), bias.to(DEVICE),
        None if added is None else added.to(DEVICE), before, list(stride), list(padding), relu,
    )  # fmt: skip
    assert found.dtype == dtype
    assert found.permute(0, 1, 3, 4, 2).is_contiguous()
    close(found, wanted.relu() if relu else wanted, dtype)


FIGURES = ("gap", "scale", "loss", "margin", "log_odds", "divergence")


def reduced(
    logits: torch.Tensor, labels: torch.Tensor | None = None, own: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return what scores mean, of float64 logits (T, N, classes)."""
    top, log_q = logits.topk(2).values, logits.log_softmax(-1)
    broken = logits.isnan().any(-1)
    missing = torch.full(broken.shape, torch.nan, dtype=torch.float64)
    found = {
        "prediction": logits.argmax(-1).masked_fill(broken, -1),
        "gap": torch.where(broken, torch.nan, top[..., 0] - top[..., 1]),
        "scale": logits.nan_to_num(0.0, torch.inf, -torch.inf).abs().amax(-1),
    } | dict.fromkeys(FIGURES[2:], missing)
    if labels is not None:
        at = labels.expand(logits.shape[:2])[..., None]
        hidden = logits.masked_fill(F.one_hot(labels, logits.shape[-1]).bool(), -torch.inf)
        reached, others = logits.gather(-1, at)[..., 0], hidden.amax(-1)
        found["loss"] = -log_q.gather(-1, at)[..., 0]
        found["margin"] = torch.where(broken, torch.nan, reached - others)
        found["log_odds"] = reached - hidden.logsumexp(-1)
    if own is not None:
        found["divergence"] = F.kl_div(log_q, own.double().log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return found


def check(found: tuple[torch.Tensor, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    prediction, figures = found
    assert torch.equal(prediction.cpu(), wanted["prediction"])
    for name, figure in zip(FIGURES, figures, strict=True):
        torch.testing.assert_close(
            figure.double().cpu(), wanted[name], rtol=tolerance, atol=tolerance, equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


@settings(max_examples=sized(20, 12), deadline=None)
@given(
    t=st.integers(1, 3), n=st.integers(1, 5), classes=st.sampled_from([2, 3, 10, 16, 5000]), asked=st.integers(0, 3),
    seed=st.integers(0, 999), special=st.sampled_from([0.0, torch.nan, -torch.inf]), size=st.sampled_from([1, 1000]),
)  # fmt: skip
def test_scores(t: int, n: int, classes: int, asked: int, seed: int, special: float, size: int) -> None:
    from featdyn_kernels.stitch.gpu.scores import reduce

    draw = torch.Generator().manual_seed(seed)
    logits = size * torch.randint(-3, 3, (t, n, classes), generator=draw).double()  # integers tie often
    logits[torch.rand(logits.shape, generator=draw) < 0.1] = special
    logits[..., 0] = logits[..., 0].nan_to_num(0.0, 0.0, 0.0)  # not all of them minus infinity
    labels = torch.randint(classes, (n,), generator=draw) if asked & 1 else None
    own = 3 * torch.randn(t, n, classes, generator=draw) if asked & 2 else None
    given = [None if x is None else x.to(DEVICE) for x in (labels, own)]
    check(reduce(logits.float().transpose(0, 1).to(DEVICE), *given), reduced(logits, labels, own), 5e-6)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e30])
def test_divergence_of_extreme_logits(scale: float) -> None:
    from featdyn_kernels.stitch.gpu.scores import scores

    own, logits = scale * torch.randn(2, 3, 7), scale * torch.randn(3, 2, 7).transpose(0, 1)
    found = scores(logits.to(DEVICE), None, own.to(DEVICE))[1][5].double().cpu()
    torch.testing.assert_close(found, reduced(logits.double(), None, own)["divergence"], rtol=1e-5, atol=1e-6)
    same = scores(own.to(DEVICE), None, own.to(DEVICE))[1][5]
    assert (same >= 0).all()
    assert (same < 1e-6).all()


@pytest.mark.parametrize(
    ("t", "n", "inputs", "pixels", "classes"), [(1, 1, 1, 1, 2), (3, 17, 67, 6, 10), (2, 3, 130, 1, 100)]
)
@pytest.mark.parametrize("shared", [True, False])
def test_heads(t: int, n: int, inputs: int, pixels: int, classes: int, shared: bool) -> None:
    from featdyn_kernels.stitch.gpu.scores import heads

    x = torch.randn(1 if shared else t, n, pixels, inputs).transpose(2, 3)
    weight, bias, labels = torch.randn(t, inputs, classes), torch.randn(t, classes), torch.randint(classes, (n,))
    own = torch.randn(t, n, classes)
    logits = x.double().mean(-1) @ weight.double() + bias.double()[:, None]
    given = [tensor.to(DEVICE) for tensor in (x, weight, bias, labels, own)]
    check(heads(*given), reduced(logits, labels, own), 3e-5)
    check(heads(*given[:3], None, None), reduced(logits), 3e-5)


@pytest.mark.gpu
@needs_cuda
def test_opcheck() -> None:
    from featdyn_kernels.stitch.gpu.convolution import convolution
    from featdyn_kernels.stitch.gpu.scores import heads, scores

    x, weight = torch.randn(2, 3, 5, 7, 6, device="cuda"), torch.randn(2, 3, 3, 5, 9, device="cuda")
    bias, residual = torch.randn(2, 9, device="cuda"), torch.randn(1, 3, 4, 4, 3, device="cuda")
    torch.library.opcheck(convolution, (x, weight, bias, residual, 2, [2, 2], [1, 1], True))
    torch.library.opcheck(convolution, (x[:1], weight, bias, None, 0, [1, 1], [1, 1], False))
    labels = torch.randint(9, (3,), device="cuda")
    torch.library.opcheck(heads, (x.flatten(3), weight[:, 0, 0], bias, labels, None))
    torch.library.opcheck(scores, (torch.randn(2, 3, 9, device="cuda"), None, torch.randn(2, 3, 9, device="cuda")))
