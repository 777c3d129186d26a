"""How features answer to small steps: beside central differences in float64."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jvp, vmap

from featdyn.analysis.gradient_noise import linear_response
from featdyn.analysis.gradient_noise.linear_response import Features, doubled
from featdyn.analysis.gradient_noise.sampler import flat, moved
from featdyn.analysis.gradient_noise.tangents import SinglePrecisionTangents
from featdyn.networks import build, cuts, features_at, resolve, state_for

NETWORKS = {
    "mlp": {"widths": [7, 5]},
    "cnn": {"widths": [3, 4]},
    "resnet20": {"width": 2},
    "vit": {"depth": 1, "heads": 2, "width": 8, "mlp_width": 9},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_beside_differences(name, monkeypatch):
    torch.manual_seed(0)
    model = build(name, classes=3, shape=(1, 8, 8), **NETWORKS[name]).eval().double()
    x = torch.randn(3, 1, 8, 8).double()
    places = resolve(cuts(model, x), ("default",))
    part = features_at(model, places)
    names = [n for n, _ in part.named_parameters()]
    state = doubled(state_for(part, model.state_dict()))
    # Small enough that no unit changes its sign on the way.
    steps = [1e-3 * torch.randn(len(flat(state, names)), dtype=torch.float64) for _ in range(3)]
    monkeypatch.setattr(linear_response, "TOGETHER", 1)  # one step at a time
    one = Features(model, places, x).response(model.state_dict(), steps, names)
    monkeypatch.undo()
    together = Features(model, places, x).response(model.state_dict(), steps, names)

    def at(step):
        with torch.no_grad():
            return [z.flatten(1) for z in functional_call(part, moved(state, step, names), (x,))]

    for c in range(len(places)):
        assert one[c].shape == (3, 3, np.prod(places[c].shape))
        torch.testing.assert_close(one[c], together[c])
        for k, step in enumerate(steps):
            wanted = (at(1e-4 * step)[c] - at(-1e-4 * step)[c]) / 2e-4
            assert (one[c][:, k] - wanted).norm() < 1e-5 * wanted.norm()
    tiny = Features(model, places, x).response(model.state_dict(), [1e-60 * steps[0], 0 * steps[0]], names)
    torch.testing.assert_close(tiny[-1][:, 0] * 1e60, one[-1][:, 0])  # no step is too small
    assert not tiny[-1][:, 1].any()


CONVOLUTIONS = [
    (torch.conv1d, (2, 4, 9), (6, 2, 3), {"groups": 2, "stride": 2}),
    (torch.conv2d, (3, 2, 7, 5), (4, 2, 3, 2), {"padding": (1, 0), "dilation": (2,)}),
    (torch.conv3d, (1, 2, 4, 5, 6), (3, 2, 2, 2, 3), {}),
    (torch.conv2d, (3, 2, 7, 5), (4, 2, 3, 3), {"padding": "same"}),
    (torch.conv2d, (2, 7, 5), (4, 2, 3, 3), {"padding": 1}),
]


@pytest.mark.parametrize(("conv", "x", "w", "how"), CONVOLUTIONS, ids=["1d", "2d", "3d", "same", "one image"])
@pytest.mark.parametrize("moved_too", [(0,), (1,), (2,), (0, 1, 2)])
def test_convolutions_of_float64_keep_their_values_and_push_tangents_in_float32(conv, x, w, how, moved_too):
    drawn = torch.Generator().manual_seed(1)
    given = [torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in (x, w, w[:1])]
    steps = [torch.randn(4, *given[i].shape, generator=drawn, dtype=torch.float64) for i in moved_too]

    def response(*steps):
        def values(*moving):
            return conv(*(moving[moved_too.index(i)] if i in moved_too else given[i] for i in range(3)), **how)

        return jvp(values, tuple(given[i] for i in moved_too), steps)

    value, wanted = vmap(response)(*steps)
    with SinglePrecisionTangents():
        same, found = vmap(response)(*steps)
    torch.testing.assert_close(same, value, rtol=1e-14, atol=1e-14)
    assert found.dtype == torch.float64
    error = float((found - wanted).norm() / wanted.norm())
    rounded = moved_too != (2,) and how.get("padding") != "same" and len(x) == len(w)
    assert (1e-9 < error < 2e-7) if rounded else error < 1e-15


def test_responses_are_those_of_float64_but_for_their_rounding(monkeypatch):
    torch.manual_seed(0)
    model = build("resnet20", classes=3, shape=(1, 8, 8), width=4).eval().double()
    x = torch.randn(3, 1, 8, 8).double()
    places = resolve(cuts(model, x), ("default",))
    names = [n for n, _ in features_at(model, places).named_parameters()]
    state = doubled(model.state_dict())
    steps = [torch.randn(len(flat(state, names)), dtype=torch.float64) for _ in range(3)]
    found = Features(model, places, x).response(state, steps, names)
    monkeypatch.setattr(linear_response, "SinglePrecisionTangents", nullcontext)
    wanted = Features(model, places, x).response(state, steps, names)
    for one, exact in zip(found, wanted, strict=True):
        error = (one - exact).norm(dim=2) / exact.norm(dim=2)
        assert (error > 1e-9).all()
        assert (error < 1e-6).all()


class Twin(nn.Module):
    """One function in two ways, of which the first has no forward derivative."""

    def __init__(self, kind: str, plain: bool) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(0)
        self.kind, self.plain = kind, plain
        self.rows = nn.Parameter(torch.randn(9, 4, generator=drawn, dtype=torch.float64))
        self.lengths = nn.Parameter(torch.rand(9, 1, generator=drawn, dtype=torch.float64))
        self.middle, self.head = nn.Tanh(), nn.Linear(9 if kind == "weight norm" else 4, 3, dtype=torch.float64)

    def forward(self, x):
        if self.kind == "weight norm":
            normed = self.rows * self.lengths / self.rows.norm(dim=1, keepdim=True)
            z = x @ (normed if self.plain else torch._weight_norm(self.rows, self.lengths)).T
        elif self.kind == "bag":
            z = F.embedding(x, self.rows).mean(1) if self.plain else F.embedding_bag(x, self.rows)
        else:
            z = x @ self.rows[:4]
            z = z * (torch.sign(z) if self.plain else torch.from_numpy(np.sign(z.detach().numpy())))
        return self.head(self.middle(z))


@pytest.mark.parametrize("kind", ["weight norm", "bag", "numpy"])
def test_what_has_no_forward_derivative_moves_as_what_has_one(kind):
    x = torch.arange(15).view(3, 5) % 9 if kind == "bag" else torch.randn(3, 4, dtype=torch.float64)
    found = []
    for plain in (True, False):
        model = Twin(kind, plain).eval()
        features = Features(model, resolve(cuts(model, x), ("middle",)), x)
        steps = [scale * torch.ones(36, dtype=torch.float64) for scale in (1e-12, 0)]
        found.append(features.response(dict(model.state_dict()), steps, ["rows"])[0])
        assert bool(features.lacking) is not plain
    assert found[0][:, 0].norm() > 0
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-8 * float(found[0].abs().max()))
    assert not found[1][:, 1].any()


@pytest.mark.parametrize("which", [0, 1])
def test_values_may_differ_from_step_to_step(which: int) -> None:
    """As behind a layer that is random: then values are batched too, not only what is pushed."""
    drawn = torch.Generator().manual_seed(2)
    x, w = torch.randn(3, 2, 7, 5, generator=drawn).double(), torch.randn(4, 2, 3, 2, generator=drawn).double()
    many = torch.randn(4, *(x, w)[which].shape, generator=drawn).double()
    steps = torch.randn(many.shape, generator=drawn).double()

    def response(own: torch.Tensor, step: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def values(moving: torch.Tensor) -> torch.Tensor:
            return torch.conv2d(*((moving, w) if which == 0 else (x, moving)), stride=2, padding=1)

        return jvp(values, (own,), (step,))  # type: ignore[return-value]

    wanted = [response(own, step) for own, step in zip(many, steps, strict=True)]
    with SinglePrecisionTangents():
        value, pushed = vmap(response)(many, steps)
    torch.testing.assert_close(value, torch.stack([v for v, _ in wanted]), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(pushed, torch.stack([p for _, p in wanted]), rtol=1e-5, atol=1e-5)


def small() -> tuple[Features, dict[str, torch.Tensor], list[torch.Tensor], list[str]]:
    """Features of 4 inputs behind 8 parameters, and seven steps of some of these."""
    random = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double().eval()
    x = torch.randn(4, 3, generator=random, dtype=torch.float64)
    features = Features(model, resolve(cuts(model, x), ("1",)), x)
    steps = [torch.randn(6, generator=random, dtype=torch.float64) for _ in range(7)]
    return features, dict(model.state_dict()), steps, ["0.weight"]


@pytest.mark.parametrize("together", [1, 3, 7, 99])
def test_as_many_steps_are_pushed_at_once_as_fit(monkeypatch, together: int) -> None:
    features, state, steps, names = small()
    wanted, pushed = features.response(state, steps, names)[0], []

    def counted(along, **how):
        return lambda tangents: (pushed.append(len(tangents["0.weight"])), vmap(along, **how)(tangents))[1]

    one = 8 * (3 * 6 + 8 * 4 * 2)
    monkeypatch.setattr(linear_response, "vmap", counted)
    for room, many in ((together * one, together), (together * one - 1, max(1, together - 1))):
        pushed.clear()
        monkeypatch.setattr(linear_response, "TOGETHER", room)
        torch.testing.assert_close(features.response(state, steps, names)[0], wanted)
        assert max(pushed) == min(many, 7)
        assert sum(pushed) == 7
        assert pushed == sorted(pushed, reverse=True)
        assert linear_response.pushed_bytes(7, 6, 4, 2) == max(one, min(room, 7 * one))


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA ran out"), ""),
        (RuntimeError("not enough memory: you tried"), ""),
        (RuntimeError("no rule for this\nat line 3"), "no rule for this"),
    ],
)
def test_what_does_not_fit_is_no_lack_of_a_derivative(monkeypatch, error: Exception, lacks: str) -> None:
    features, state, steps, names = small()
    wanted, asked = features.response(state, steps, names)[0], []

    def failing(*_, **__):
        asked.append(1)
        raise error

    monkeypatch.setattr(linear_response, "vmap", failing)
    monkeypatch.setattr(linear_response, "TOGETHER", 1)
    if not lacks:
        with pytest.raises(type(error), match=str(error)):
            features.response(state, steps, names)
    else:
        torch.testing.assert_close(features.response(state, steps, names)[0], wanted, rtol=1e-8, atol=1e-9)
    assert features.lacking == lacks
    assert len(asked) == 1
