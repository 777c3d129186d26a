"""Networks that torch.fx does not trace come apart by torch.export or by forward hooks, with the bits of the whole."""

from __future__ import annotations

import copy
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bench.architectures import examine
from featdyn.errors import NetworkError
from featdyn.networks import build, cuts, default_cuts, features_at, resolve, state_for, taps
from featdyn.networks.cut import distinct
from featdyn.networks.hooked import Hooked
from featdyn.networks.ways import ways as every_way
from tests.engine.test_cuts import Tokens


class Attention(nn.Module):
    """Self-attention that takes keywords and returns a dict, as model libraries have it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, hidden=None, mask=None, **rest):
        q, k, v = self.qkv(self.norm(hidden)).chunk(3, -1)
        if mask is not None:
            mask = mask[:, None, :].expand(-1, q.shape[1], -1)
        return {"hidden": hidden + self.out(F.scaled_dot_product_attention(q, k, v, mask)), "cache": None, **rest}


class Texts(nn.Module):
    """Tokens to classes; modules return dicts, positions are made of the batch's shape, and inputs are validated."""

    def __init__(self, masked: bool = False) -> None:
        super().__init__()
        self.masked = masked
        self.words, self.places = nn.Embedding(13, 8), nn.Embedding(6, 8)
        self.layers = nn.ModuleList(Attention() for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, tokens, labels=None):
        if not isinstance(tokens, torch.Tensor) or tokens.shape[1] > 6:
            raise ValueError("tokens must be a tensor of at most 6 tokens")
        hidden = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            hidden = layer(hidden=hidden, mask=tokens > 0 if self.masked else None)["hidden"]
        return self.head(hidden.mean(1))


class Windows(nn.Module):
    """Folds windows into the batch, as many as the image has, by code that looks at shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def windows(self, x, layer):
        n, height, width, channels = x.shape
        assert height % 2 == 0
        assert width % 2 == 0
        x = x.view(n, height // 2, 2, width // 2, 2, channels).transpose(2, 3).reshape(-1, 4, channels)
        x = layer(x).view(n, height // 2, width // 2, 2, 2, channels).transpose(2, 3)
        return x.reshape(n, height, width, channels)

    def forward(self, x):
        if x.numel() % 4:
            raise ValueError("odd")
        x = F.relu(self.norm(self.stem(x)), inplace=True).permute(0, 2, 3, 1)
        x = x + self.windows(x, self.first)
        x = x + self.windows(x, self.second)
        return self.head(x.mean((1, 2)))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        return x + torch.tanh(self.norm(self.linear(x)))


class Branching(nn.Module):
    """Chooses by what the samples are; the choice is that of each sample's row."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
            if bool((x > 0).any()):  # always so, and nothing that traces can know it
                x = x * 2
        return self.head(x)


def moved(network: nn.Module, seed: int) -> nn.Module:
    """Return the network at another checkpoint: all floating-point tensors, buffers too."""
    other, random = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    for tensor in other.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=random))
    return other.eval()


def texts(masked: bool = False):
    torch.manual_seed(0)
    return Texts(masked).eval(), torch.randint(0, 13, (5, 6))


def branching():
    torch.manual_seed(0)
    return Branching().eval(), torch.randn(5, 6)


def windows():
    torch.manual_seed(0)
    return Windows().eval(), torch.randn(5, 1, 4, 4)


def shuffled():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    return models.shufflenet_v2_x0_5(num_classes=4).eval(), torch.randn(3, 3, 32, 32)


# How to make it, which way it comes apart, and some cuts with the modules that have finished before each.
NETWORKS = {
    "texts": (texts, "torch.export", {"layers.0": ("words", "places", "layers.0")}),
    "windows": (windows, "torch.export", {}),
    "shuffled": (
        shuffled,
        "torch.fx",
        {"stage3": ("conv1", "stage2", "stage3"), "stage4": ("conv1", "stage2", "stage3", "stage4")},
    ),
    "masked texts": (
        lambda: texts(True),
        "forward hooks",
        {"layers.0": ("words", "places", "layers.0")},
    ),
    "branching": (
        branching,
        "forward hooks",
        {"layers.0": ("layers.0",), "layers.1": ("layers.0", "layers.1"), "layers.2": ("layers",)},
    ),
}


def by_hooks(network, x):
    return distinct(list(Hooked(network, x).cuts()), False)


@torch.no_grad()
def assert_is_the_mixed_state(network, x, found, finished):
    """Compare with the state dict in which what has finished before a cut is of one checkpoint, the rest of another."""
    early, late = moved(network, 1), moved(network, 2)
    for cut in found:
        z = functional_call(cut.prefix, state_for(cut.prefix, early.state_dict()), (x,))
        kept = {}
        if cut.name in dict(early.named_modules()):
            hook = early.get_submodule(cut.name).register_forward_hook(
                lambda m, a, out, kept=kept: kept.update(out=copy.deepcopy(out))  # what follows may write into it
            )
            early(x)
            hook.remove()
            out = kept["out"] if cut.module else kept["out"]["hidden"]
            assert torch.equal(z, out)
        (same,) = features_at(early, [cut])(x)
        assert torch.equal(z, same)
        handed = cut.handed(z, lambda: x)
        stitched = functional_call(cut.suffix, state_for(cut.suffix, late.state_dict()), (handed,))
        if cut.name in finished:
            before = tuple(f"{path}." for path in finished[cut.name])
            mixed = {key: (early if key.startswith(before) else late).state_dict()[key] for key in network.state_dict()}
            assert torch.equal(stitched, functional_call(network, mixed, (x,))), cut.name
            assert cut.prefix.state_dict().keys() >= {k for k in mixed if k.startswith(before) and "batches" not in k}
        assert torch.equal(cut.suffix(cut.handed(cut.prefix(x), lambda: x)), network(x)), cut.name
        params = [dict(part.named_parameters()) for part in (cut.prefix, cut.suffix)]
        assert cut.prefix_params == sum(p.numel() for p in params[0].values())
        assert params[0].keys() | params[1].keys() == dict(network.named_parameters()).keys()
    assert {cut.name for cut in found} >= set(finished)


@pytest.mark.parametrize("name", NETWORKS)
def test_they_come_apart_as_the_mixed_state_dict_does(name):
    make, method, finished = NETWORKS[name]
    network, x = make()
    found = cuts(network, x)
    assert found[0].method.startswith(method)
    assert_is_the_mixed_state(network, x, found, finished)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "shuffled" else ()) for name in NETWORKS]
)
def test_hooks_take_any_of_them_apart(name):
    make, _, finished = NETWORKS[name]
    network, x = make()
    assert_is_the_mixed_state(network, x, by_hooks(network, x), finished)


class Bypassed(nn.Module):
    """Hands what its first layer gives on to its last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        early = self.first(x)
        if bool((x > 100).all()):
            return early
        return self.last(torch.tanh(self.middle(early))) + early


def test_features_that_run_beside_a_place_leave_no_cut_there():
    torch.manual_seed(0)
    found = cuts(Bypassed(), torch.randn(4, 6))
    assert [cut.name for cut in found] == ["first"]


def test_a_weight_of_two_layers_comes_apart_by_torch_export():
    network, x = windows()
    network.second.weight = network.first.weight
    found = cuts(network, x)
    assert {cut.method for cut in found} == {"torch.export"}
    assert len(found) > 2
    with torch.no_grad():
        for cut in found:
            assert torch.equal(cut.suffix(cut.prefix(x)), network(x))


class Twice(nn.Module):
    """Runs a layer twice, by code that looks at shapes."""

    def __init__(self):
        super().__init__()
        self.first, self.layer, self.head = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        if x.shape[1] > 6:
            raise ValueError("at most six features")
        return self.head(self.layer(self.layer(self.first(x)).tanh()))


@pytest.mark.parametrize(
    "make", [lambda: (Twice(), torch.randn(4, 6)), windows, lambda: texts()], ids=["twice", "windows", "texts"]
)
def test_where_a_cut_names_a_module_that_runs_once_and_returns_its_tensor(make):
    torch.manual_seed(0)
    network, x = make()
    network.eval()
    found = cuts(network, x, every=True)
    assert {cut.method for cut in found} == {"torch.export"}
    assert any(cut.module for cut in found)
    for cut in found:
        returned: list[object] = []
        if cut.module:
            with network.get_submodule(cut.module).register_forward_hook(
                lambda m, a, out, kept=returned: kept.append(out.clone())
            ):
                network(x)
            (only,) = returned
            assert torch.equal(only, cut.prefix(x))


class OwnLinear(nn.Linear):
    """A layer of a user's."""


class OwnNorm(nn.BatchNorm1d):
    """A normalisation of a user's."""


class Layers(nn.Module):
    """Layers of torch, of users, of two inputs, with a forward function or a hook of its own; by code that asks."""

    def __init__(self):
        super().__init__()
        self.plain, self.twice, self.changed, self.hooked = (nn.Linear(6, 6) for _ in range(4))
        self.norm, self.own = OwnNorm(6), OwnLinear(6, 6)
        self.same, self.pair = nn.Bilinear(6, 6, 6), nn.Bilinear(6, 6, 6)
        self.row, self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)
        self.changed.forward = MethodType(lambda own, x: F.linear(x, own.weight) * 2, self.changed)
        nn.utils.spectral_norm(self.hooked)

    def forward(self, x):
        if x.shape[1] > 6:
            raise ValueError("at most six features")
        x = self.own(self.norm(self.twice(self.twice(self.plain(x)).tanh())))
        x = self.pair(self.same(x, x), x.tanh())
        return self.head(self.row(self.hooked(self.changed(x))))


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*")
def test_layers_of_torch_are_known_by_their_type_in_an_exported_part():
    torch.manual_seed(0)
    network, x = Layers().eval(), torch.randn(4, 6)
    found = cuts(network, x, every=True)
    assert {cut.method for cut in found} == {"torch.export"}
    part = found[-1].prefix
    again = {"plain": nn.Linear, "twice": nn.Linear, "norm": OwnNorm, "row.0": nn.Linear, "row.1": nn.Tanh}
    kept = dict.fromkeys(("own", "same", "pair", "changed", "hooked", "row"), nn.Module)
    assert {name: type(part.get_submodule(name)) for name in again | kept} == again | kept
    with torch.no_grad():
        for cut in found:
            torch.testing.assert_close(cut.suffix(cut.prefix(x)), network(x), rtol=0, atol=0)


class Calls(nn.Module):
    """Calls a function of its input."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return self.function(self, x)


class Odd(nn.Module):
    """Modules that return no row for each sample, rows of the batch's length, or no real numbers."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.table = Calls(lambda own, x: own.weight)
        self.gram = Calls(lambda own, x: x @ x.T)
        self.best = Calls(lambda own, x: x.argmax(1))

    def forward(self, x):
        beside = self.table(x).sum()
        x = self.layer(x)
        beside = beside - self.table.weight.mean()  # both halves have it
        return self.head(x + beside + 0 * self.gram(x).sum() + 0 * self.best(x).sum())


def test_a_place_gives_each_sample_a_row_of_real_numbers_of_one_shape():
    torch.manual_seed(0)
    assert [cut.name for cut in by_hooks(Odd().eval(), torch.randn(4, 6))] == ["layer"]


class Shaped(nn.Module):
    """Behind its middle asks what its first layer gave for its shape, or for a number."""

    def __init__(self, ask):
        super().__init__()
        self.first, self.middle, self.last, self.ask = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), ask

    def forward(self, x):
        early = self.first(x)
        nothing = (0 * early).sum()
        late = self.middle(early.tanh())
        return self.last(late + self.ask(early, nothing))


@pytest.mark.parametrize(
    "ask",
    [
        lambda early, nothing: torch.zeros_like(early),
        lambda early, nothing: torch.ones_like(early),
        lambda early, nothing: early.new_zeros(early.shape),
        lambda early, nothing: early.new_ones(6),
        lambda early, nothing: nothing.item(),
    ],
)
def test_what_only_a_shape_or_a_number_is_taken_of_does_not_pass_beside(ask):
    torch.manual_seed(0)
    assert [cut.name for cut in by_hooks(Shaped(ask).eval(), torch.randn(4, 6))] == ["first", "middle"]
    kept = Shaped(lambda early, nothing: nothing).eval()  # a tensor that is read behind is more than its shape
    assert [cut.name for cut in by_hooks(kept, torch.randn(4, 6))] == ["first"]


class Counted(nn.Module):
    """Takes how many of its values count in front of them, and no other number there."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        if bool(((x[:, 0] < 1) | (x[:, 0] > 4)).any()):
            raise ValueError("1 to 4 values count")
        return self.head(self.first(x[:, 1:] * (torch.arange(4) < x[:, :1])).tanh())


def test_inputs_that_cannot_be_turned_round_are_tried_as_they_are():
    torch.manual_seed(0)
    x = torch.tensor([[2, 0.5, 1, 7, 9], [4, 1, 2, 3, 8], [1, 5, 6, 7, 9], [3, 1, 1, 1, 7]])
    (cut,) = by_hooks(Counted().eval(), x)
    assert (cut.name, cut.shape) == ("first", (5,))
    network = Counted().eval()
    (cut,) = by_hooks(network, x)
    assert torch.equal(cut.suffix(cut.handed(cut.prefix(x), lambda: x)), network(x))


def test_inputs_beside_features_keep_their_values_or_are_refused():
    cut = by_hooks(Odd().eval(), torch.randn(4, 6))[0]
    features = torch.randn(2, 6)
    for given in (torch.tensor([[2**24, 0], [1, 2]]), torch.tensor([[torch.nan, 0.1], [1, 2]])):
        beside = cut.handed(features, lambda given=given: given)
        torch.testing.assert_close(beside, torch.cat([features, given.float()], 1), rtol=0, atol=0, equal_nan=True)
    assert cut.handed(features.half(), lambda: features.double()).dtype == torch.float64
    with pytest.raises(NetworkError, match=r"inputs of torch\.int64 do not fit torch\.float32, beside"):
        cut.handed(features, lambda: torch.tensor([[2**24 + 1, 0], [1, 2]]))


class Loose(nn.Module):
    """Keeps a layer where no checkpoint looks."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.layers = nn.Linear(6, 6), [nn.Linear(6, 6)]

    def forward(self, x):
        return self.layers[0](torch.tanh(self.hidden(x)))


class Aside(nn.Module):
    """Runs its layer only for some samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.layer(x) if bool((x[0] > 0).any()) else x)


def test_what_comes_apart_in_no_way_says_why_for_each():
    with pytest.raises(NetworkError, match=r"torch.fx: .*; torch.export: it holds parameters that are not registered"):
        cuts(Loose(), torch.zeros(2, 6))
    with pytest.raises(NetworkError, match=r"torch.fx: .*; torch.export: .*; forward hooks: no submodule returns a"):
        cuts(Aside(), -torch.ones(2, 6))
    found = cuts(Aside(), torch.ones(2, 6))
    assert [cut.name for cut in found] == ["layer"]
    with pytest.raises(NetworkError, match="layer does not run on these inputs"):
        found[0].prefix(-torch.ones(2, 6))


@pytest.mark.parametrize("name", ["windows", "masked texts", "branching"])
def test_taps_follow_a_model_that_trains(name):
    network, x = NETWORKS[name][0]()
    found = taps(network, x)
    assert list(found.shapes) == default_cuts(cuts(network, x))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(2):
        values, outputs = found(x)
        assert torch.equal(outputs, network(x))
        wanted = features_at(network, found.cuts)(x)
        loss = outputs.square().sum()
        gradients = torch.autograd.grad(loss, list(values.values()))
        for cut, value, one, gradient in zip(found.cuts, values.values(), wanted, gradients, strict=True):
            assert torch.equal(value, one)
            alone = one.detach().requires_grad_()
            again = cut.suffix(cut.handed(alone, lambda: x)).square().sum()
            torch.testing.assert_close(gradient, torch.autograd.grad(again, alone)[0])
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()


def test_a_name_that_was_merged_is_a_name_all_the_same():
    network, x = texts()
    every = cuts(network, x, every=True)
    assert {"words", "layers.0"} <= {cut.name for cut in every} or {"add", "layers.0"} <= {cut.name for cut in every}
    assert [cut.name for cut in resolve(every, ["layers.0"])] == ["layers.0"]


def tiny_resnet():
    return build("resnet20", classes=4, shape=(3, 8, 8), width=4), torch.randn(3, 3, 8, 8)


@pytest.mark.parametrize(
    "make", [tiny_resnet, lambda: (Tokens(), torch.randint(0, 11, (3, 5)))], ids=["resnet", "tied"]
)
@torch.no_grad()
def test_hooks_agree_with_the_graph_of_torch_fx(make):
    torch.manual_seed(0)
    network, x = make()
    network.eval()
    early, late = (moved(network, seed).state_dict(keep_vars=True) for seed in (1, 2))
    by_name = {cut.name: cut for cut in cuts(network, x)}
    both = [(by_name[cut.name], cut) for cut in by_hooks(network, x) if cut.name in by_name]
    assert len(both) >= 3
    for traced, hooked in both:
        assert (traced.shape, traced.module) == (hooked.shape, hooked.module)
        for side in ("prefix_macs", "suffix_macs", "prefix_params", "suffix_params"):
            assert getattr(traced, side) == getattr(hooked, side), (traced.name, side)
        outputs = []
        for cut in (traced, hooked):
            z = functional_call(cut.prefix, state_for(cut.prefix, early), (x,))
            handed = cut.handed(z, lambda: x)
            outputs += [z, functional_call(cut.suffix, state_for(cut.suffix, late), (handed,))]
        assert torch.equal(outputs[0], outputs[2])
        assert torch.equal(outputs[1], outputs[3])


class Encoded(nn.Module):
    """An encoder of torch.nn, which is one operation to torch.fx."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embed, self.encoder, self.head = nn.Linear(4, 8), nn.TransformerEncoder(layer, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


def test_cuts_inside_what_is_one_operation_to_a_graph_are_found_by_another_way():
    torch.manual_seed(0)
    network, x = Encoded().eval(), torch.randn(3, 5, 4)
    found = cuts(network, x)
    layers = [f"encoder.layers.{i}" for i in range(2)]
    assert [cut.name for cut in found] == ["embed", *layers, "encoder"]
    assert_is_the_mixed_state(
        network, x, found, {name: ("embed", *layers[: i + 1]) for i, name in enumerate(layers)} | {"embed": ("embed",)}
    )
    graph = next(ways for ways in every_way(network, x) if ways[0].method == "torch.fx")
    assert not set(layers) & {cut.name for cut in graph}
    narrow = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2), nn.ReLU(), nn.Linear(2, 2))
    assert cuts(narrow, torch.randn(3, 64))[0].method == "torch.fx"  # one layer is no piece to be told apart


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "shuffled" else ()) for name in NETWORKS]
)
def test_what_runs_beside_a_place_is_seen_without_trying_it(name, monkeypatch):
    """Nothing that a trial would find is left out, and a network of two branches is tried at their meeting only."""
    network, x = NETWORKS[name][0]()
    seen = [cut.name for cut in by_hooks(network, x)]
    monkeypatch.setattr(Hooked, "_passed_by", lambda *_: False)
    assert [cut.name for cut in by_hooks(network, x)] == seen


def test_two_branches_are_tried_where_they_meet_only(monkeypatch):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = (nn.Sequential(*(nn.Linear(4, 4) for _ in range(5))) for _ in range(2))
            self.meet, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.meet(self.one(x) + self.other(x)))

    tried, part = [], Hooked.part

    def noted(self, source, result, module=None):
        tried.append(getattr(source, "path", ""))
        return part(self, source, result, module)

    monkeypatch.setattr(Hooked, "part", noted)
    names = [cut.name for cut in by_hooks(Two(), torch.randn(3, 4))]
    assert names == ["one.0", "one.1", "one.2", "one.3", "one", "meet"]  # beside the first, only the input is needed
    assert not any(path.startswith("other") for path in tried)


def test_the_table_of_architectures_says_which_way_and_why_not():
    row = examine(lambda: (branching()[0], (torch.zeros(3, 2), torch.randn(3, 6))))
    assert (row["way"], row["bit equal"], row["input"]) == ("forward hooks", True, [6])
    assert row["default"] == default_cuts(cuts(*branching()))
    assert "torch.fx: " in examine(lambda: (Loose(), (torch.randn(3, 6),)))["why"]


def test_settings_of_attention_are_as_before_whichever_thread_leaves_last():
    from featdyn.networks.attention import with_plain_attention, without_fast_path

    def settings() -> tuple[bool, ...]:
        sdp = torch.backends.cuda
        return torch.backends.mha.get_fastpath_enabled(), sdp.flash_sdp_enabled(), sdp.mem_efficient_sdp_enabled()

    before = settings()
    assert before[0]
    for context, places in ((without_fast_path, [0]), (with_plain_attention, [1, 2])):
        first, second = context(), context()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert not any(settings()[i] for i in places)  # the second is still inside
        second.__exit__(None, None, None)
        assert settings() == before
