"""Patterns of layer names, against a matcher that walks both names letter by letter, and the names that lead to one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from featdyn.capture import Probes, Recorder
from featdyn.capture.checkpoint_files import state_in
from featdyn.errors import NetworkError
from featdyn.networks import asked_layers, unwrap
from featdyn.networks.layer_patterns import matching
from featdyn.store import Run


def walks(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern.startswith("**"):
        return any(walks(pattern[2:], name[i:]) for i in range(len(name) + 1))
    if pattern[0] == "*":
        part = name.split(".")[0]
        return any(walks(pattern[1:], name[i:]) for i in range(len(part) + 1))
    if not name:
        return False
    if pattern[0] == "?":
        return name[0] != "." and walks(pattern[1:], name[1:])
    return pattern[0] == name[0] and walks(pattern[1:], name[1:])


@given(st.text("ab1.*?", max_size=8), st.text("ab1.", max_size=8))
def test_stars_stay_within_a_part_of_the_name_and_double_ones_do_not(pattern, name):
    assert (matching(pattern, [name]) == [name]) == (walks(pattern, name) or pattern == name)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("layer*", ["layer1", "layer2"]),
        ("layer1.*", ["layer1.0", "layer1.x[0]"]),
        ("layer[12]", ["layer1", "layer2"]),
        ("layer[!1]", ["layer2"]),
        ("**.relu", ["layer1.0.relu"]),
        ("layer**", ["layer1", "layer1.0", "layer1.0.relu", "layer1.x[0]", "layer2"]),
        ("layer1.x[0]", ["layer1.x[0]"]),  # a name is a pattern of itself
        ("layer[", []),
        ("[]", []),
        ("(layer1)", []),
    ],
)
def test_patterns_of_a_residual_network(pattern, expected):
    names = ["layer1", "layer1.0", "layer1.0.relu", "layer1.x[0]", "layer2", "fc"]
    assert matching(pattern, names) == expected


class Body(nn.Module):
    """A module in three places, one of them inside a part that may be wrapped."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        inner = nn.Sequential(OrderedDict(a=nn.Linear(4, 5), b=nn.ReLU()))
        self.first, self.part, self.head = nn.Linear(4, 4), wrap(inner), nn.Linear(5, 3)
        self.again, self.blocks = self.first, nn.ModuleList([self.first])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(self.again(x)))


def bare(module: nn.Module) -> nn.Module:
    return module


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")  # type: ignore[return-value]


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "_orig_mod": compiled,
    "module": nn.DataParallel,
    "module._orig_mod": lambda module: AveragedModel(compiled(module)),
    "_orig_mod.module": lambda module: compiled(nn.DataParallel(module)),
}


@pytest.mark.parametrize("added", WRAPPERS)
@pytest.mark.parametrize(
    ("asked", "name"),
    [("first", "first"), ("again", "first"), ("blocks.0", "first"), ("blocks.*", "first"), ("part.a", "part.a")],
)
def test_every_name_of_a_layer_leads_to_it(added, asked, name):
    wrap = WRAPPERS[added]
    for prefix in ("", f"{added}."):
        assert asked_layers(unwrap(wrap(Body(bare))), f"{prefix}{asked}") == [name]
    inside = Body(wrap)  # the same name, and with what the wrapper inside adds it leads there too
    own = next(own for own, module in inside.named_modules() if own in (name, name.replace("part", f"part.{added}")))
    assert asked_layers(inside, asked) == asked_layers(inside, own) == [name]
    assert asked_layers(inside, "**") == asked_layers(Body(bare), "**")
    assert asked_layers(inside, f"part.{added}") == ["part"]
    assert asked_layers(inside, "nowhere") == []
    for other in ("base_model.model.", "module.base_model.model.", "_fsdp_wrapped_module."):  # of PEFT and FSDP
        assert asked_layers(Body(bare), f"{other}{asked}") == [name]


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel])
@pytest.mark.parametrize("pattern", ["**", "part.*", "part"])
def test_what_is_compiled_in_part_is_recorded_by_the_same_names(tmp_path, wrap, pattern):
    found = []
    for place, own in (("plain.zarr", bare), ("wrapped.zarr", wrap)):
        probes = Probes(torch.arange(24.0).reshape(6, 4).sin(), torch.arange(6) % 3)
        with Recorder(Body(own), probes, tmp_path / place, layers=[pattern]) as recorder:
            recorder.record(step=0)
        found.append(Run(tmp_path / place))
    plain, wrapped = found
    assert wrapped.layers == plain.layers
    for layer in plain.layers:
        for of in ("activation", "gradient"):
            path = f"layers/{layer}/{of}"
            np.testing.assert_array_equal(wrapped.block(path, 0, 0), plain.block(path, 0, 0))


def test_a_network_that_holds_itself_has_names_that_end():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    net[0].above = net
    assert asked_layers(net, "0.above.1") == []
    assert asked_layers(net, "1") == ["1"]


@pytest.mark.parametrize("added", WRAPPERS)
@pytest.mark.parametrize("prefixed", [False, True])
def test_weights_of_a_network_with_a_wrapped_part_are_read_without_and_back(tmp_path, added, prefixed):
    plain, inside = Body(bare), Body(WRAPPERS[added])
    plain.part = inside.get_submodule(f"part.{added}")
    path = tmp_path / "step1.pt"
    for saved, loaded in ((inside, plain), (plain, inside)):
        state = {name: value for name, value in saved.state_dict().items() if not name.endswith("n_averaged")}
        torch.save({("module." if prefixed else "") + name: value for name, value in state.items()}, path)
        for prefix in (None, "module." if prefixed else ""):
            if loaded is inside and "module._" in added:  # whose count of averages is no weight of the network
                with pytest.raises(NetworkError, match=r"part.n_averaged is missing"):
                    state_in(path, loaded, prefix)
                continue
            found = state_in(path, loaded, prefix)
            assert found.keys() == loaded.state_dict().keys()
            assert all(torch.equal(found[name], value) for name, value in loaded.state_dict().items())
