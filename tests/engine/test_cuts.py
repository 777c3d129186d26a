"""Cuts: where modules come apart, what each side costs, and that the two sides have the bits of the whole."""

import operator
import pickle
import warnings
from dataclasses import replace
from functools import reduce

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from featdyn.errors import NetworkError
from featdyn.networks import Cut, build, cuts, default_cuts, features_at, resolve, segments, state_for
from featdyn.networks.cut_places import separating
from featdyn.networks.kept_features import KeptFeatures
from featdyn.networks.trace import trace
from featdyn.networks.value_shapes import shapes_of
from featdyn.networks.whole import at_input

# Section 6.1 of the method note: name, shape, prefix and suffix in MMAC, suffix share in %, prefix parameters.
TABLE = """
stem   16x32x32  0.44 40.11  98.9    464
s1b1   16x32x32  5.16 35.39  87.3   5136
s1b2   16x32x32  9.88 30.67  75.6   9808
s1b3   16x32x32 14.60 25.95  64.0  14480
s2b1   32x16x16 18.14 22.41  55.3  28432
s2b2   32x16x16 22.86 17.70  43.6  46992
s2b3   32x16x16 27.57 12.98  32.0  65552
s3b1     64x8x8 31.11  9.44  23.3 121104
s3b2     64x8x8 35.83  4.72  11.6 195088
s3b3     64x8x8 40.55 0.001   0.0 269072
pooled       64 40.55 0.001   0.0 269072
"""
NAMES = [line.split()[0] for line in TABLE.strip().splitlines()]


def resnet20(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = build("resnet20", classes=10, shape=(3, 32, 32))
    network(torch.randn(16, 3, 32, 32))  # running statistics that are not those of initialisation
    return network


@torch.no_grad()
def assert_cut_exactly(module: nn.Module, x: torch.Tensor, found=None) -> list:
    """Check that every cut, and all of them in one pass, has the bits of the module; return the cuts."""
    found = cuts(module, x) if found is None else found
    whole = module.eval()(x.clone())
    keys = module.state_dict().keys()
    together = features_at(module, found)(x.clone()) if found else ()
    for cut, feature in zip(found, together, strict=True):
        z = cut.prefix(x.clone())
        assert z.shape[1:] == cut.shape, cut.name
        assert torch.equal(z, feature), cut.name
        assert torch.equal(cut.suffix(z), whole), cut.name
        assert torch.equal(z, feature), f"the suffix wrote into its input at {cut.name}"
        assert cut.prefix.state_dict().keys() <= keys
        assert cut.suffix.state_dict().keys() <= keys
    return found


def test_resnet20_table_is_that_of_the_method_note():
    rows = []
    for cut in cuts(resnet20(), torch.zeros(1, 3, 32, 32)):
        prefix, suffix = cut.prefix_macs / 1e6, cut.suffix_macs / 1e6
        share = 100 * suffix / (prefix + suffix)
        shape = "x".join(map(str, cut.shape))
        text = f"{cut.name} {shape} {prefix:.2f} {suffix:.{2 if suffix > 1 else 3}f} {share:.1f} {cut.prefix_params}"
        rows.append(text.split())
        assert cut.prefix_params + cut.suffix_params == 269_722
    assert rows == [line.split() for line in TABLE.strip().splitlines()]


def test_resnet20_cuts_have_the_bits_of_the_network():
    found = assert_cut_exactly(resnet20(), torch.randn(3, 3, 32, 32))
    assert [cut.name for cut in found] == NAMES


def test_a_hook_on_the_module_sees_the_tensor_of_the_cut():
    network = resnet20().eval()
    x = torch.randn(2, 3, 32, 32)
    found = cuts(network, x)
    seen = {}
    for cut in found:
        assert cut.module == cut.name
        network.get_submodule(cut.module).register_forward_hook(
            lambda module, args, out, name=cut.name: seen.update({name: out.clone()})
        )
    with torch.no_grad():
        network(x)
        for cut, feature in zip(found, features_at(network, found)(x), strict=True):
            assert torch.equal(seen[cut.name], feature)


def test_every_lists_each_node_that_separates():
    every = cuts(resnet20(), torch.zeros(1, 3, 32, 32), every=True)
    names = [cut.name for cut in every]
    assert names[:5] == ["stem.conv", "stem.bn", "stem", "s1b1.add", "s1b1"]
    assert names[-2:] == ["pooled.0", "pooled"]
    assert len(names) == len(set(names)) == 23
    assert_cut_exactly(resnet20(), torch.randn(2, 3, 32, 32), every[:4])


def test_the_state_of_another_checkpoint_makes_the_composite():
    early, late = resnet20(1), resnet20(2)
    x = torch.randn(4, 3, 32, 32)
    (cut,) = resolve(cuts(early, x), ["s2b2"])
    with torch.no_grad():
        stitched = functional_call(cut.suffix, state_for(cut.suffix, late.state_dict()), (cut.prefix(x),))
        expected = x
        early.eval(), late.eval()
        for name, block in early.named_children():
            expected = (block if name in NAMES[:6] else late.get_submodule(name))(expected)
        assert torch.equal(stitched, expected)
        assert not torch.equal(stitched, early(x))
        assert not torch.equal(stitched, late(x))
        # The substitution was for one call only.
        assert torch.equal(cut.suffix(cut.prefix(x)), early(x))


def test_features_of_another_checkpoint_need_no_new_cuts():
    one, other = resnet20(1), resnet20(2)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        (ours,) = features_at(other, cuts(one, x)[4:5])(x)
        (expected,) = features_at(other, cuts(other, x)[4:5])(x)
    assert torch.equal(ours, expected)


def test_a_replaced_cut_has_parts_of_its_own():
    cut = cuts(resnet20(), torch.zeros(1, 3, 32, 32))[3]
    other = replace(cut)
    assert other == cut
    assert other.suffix is not cut.suffix
    assert other.suffix.fc is not cut.suffix.fc
    assert other.suffix.fc.weight is cut.suffix.fc.weight


def test_a_state_that_lacks_a_tensor_is_refused():
    cut = cuts(resnet20(), torch.zeros(1, 3, 32, 32))[-1]
    with pytest.raises(NetworkError, match=r"lacks 'fc.weight' and 1 more"):
        state_for(cut.suffix, {})


def test_parts_share_parameters_and_follow_training():
    network = resnet20()
    x = torch.randn(2, 3, 32, 32)
    found = cuts(network, x)
    before = found[5].prefix(x)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    F.cross_entropy(network(x), torch.tensor([1, 2])).backward()
    optimizer.step()
    assert not torch.equal(found[5].prefix(x), before)
    assert_cut_exactly(network, x, found)


def test_the_module_is_left_as_it_was():
    network = resnet20().train()
    network.s2b1.eval()  # modes may differ within a module
    calls = []
    network.s1b1.register_forward_hook(lambda *_: calls.append(1))
    network.fc.register_forward_pre_hook(lambda *_: calls.append(2))
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    random = torch.get_rng_state()
    found = cuts(network, torch.zeros(2, 3, 32, 32))
    x = torch.zeros(2, 3, 32, 32)
    for cut in found[::4]:
        cut.suffix(cut.prefix(x))
        cut.suffix.train()  # not even this reaches the module
        functional_call(
            cut.suffix, {key: value + 1 for key, value in state_for(cut.suffix, state).items()}, cut.prefix(x)
        )
    features_at(network, found)(x)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert calls == []
    network(x)
    assert calls == [1, 2]


def test_cuts_are_found_in_inference_mode_too():
    module = InPlace()
    with torch.inference_mode():
        found = cuts(module, torch.zeros(2, 6))
        assert_cut_exactly(module, torch.randn(2, 6), found)
    z = found[0].prefix(torch.randn(2, 6))
    found[0].suffix(z).sum().backward()
    assert module.c.weight.grad is not None


def test_parts_can_be_sent_to_other_processes():
    network, x = resnet20(), torch.randn(2, 3, 32, 32)
    cut = cuts(network, x)[-3]
    sent = pickle.loads(pickle.dumps(cut.suffix))
    assert torch.equal(sent(cut.prefix(x)), cut.suffix(cut.prefix(x)))


# Random networks against the definition: a node separates if the output cannot be reached without it.


class Node(nn.Module):
    def __init__(self, linear: bool) -> None:
        super().__init__()
        self.step = nn.Linear(3, 3) if linear else nn.Tanh()

    def forward(self, *inputs):
        return self.step(reduce(operator.add, inputs))


class Dag(nn.Module):
    """Node i reads earlier nodes; node 0 is the input and the last node is the output."""

    def __init__(self, nodes: list[tuple[list[int], bool]]) -> None:
        super().__init__()
        self.inputs = [inputs for inputs, _ in nodes]
        for index, (_, linear) in enumerate(nodes, 1):
            self.add_module(f"n{index}", Node(linear))

    def forward(self, x):
        values = [x]
        for index, inputs in enumerate(self.inputs, 1):
            values.append(self.get_submodule(f"n{index}")(*(values[i] for i in inputs)))
        return values[-1]

    def reaches_output(self, without: int) -> bool:
        reached = {0} - {without}
        for index, inputs in enumerate(self.inputs, 1):
            if index != without and reached & set(inputs):
                reached.add(index)
        return len(self.inputs) in reached

    def macs(self, node: int) -> int:
        """Multiply-adds of all that a node depends on: 9 for each linear layer."""
        needed = {node}
        for index in range(node, 0, -1):
            needed.update(self.inputs[index - 1] if index in needed else ())
        return sum(9 for index in needed - {0} if isinstance(self.get_submodule(f"n{index}").step, nn.Linear))


@st.composite
def dags(draw):
    nodes = []
    for index in range(1, draw(st.integers(1, 9)) + 1):
        near = st.integers(max(0, index - 3), index - 1)  # skips, but not so many that nothing separates
        nodes.append((draw(st.lists(near, min_size=1, max_size=3)), draw(st.booleans())))
    return Dag(nodes)


@settings(max_examples=40, deadline=None)
@given(dags())
def test_cuts_are_the_nodes_that_every_path_passes(dag):
    x = torch.randn(2, 3)
    every = cuts(dag, x, every=True)
    expected = [i for i in range(1, len(dag.inputs)) if not dag.reaches_output(without=i)]
    assert [cut.name for cut in every if "." not in cut.name] == [f"n{i}" for i in expected]
    assert [cut.prefix_macs for cut in every if "." not in cut.name] == [dag.macs(i) for i in expected]
    assert len(separating(shapes_of(trace(dag), x))) == len(every) + 2  # the sweep alone is exact; it keeps both ends
    assert_cut_exactly(dag, x, every)
    # Places with no multiply-add between them are one, and those that are as good as the input or the output are none.
    ends = {0, dag.macs(len(dag.inputs))}
    assert [cut.prefix_macs for cut in cuts(dag, x)] == sorted({cut.prefix_macs for cut in every} - ends)


# Modules that are awkward in one way each.


def linear() -> nn.Linear:
    return nn.Linear(6, 6)


class InPlace(nn.Module):
    """Writes into its own tensors, by methods and by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = linear(), linear(), linear()

    def forward(self, x):
        x = F.relu(self.a(x), inplace=True)
        y = self.b(x)
        y.mul_(2).add_(1)
        torch.sigmoid_(y)
        F.hardswish(y, True)
        return self.c(y.flatten(1))


class Constants(nn.Module):
    """Holds tensors that are no part of a checkpoint, and reads its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.bn = linear(), linear(), nn.BatchNorm1d(6)
        self.register_buffer("scale", torch.full((6,), 2.0), persistent=False)
        self.plain = torch.arange(6.0)
        self.seen: list = []

    def forward(self, x, mask=None, gain: float = 3.0):
        if mask is not None:
            x = x * mask
        self.seen.append(x)
        x = F.dropout(self.bn(self.a(x)), 0.5, self.training)
        return self.b(x * self.scale + self.plain + torch.tensor([gain] * 6))


class Positions(nn.Module):
    """Uses the input's sizes and a table made from them in every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear() for _ in range(3))

    def forward(self, x):
        batch, length = x.shape[:2]
        table = torch.cos(torch.arange(length, device=x.device))[:, None]
        rows = batch * length
        for layer in self.layers:
            x = layer(x).reshape(rows, 6).reshape(batch, length, -1) * table
        return x.mean(1)


class Permuted(nn.Module):
    """Runs with the batch second: there a tensor has no row per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = linear(), linear()

    def forward(self, x):
        return self.b(torch.tanh(self.a(x.permute(1, 0, 2)).permute(1, 0, 2)).mean(1))


class Listed(nn.Module):
    """Calls registered submodules through a list and a bound method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = []
        for name in ("a", "b", "c"):
            self.add_module(name, linear())
            self.steps.append(self.get_submodule(name))
        self.run = self.run_all

    def run_all(self, x):
        for step in self.steps:
            x = step(x)
        return x

    def forward(self, x):
        return self.run(x)


class Tokens(nn.Module):
    """A language model with tied embeddings and torch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens, targets=None):
        logits = self.head(self.layers(self.embed(tokens)))
        return logits if targets is None else (logits, F.cross_entropy(logits, targets))


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(linear())


def shared_layer() -> nn.Module:
    layer = linear()
    return nn.Sequential(layer, nn.ReLU(inplace=True), layer, nn.ReLU(), linear())


AWKWARD = {
    "in place": (InPlace, (4, 6), ["relu", "flatten"]),
    "constants": (Constants, (4, 6), ["add_1"]),
    "positions": (Positions, (4, 5, 6), ["mul", "mul_1", "mul_2"]),
    "permuted": (Permuted, (4, 5, 6), ["tanh", "mean"]),
    "weight norm": (
        lambda: nn.Sequential(old_weight_norm(), nn.utils.parametrizations.weight_norm(linear()), linear()),
        (4, 6),
        ["0", "1"],
    ),
    "listed": (Listed, (4, 6), ["a", "b"]),
    "shared layer": (shared_layer, (4, 6), ["1", "3"]),
    "recurrent": (lambda: nn.Sequential(nn.Flatten(2), Recurrent(), linear()), (4, 5, 2, 3), ["1.getitem", "1"]),
    "nothing to cut": (nn.Identity, (4, 6), []),
}


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM) -> None:
        super().__init__()
        self.layer = kind(6, 6, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0][:, -1]


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_modules_come_apart_exactly(kind):
    make, shape, names = AWKWARD[kind]
    torch.manual_seed(0)
    module, x = make().train(), torch.randn(shape)
    found = cuts(module, x)
    assert module.training
    assert [cut.name for cut in found] == names
    assert_cut_exactly(module, x, found)
    assert_cut_exactly(module, x, cuts(module, x, every=True))
    assert not getattr(module, "seen", [])[2:]  # only the two plain calls above filled it


def test_tokens_and_tied_weights_come_apart():
    module, x = Tokens(), torch.randint(0, 11, (3, 5))
    found = assert_cut_exactly(module, x)
    assert [cut.name for cut in found] == ["embed", "layers.0", "layers"]
    layer = 4 * 8 * 8 + 2 * 5 * 8 + 2 * 8 * 16  # projections, attention, feed-forward: for each of 5 tokens
    assert [cut.prefix_macs for cut in found] == [0, 5 * layer, 10 * layer]
    assert [cut.suffix_macs for cut in found] == [10 * layer + 5 * 88, 5 * layer + 5 * 88, 5 * 88]


def test_a_module_tells_what_it_returns_after_writing_in_place():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = linear()

        def forward(self, x):
            y = self.a(x)
            y.relu_()
            return y

    module, x = nn.Sequential(Block(), linear()).eval(), torch.randn(3, 6)
    (cut,) = cuts(module, x)
    assert cut.name == cut.module == "0"
    with torch.no_grad():
        assert torch.equal(cut.prefix(x), module[0](x))


class Writes(nn.Module):
    """Writes into what its first layer gave."""

    def __init__(self, write) -> None:
        super().__init__()
        self.first, self.last, self.write = linear(), linear(), write

    def forward(self, x):
        return self.last(self.write(self.first(x)))


def viewed_before(y):
    view = y[:, :3]
    y.mul_(2)
    return y + view.sum(1, keepdim=True)


def viewed_for_the_last_time(y):
    total = y[:, :3].sum(1, keepdim=True)
    y.mul_(2)
    return y + total


def scaled_up(y, inplace, factor):
    """A function of one's own, wrapped for the trace, whose ``inplace`` is not the last parameter."""
    return y.mul_(factor) if inplace else y * factor


torch.fx.wrap("scaled_up")


def viewed_behind(y):
    y.mul_(2)
    return y + y[:, :3].sum(1, keepdim=True)


def written_twice(y):
    y.add_(1)
    y.mul_(y)
    return y


def kept_beside(y):
    other = y * 3
    y += 1
    return other - y


@pytest.mark.parametrize(
    "write",
    [
        lambda y: F.relu(y, True),
        lambda y: F.relu(y, inplace=True),
        lambda y: F.leaky_relu(y, 0.3, True),
        lambda y: F.hardtanh(y, -0.2, 0.2, inplace=True),
        lambda y: F.dropout(y, 0.5, False, True),
        lambda y: torch.relu_(y),
        lambda y: y.tanh_(),
        lambda y: y.clamp_(min=0.1),
        lambda y: scaled_up(y, True, 3.0),
        viewed_for_the_last_time,
        viewed_behind,
        written_twice,
        kept_beside,
    ],
)
def test_what_is_written_in_place_comes_apart_by_its_graph(write):
    torch.manual_seed(0)
    network, x = Writes(write).eval(), torch.randn(3, 6)
    found = cuts(network, x, every=True)
    assert {cut.method for cut in found} == {"torch.fx"}
    for cut in found:
        assert torch.equal(cut.suffix(cut.prefix(x)), network(x))


def test_memory_that_is_read_by_another_name_is_not_rewritten():
    torch.manual_seed(0)
    network, x = Writes(viewed_before).eval(), torch.randn(3, 6)
    with pytest.raises(NetworkError, match="writes in place into memory that getitem shares"):
        shapes_of(trace(network), x)
    for cut in cuts(network, x, every=True):
        assert torch.equal(cut.suffix(cut.handed(cut.prefix(x), lambda: x)), network(x))


class Sized(nn.Module):
    """Makes something of the sizes of its input in front of its first layer, which is used behind it."""

    def __init__(self, make, use) -> None:
        super().__init__()
        self.first, self.last, self.make, self.use = linear(), nn.Linear(6, 3), make, use

    def forward(self, x):
        made = self.make(x)
        return self.last(self.use(self.first(x), made))


SIZES = {
    "samples": (lambda x: x.size(0), lambda y, n: y.flatten().view(n, 6)),
    "several times as many": (lambda x: x.size(0) * 3, lambda y, n: y.repeat(3, 1).view(n, 6)[: y.size(0)]),
    "a shape": (lambda x: x.shape, lambda y, shape: y.flatten().view(shape)),
    "features": (lambda x: x.size(1), lambda y, n: y.flatten().view(-1, n)),
    "a type and a device": (
        lambda x: (x.dtype, x.device), lambda y, made: y + torch.ones(6, dtype=made[0], device=made[1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SIZES)
def test_sizes_that_are_used_behind_a_cut_are_taken_of_what_is_handed_over(what):
    network = Sized(*SIZES[what]).eval()
    found = {cut.name: cut for cut in cuts(network, torch.zeros(2, 6), every=True)}
    for n in (1, 2, 5):
        x = torch.randn(n, 6)
        for cut in found.values():
            assert torch.equal(cut.suffix(cut.prefix(x)), network(x))
    assert "first" in found


@pytest.mark.parametrize("make", [lambda x: x.size(0) * x.size(0), lambda x: x.size(0) + 1, lambda x: 6 // x.size(0)])
def test_what_follows_the_batch_otherwise_passes_beside(make):
    network = Sized(make, lambda y, n: y + torch.ones(n).sum()).eval()
    found = cuts(network, torch.zeros(2, 6), every=True)
    assert "first" not in {cut.name for cut in found if cut.method == "torch.fx"}


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_count_their_weights_at_every_step(kind, gates):
    (first, _) = cuts(nn.Sequential(Recurrent(kind), linear()), torch.zeros(2, 5, 6))
    assert (first.prefix_macs, first.suffix_macs) == (5 * gates * 2 * 36, 36)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


class Overlapping(nn.Module):
    def forward(self, x):
        x = x * 2
        x[:, 1:].add_(x[:, :-1])
        return x


class Lazy(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.LazyLinear(3))


class Unlisted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [linear()]

    def forward(self, x):
        return self.layers[0](x)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Branching, "symbolically traced variables cannot be used as inputs to control flow"),
        (TwoInputs, "it takes a second input, y"),
        (Overlapping, "add_ writes in place into memory that mul shares"),
        (Unlisted, "module is not installed as a submodule"),
        (Lazy, "uninitialized parameter"),
    ],
)
def test_what_cannot_be_cut_says_why_in_one_line(kind, says):
    with pytest.raises(NetworkError, match=says) as caught:
        cuts(kind(), torch.zeros(2, 6))
    text = str(caught.value)
    assert text.startswith(f"{kind.__name__} cannot be cut: ")
    assert "can still be recorded" in text
    assert "\n" not in text


def test_an_example_without_a_batch_is_refused():
    with pytest.raises(TypeError, match="example must be a tensor with a batch dimension"):
        cuts(linear(), torch.tensor(1.0))
    with pytest.raises(NetworkError, match="cannot be cut"):
        cuts(linear(), torch.zeros(2, 7))


def test_features_of_two_modules_at_once_are_refused():
    found = [cuts(nn.Sequential(linear(), linear()), torch.zeros(1, 6))[0] for _ in range(2)]
    with pytest.raises(NetworkError, match="one module, not of 2"):
        features_at(linear(), found)
    with pytest.raises(NetworkError, match="Linear is not the module that was cut"):
        features_at(linear(), found[:1])


# Choosing.


def test_default_cuts_of_resnet20_are_those_of_the_method_note():
    for shape in [(3, 32, 32), (1, 28, 28), (1, 8, 8)]:
        found = cuts(build("resnet20", classes=10, shape=shape), torch.zeros(1, *shape))
        assert default_cuts(found) == ["s1b3", "s2b3", "pooled"]


def test_there_is_a_default_wherever_there_is_a_cut():
    assert default_cuts([]) == []
    for depth in range(2, 9):
        found = cuts(nn.Sequential(*(linear() for _ in range(depth))), torch.zeros(1, 6))
        chosen = default_cuts(found)
        assert 1 <= len(chosen) <= 3
        assert chosen[-1] == found[-1].name
    no_macs = cuts(nn.Sequential(nn.Tanh(), nn.MaxPool1d(2), nn.Tanh(), nn.MaxPool1d(2)), torch.zeros(1, 4, 8))
    assert default_cuts(no_macs) == ["2"]


def chain(*costs):
    """Cuts of a network of 20 multiply-adds, of those behind each and the values that it holds; named a, b, ..."""
    return [
        Cut(name, name, (values, 2), 20 - behind, behind, 0, 0, None, name)
        for name, (behind, values) in zip("abcdefghij", costs, strict=False)
    ]


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        # nearest to 2/3, 1/3 and none of 20
        ([(19, 1), (14, 1), (13, 1), (8, 1), (7, 1), (5, 1), (2, 1), (0, 1)], "ceh"),
        ([(13, 1), (13, 1), (7, 1), (7, 1), (0, 1), (0, 1)], "bdf"),  # the last of equals
        ([(10, 1)], "a"),
        ([(20, 1), (0, 1)], "ab"),
        # a later one holds fewer values: at a twentieth of the network, and at more than that
        ([(1, 2), (0, 1)], "b"),
        ([(2, 2), (0, 1)], "ab"),
        ([(1, 1), (0, 1)], "ab"),  # as many
        ([(1, 1), (0, 2)], "ab"),  # more
        ([(14, 3), (13, 1), (7, 1), (7, 2), (0, 1)], "bde"),
    ],
)
def test_default_cuts_lie_near_thirds_and_a_smaller_one_close_behind_comes_first(costs, chosen):
    assert default_cuts(chain(*costs)) == list(chosen)


def test_default_and_all_are_cuts_of_these_names_where_there_are_such():
    one, two, three = (
        replace(cut, name=name) for cut, name in zip(chain((9, 1), (5, 1), (0, 1)), ("all", "x", "y"), strict=True)
    )
    assert resolve([one, two, three], ["all"]) == [one]
    assert resolve([one, replace(two, name="default"), three], ["default"])[0].name == "default"
    assert [cut.name for cut in resolve([one, two, three], ["default"])] == default_cuts([one, two, three])


def test_pieces_lie_between_cuts_of_one_module():
    module, inputs = nn.Sequential(linear(), nn.Tanh(), linear(), linear()), torch.randn(3, 6)
    found = cuts(module, inputs)
    pieces = segments(found)
    assert len(pieces) == len(found) + 1
    value = inputs
    for piece in pieces:
        value = piece(value)
    assert torch.equal(value, module(inputs))
    other = cuts(nn.Sequential(linear(), linear()), inputs)
    for wrong in ([], [found[0], other[0]]):
        with pytest.raises(NetworkError, match="segments needs the cuts of one module"):
            segments(wrong)


def test_a_module_that_stays_whole_is_cut_at_its_input():
    module, inputs = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 5)), torch.randn(4, 2, 3, 3)
    cut = at_input(module, inputs)
    assert (cut.name, cut.module, cut.shape, cut.traced) == ("input", None, (2, 3, 3), True)
    assert (cut.prefix_macs, cut.suffix_macs) == (0, 3 * 8 * 4 + 12 * 5)
    assert (cut.prefix_params, cut.suffix_params) == (0, 3 * 8 + 3 + 12 * 5 + 5)
    assert cut.prefix(inputs) is inputs
    assert torch.equal(cut.suffix(inputs), module.eval()(inputs))
    (only,) = features_at(module, [cut])(inputs)
    assert only is inputs
    other = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 5))
    assert torch.equal(cut._way.part("input", "output", other)(inputs), other(inputs))


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_features_that_are_kept_are_what_was_given(disk, dtype):
    kept = KeptFeatures(disk=disk)
    one, two = torch.arange(12).view(3, 4).to(dtype), torch.zeros(2, 0, dtype=dtype)
    kept.put((-1, 2), one.t())
    kept.put("b", two)
    for key, value in (((-1, 2), one.t()), ("b", two), ((-1, 2), one.t())):
        assert torch.equal(kept.get(key), value)
        assert kept.get(key).dtype == dtype
    assert torch.equal(kept.take((-1, 2)), one.t())
    kept.put((-1, 2), two)
    assert kept.get((-1, 2)).shape == (2, 0)
    kept.clear()
    with pytest.raises(KeyError):
        kept.get("b")


def test_a_file_of_features_that_was_cut_is_told():
    kept = KeptFeatures(disk=True)
    kept.put("a", torch.zeros(3, 4))
    (file,) = kept._folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(OSError, match="ends before its features do"):
        kept.get("a")
    folder = kept._folder
    del kept
    assert not folder.exists()


def test_resolve_takes_names_globs_default_and_all():
    found = cuts(resnet20(), torch.zeros(1, 3, 32, 32))
    assert [cut.name for cut in resolve(found, ["pooled", "s3*", "stem", "s3b1"])] == [
        "stem",
        "s3b1",
        "s3b2",
        "s3b3",
        "pooled",
    ]
    assert [cut.name for cut in resolve(found, ["default"])] == ["s1b3", "s2b3", "pooled"]
    assert [cut.name for cut in resolve(found, "default")] == ["s1b3", "s2b3", "pooled"]
    assert resolve(found, ["all"]) == found
    assert resolve(found, []) == []


def test_resolve_names_what_there_is():
    found = cuts(resnet20(), torch.zeros(1, 3, 32, 32))
    with pytest.raises(NetworkError, match=r"no cut 's4b1'; did you mean s3b1\? there are stem, s1b1, .*, pooled$"):
        resolve(found, ["s1b1", "s4b1"])
    many = cuts(nn.Sequential(*(linear() for _ in range(30))), torch.zeros(1, 6))
    with pytest.raises(NetworkError, match=r"there are 0, 1, .*, 13, \.\.\., 28 \(29 in all\)$"):
        resolve(many, ["x*"])
    with pytest.raises(NetworkError, match="there are none"):
        resolve([], ["all"])


# torchvision's networks.

TORCHVISION = {
    "resnet18": (["relu", "maxpool", "layer1.0", "layer1"], 1_814_073_344),
    "vgg16_bn": (["features.2", "features.5", "features.6"], 15_470_264_320),
    "vit_b_16": (["permute", "encoder.dropout", "encoder.layers.encoder_layer_0.add"], 17_563_828_224),
    "densenet121": (["features.relu0", "features.pool0", "features.transition1.relu"], 2_834_161_664),
    "mobilenet_v3_small": (["features.0", "features.1.block.0", "features.1.block.1"], 56_510_400),
}


def torchvision_model(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    return getattr(models, name)(weights=None)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_come_apart(name):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        module = getattr(models, name)(weights=None)
    first, macs = TORCHVISION[name]
    found = cuts(module, torch.empty(1, 3, 224, 224))
    assert [cut.name for cut in found][: len(first)] == first
    assert {cut.prefix_macs + cut.suffix_macs for cut in found} == {macs}
    total = sum(parameter.numel() for parameter in module.parameters())
    assert {cut.prefix_params + cut.suffix_params for cut in found} == {total}
    for cut in found:
        if cut.module is not None:
            assert cut.name == cut.module
            module.get_submodule(cut.module)
    assert 1 <= len(default_cuts(found)) <= 3


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_a_sample_of_torchvision_cuts_has_the_bits_of_the_network(name):
    module = torchvision_model(name)
    x = torch.randn(1, 3, 64, 64)
    assert_cut_exactly(module, x, cuts(module, x)[2::6])


def test_an_encoder_of_torchvision_comes_apart_exactly():
    pytest.importorskip("torchvision")
    module, x = build("vit", classes=5, shape=(1, 8, 8), depth=2), torch.randn(3, 1, 8, 8)
    nn.init.normal_(module.heads.head.weight)
    found = assert_cut_exactly(module, x)
    assert [cut.name for cut in found] == [
        "permute",
        "encoder.dropout",
        "encoder.layers.encoder_layer_0.add",
        "encoder.layers.encoder_layer_0",
        "encoder.layers.encoder_layer_1.add",
        "encoder",
        "getitem",
    ]
    assert default_cuts(found) == [
        "encoder.layers.encoder_layer_0.add",
        "encoder.layers.encoder_layer_1.add",
        "getitem",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_all_torchvision_cuts_have_the_bits_of_the_network(name):
    module = torchvision_model(name)
    assert_cut_exactly(module, torch.randn(1, 3, 224, 224))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_every_node_of_torchvision_networks_cuts_exactly(name):
    module = torchvision_model(name)
    x = torch.randn(2, 3, 64, 64)
    assert_cut_exactly(module, x, cuts(module, x, every=True))


def test_a_cut_is_called_as_each_module_that_returns_its_tensor():
    net = nn.Sequential(
        nn.Linear(4, 5), nn.Sequential(nn.Linear(5, 5), nn.Sequential(nn.ReLU(), nn.Tanh())), nn.Linear(5, 2)
    )
    found = cuts(net, torch.zeros(3, 4))
    for asked, named in (("1.1.1", ["1.1.1"]), ("1", ["1"]), ("1.1", ["1.1"]), ("1**", ["1"]), ("1.1.*", ["1.1.1"])):
        picked = resolve(found, [asked])
        assert [cut.name for cut in picked] == named, asked
        assert [cut.module for cut in picked] == named
    assert [cut.name for cut in resolve(found, ["1.1.1", "1"])] == ["1.1.1"]  # one place, called as it was first
    assert "1.1.1" not in [cut.name for cut in resolve(found, ["all"])]
    x = torch.randn(3, 4)
    (cut,) = resolve(found, ["1.1.1"])
    assert torch.equal(cut.suffix(cut.prefix(x)), net(x))
