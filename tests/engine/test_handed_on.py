"""Layers whose outputs are handed on without a copy give what they give with one, whatever writes into them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from featdyn.capture import tap
from featdyn.capture.handed_on import HandedOn


class Body(nn.Module):
    """A layer, what is done to its output, and a path around a layer that returns what it is given."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.inner, self.same = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Dropout()
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        x = self.then(self.first(x))
        x = self.inner(x)
        return self.last(x + torch.sin(self.same(x)))


def on_data(x: Tensor) -> Tensor:
    x.data.mul_(2)
    return x


def on_data_of_a_view(x: Tensor) -> Tensor:
    x.detach().view(-1)[::2] += 1
    return x


LATER: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": torch.tanh,
    "relu": lambda x: nn.functional.relu(x, inplace=True),
    "a slice": lambda x: x[:, :2].mul_(3) @ torch.ones(2, 6),
    "data": on_data,
    "a view": on_data_of_a_view,
}
LAYERS = ["first", "inner.0", "inner.1", "inner", "same"]


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("then", LATER.values(), ids=LATER.keys())
def test_passes_without_copies_give_the_same_bits(then: Callable[[Tensor], Tensor], gradients: bool) -> None:
    net, on = Body(then), HandedOn()
    for seed in range(3):
        batch = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)), torch.arange(5) % 3
        expected = tap.run(net, *batch, LAYERS, gradients=gradients)
        found = tap.run(net, *batch, LAYERS, gradients=gradients, handed_on=on)
        for name in LAYERS:
            assert torch.equal(found.activations[name], expected.activations[name]), name
            if gradients:
                assert torch.equal(found.gradients[name], expected.gradients[name]), name
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.loss, expected.loss)


@pytest.mark.parametrize("gradients", [False, True])
def test_what_is_written_into_from_some_pass_on_is_seen(gradients: bool) -> None:
    net, on = Body(torch.tanh), HandedOn()
    batch = torch.randn(5, 4), torch.arange(5) % 3
    tap.run(net, *batch, LAYERS, gradients=gradients, handed_on=on)
    net.then = LATER["relu"]
    expected = tap.run(net, *batch, LAYERS, gradients=gradients)
    for _ in range(2):
        found = tap.run(net, *batch, LAYERS, gradients=gradients, handed_on=on)
        assert torch.equal(found.activations["first"], expected.activations["first"])
        assert found.activations["first"].min() < 0
        if gradients:
            assert torch.equal(found.gradients["first"], expected.gradients["first"])


def test_a_leaf_that_nobody_may_write_into_is_copied_then() -> None:
    """The output of a frozen layer becomes a leaf; of a leaf's view autograd lets nobody write into."""
    net, on = Body(torch.tanh), HandedOn()
    net.first.requires_grad_(False)
    tokens = torch.arange(5) % 4
    net.first = nn.Embedding(4, 6).requires_grad_(False)  # type: ignore[assignment]
    for then in (torch.tanh, LATER["relu"]):
        net.then = then
        expected = tap.run(net, tokens, tokens % 3, ["first"], gradients=True)
        found = tap.run(net, tokens, tokens % 3, ["first"], gradients=True, handed_on=on)
        assert torch.equal(found.activations["first"], expected.activations["first"])
        assert torch.equal(found.gradients["first"], expected.gradients["first"])


def test_only_what_is_not_written_into_is_handed_on_itself() -> None:
    on, kept = HandedOn(), torch.randn(4)
    assert on.instead_of("a", kept).data_ptr() != kept.data_ptr()
    assert on.kept_right()
    assert on.instead_of("a", kept).data_ptr() == kept.data_ptr()
    assert on.kept_right()
    on.instead_of("a", kept).mul_(2)
    assert not on.kept_right()
    for _ in range(2):
        assert on.instead_of("a", kept).data_ptr() != kept.data_ptr()
        assert on.kept_right()
    odd = torch.tensor([torch.nan])  # equals nothing, so nothing tells that it is untouched
    for _ in range(2):
        assert on.instead_of("b", odd).data_ptr() != odd.data_ptr()
        assert on.kept_right()
    assert on.instead_of("c", kept).data_ptr() != kept.data_ptr()
    assert on.kept_right()
    assert on.give_up()
    assert not on.give_up()
    assert on.instead_of("c", kept).data_ptr() != kept.data_ptr()
