"""What the GPU path finds in a plan: shortcuts that pad, and heads behind a mean over pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featdyn_kernels.stitch.patterns import head, paddings
from featdyn_kernels.stitch.plan import Affine, plan
from tests.kernels.test_stitch import CLASSES, Residual


class Shortcut(nn.Module):
    def __init__(self, pad: object) -> None:
        super().__init__()
        self.a, self.b, self.fc, self.pad = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 1), nn.Linear(8, CLASSES), pad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.fc(F.relu(self.b(x) + self.pad(x)).mean((2, 3)))


PADS = {
    "plain": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 3)), True),
    "named": (lambda x: F.pad(x, pad=[0, 0, 0, 0, 1, 3], mode="constant", value=0.0), True),
    "strided": (lambda x: F.pad(x[:, :, ::1, ::1], (0, 0, 0, 0, 2, 2), "constant", 0), True),
    "ones": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 3), value=1.0), False),
    "pixels": (lambda x: F.pad(x[:, :, 1:], (0, 0, 1, 0, 1, 3)), False),
    "cropped": (lambda x: F.pad(x, (0, 0, 0, 0, -1, 5)), False),
    "circular": (lambda x: F.pad(x, (1, 1), "circular")[..., 1:-1], False),
    "read twice": (lambda x: (lambda y: y + y)(F.pad(x, (0, 0, 0, 0, 1, 3))), False),
}


@pytest.mark.parametrize("name", PADS)
def test_paddings(name: str) -> None:
    pad, found = PADS[name]
    assert len(paddings(plan(Shortcut(pad).eval()))) == int(found)


def test_the_padding_of_a_residual_network() -> None:
    for block, (before, after) in ((Residual(5, 10, 2), (2, 3)), (Residual(4, 4, 2), (0, 0))):
        (padding,) = paddings(plan(nn.Sequential(block).eval())).values()
        assert padding[1:] == (before, after)


class Mean(nn.Module):
    def __init__(self, reduce: object, before: bool = True) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(4, 6, 1) if before else nn.Identity(), nn.Linear(6 if before else 4, CLASSES)
        self.pool, self.flat, self.reduce = nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), reduce

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.reduce(self, self.conv(x)))


MEANS = {
    "modules": (lambda m, x: m.flat(m.pool(x)), True),
    "functions": (lambda m, x: torch.flatten(F.adaptive_avg_pool2d(x, 1), 1), True),
    "methods": (lambda m, x: m.pool(x).flatten(start_dim=1), True),
    "mean": (lambda m, x: x.mean(dim=[-2, -1]), True),
    "torch.mean": (lambda m, x: torch.mean(x, (3, 2)), True),
    "maximum": (lambda m, x: F.adaptive_max_pool2d(x, 1).flatten(1), False),
    "kept": (lambda m, x: x.mean((2, 3), keepdim=True).flatten(1), False),
    "rows": (lambda m, x: m.pool(x).mean((2, 3)) + m.pool(x).flatten(1), False),
    "read twice": (lambda m, x: (lambda y: y.flatten(1) * y.sum())(m.pool(x)), False),
}


@pytest.mark.parametrize("name", MEANS)
def test_heads(name: str) -> None:
    reduce, pooled = MEANS[name]
    module = Mean(reduce).eval()
    whole = plan(module)
    found = head(whole, module)
    assert found is not None
    assert found.layer is module.fc
    assert found.pooled == pooled
    if pooled:
        assert [type(step) for step in found.plan.own] == [Affine, Affine]
        assert found.plan.own[1].source == found.plan.own[0].value
        assert found.plan.drops[1] == [found.plan.own[0].value]
    else:
        assert found.plan is whole


def test_means_that_all_checkpoints_share_are_taken_once() -> None:
    module = Mean(MEANS["mean"][0], before=False).eval()
    found = head(plan(module), module)
    assert found is not None
    assert not found.pooled


@pytest.mark.parametrize("tail", [nn.Conv2d(4, CLASSES, 1), nn.Sequential(nn.Linear(4, CLASSES), nn.ReLU())])
def test_no_head(tail: nn.Module) -> None:
    module = nn.Sequential(tail).eval()
    assert head(plan(module), module) is None
