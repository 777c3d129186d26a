"""Layers whose outputs are handed on without a copy give what they give with one, whatever writes into them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from featdyn.capture import tap
from featdyn.capture.handed_on import HandedOn
from featdyn.capture.tap import LayerError


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

    def is_copied(name: str, output: torch.Tensor) -> bool:
        return len({each.data_ptr() for each in on.instead_of(name, output, [])}) == 2

    assert is_copied("a", kept)
    assert on.kept_right()
    assert not is_copied("a", kept)
    assert on.kept_right()
    on.instead_of("a", kept, [])[1].mul_(2)
    assert not on.kept_right()
    for _ in range(2):
        assert is_copied("a", kept)
        assert on.kept_right()
    odd = torch.tensor([torch.nan])  # equals nothing, so nothing tells that it is untouched
    for _ in range(2):
        assert is_copied("b", odd)
        assert on.kept_right()
    assert is_copied("c", kept)
    assert on.kept_right()
    assert on.give_up()
    assert not on.give_up()
    assert is_copied("c", kept)


def around_relu(net: Aliased, x: Tensor) -> Tensor:
    h = net.first(x)
    z = net.same(h)
    return net.last(z + net.relu(h))


def into_what_it_returned(net: Aliased, x: Tensor) -> Tensor:
    h = net.first(x) * 1
    z = net.same(h)
    z += 1
    return net.last(h + z)


def into_what_it_was_given(net: Aliased, x: Tensor) -> Tensor:
    h = net.first(x) * 1
    z = net.same(h)
    h.mul_(2)
    return net.last(z)


def residual(net: Aliased, x: Tensor) -> Tensor:
    h = net.first(x) * 1
    h += torch.sin(net.same(h))
    return net.last(h)


def no_other_name(net: Aliased, x: Tensor) -> Tensor:
    return net.last(net.relu(net.same(net.first(x))))


class Aliased(nn.Module):
    """A layer that returns what it is given, beside which the network has another name for the same memory."""

    def __init__(self, ways: Callable[[Aliased, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.same, self.relu, self.last = nn.Linear(4, 6), nn.Identity(), nn.ReLU(True), nn.Linear(6, 3)
        self.ways = ways

    def forward(self, x: Tensor) -> Tensor:
        return self.ways(self, x)


WAYS = [around_relu, into_what_it_returned, into_what_it_was_given, residual, no_other_name]


@pytest.mark.parametrize("ways", WAYS)
def test_what_is_recorded_changes_no_network_that_has_two_names_for_a_tensor(ways: Callable[..., Tensor]) -> None:
    net, on, seen = Aliased(ways).eval(), HandedOn(), list[Tensor]()
    batch = torch.randn(5, 4), torch.arange(5) % 3
    with net.same.register_forward_hook(lambda module, given, output: seen.append(output.detach().clone())):
        expected = net(batch[0]).detach()
    for _ in range(3):
        found = tap.run(net, *batch, ["same"], gradients=False, handed_on=on)
        assert torch.equal(found.logits, expected)
        assert torch.equal(found.activations["same"], seen[0])
    if ways is no_other_name:
        found = tap.run(net, *batch, ["same"], gradients=True, handed_on=HandedOn())
        assert torch.equal(found.logits, expected)
    else:  # of what is no longer there a gradient would be another's
        with pytest.raises(LayerError, match="by another name"):
            tap.run(net, *batch, ["same"], gradients=True, handed_on=HandedOn())


def test_rounding_between_two_passes_is_no_other_name() -> None:
    class Rounding(Aliased):
        passes = itertools.count()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 + 2e-7 * (next(self.passes) % 2))  # as a sum on a GPU in another order

    found = tap.run(
        Rounding(no_other_name), torch.randn(5, 4), torch.arange(5) % 3, ["same"], gradients=True, handed_on=HandedOn()
    )
    assert found.gradients["same"].abs().max() > 0
    assert next(Rounding.passes) == 2  # the second was for the layer that returned what it was given
