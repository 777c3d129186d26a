"""Networks in which several names lead to one module: results are those of the same network with one name for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

from featdyn import Probes, Recorder, analyze, open_run
from featdyn.analysis.inputs.weights import States
from featdyn.errors import NetworkError
from featdyn.functional import functional_call

N = 40


class Blocks(nn.Module):
    """Three blocks and a head; ``other`` says which module has a second name, and whether that comes first."""

    def __init__(self, other: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        blocks = nn.ModuleList(nn.Sequential(nn.Linear(n, 8), nn.BatchNorm1d(8), nn.ReLU()) for n in (6, 8, 8))
        if other == "first":
            self.first = blocks[0]
        self.blocks = blocks
        if other == "last":
            self.last = blocks[2]
        self.head = nn.Linear(8, 3)
        if other == "whole":
            self.whole = nn.Sequential(*blocks, self.head)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Untraced(Blocks):
    """The same, as forward hooks take it apart."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().abs().sum()) < 0:
            return x
        return super().forward(x)


def recorded(path: Path, model: nn.Module, layers: list[str]) -> Recorder:
    """Train three steps and record each."""
    torch.manual_seed(1)
    inputs, labels = torch.randn(N, 6), torch.randint(0, 3, (N,))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with Recorder(model, Probes(inputs, labels), path, every=1, layers=layers) as recorder:
        recorder.start()
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            recorder.step()
        recorder.finish()
    return recorder


@pytest.mark.parametrize(
    ("kind", "other"), [(Blocks, "first"), (Blocks, "last"), (Blocks, "whole"), (Untraced, "last")]
)
def test_a_second_name_of_a_module_changes_no_result(tmp_path, kind, other):
    found: list[list[xr.Dataset]] = []
    for name in ("", other):
        path = tmp_path / f"{name or 'one'}.zarr"
        layers = ["blocks.*"] if name != "first" else ["first", "blocks.1", "blocks.2"]
        recorded(path, kind(name), layers)
        run = open_run(path)
        found.append([analyze(run, each, model=kind(name)) for each in ("consistency", "drift", "density")])
    for one, two in zip(*found, strict=True):
        names = {key: v.values for key, v in two.coords.items() if v.dtype.kind in "OTU"}
        own = {key: (two[key].dims, np.where(v == "first", "blocks.0", v)) for key, v in names.items()}
        two = two.assign_coords(own)
        xr.testing.assert_allclose(one, two, rtol=1e-12, atol=0)


def values(module: nn.Module) -> dict[str, Any]:
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: (id(tensor), tensor.detach().clone()) for name, tensor in tensors}


@pytest.mark.parametrize("other", ["", "first", "last", "whole"])
@pytest.mark.parametrize("every_name", [False, True])
def test_a_call_with_other_tensors_leaves_module_and_state_as_they_were(other, every_name):
    torch.manual_seed(2)
    late, module, x = Blocks().double().eval(), Blocks(other).double().eval(), torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        for tensor in late.parameters():
            tensor += torch.rand_like(tensor)
    last = {n.replace("blocks.2.", "last."): t for n, t in late.state_dict().items() if n.startswith("blocks.2.")}
    state = late.state_dict() | (last if every_name and other == "last" else {})
    before, given = values(module), dict(state)
    assert torch.equal(functional_call(module, state, (x,)), late(x))
    after = values(module)
    assert {n: one for n, (one, _) in before.items()} == {n: one for n, (one, _) in after.items()}
    assert all(torch.equal(before[n][1], after[n][1]) for n in before)
    assert state.keys() == given.keys()
    assert all(state[name] is given[name] for name in given)


def test_tied_weights_take_one_value_whichever_of_their_names_is_given():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False)).double()
    module[2].weight = module[0].weight
    x, new = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    for state in ({"0.weight": new}, {"2.weight": new}, {"2.weight": new, "0.weight": new.clone()}):
        wanted = torch.tanh(x @ new.T) @ new.T
        torch.testing.assert_close(functional_call(module, state, (x,)), wanted, rtol=1e-13, atol=0)
        assert module[0].weight is module[2].weight


BLOCKS = ["blocks.0", "blocks.1", "blocks.2"]


@pytest.mark.parametrize(
    ("other", "patterns", "wanted"),
    [
        ("first", ["blocks.*", "head"], ["first", "blocks.1", "blocks.2", "head"]),
        ("first", ["blocks.*.0"], ["first.0", "blocks.1.0", "blocks.2.0"]),
        ("last", ["l*", "blocks.0"], ["blocks.0", "blocks.2"]),
        ("whole", ["whole.*"], [*BLOCKS, "head"]),
        ("", ["*"], ["head"]),  # a list of modules does not run
        ("whole", ["*"], ["head"]),  # nor what is held beside what runs, and its layers have other names first
        ("", ["**"], [name for n in BLOCKS for name in (f"{n}.0", f"{n}.1", f"{n}.2", n)] + ["head"]),
        ("", ["bloc??", "blocks.[01]"], None),
    ],
)
def test_a_pattern_takes_what_it_fits_by_any_name_and_runs(tmp_path, other, patterns, wanted):
    if wanted is None:
        with pytest.raises(NetworkError, match=r"^no layer that 'bloc\?\?' fits runs in a forward pass; the network"):
            recorded(tmp_path / "r.zarr", Blocks(other), patterns)
        assert not (tmp_path / "r.zarr").exists()
        return
    assert sorted(recorded(tmp_path / "r.zarr", Blocks(other), patterns).layers) == sorted(wanted)


@pytest.mark.parametrize("layers", [["blocks"], ["**", "blocks"], ["*", "whole"]])
def test_what_is_named_must_run(tmp_path, layers):
    with pytest.raises(NetworkError, match=f"^layer {layers[-1]} does not run in a forward pass: leave it out"):
        recorded(tmp_path / "r.zarr", Blocks("whole"), layers)
    assert not (tmp_path / "r.zarr").exists()


def test_weights_that_do_not_fit_are_told_by_the_first_name(tmp_path):
    recorded(tmp_path / "r.zarr", Blocks(), ["blocks.*"])
    run, wide, short = open_run(tmp_path / "r.zarr"), Blocks(), Blocks()
    wide.head = nn.Linear(8, 4)
    del short.head
    for model, why in (
        (Blocks("last"), "it has last.0.weight, which they lack"),
        (short, "they have head.bias, which it lacks"),
        (wide, r"its head.weight has shape \(4, 8\), theirs \(3, 8\)"),
    ):
        with pytest.raises(NetworkError, match=f": the weights of checkpoint 0 do not fit this network: {why}$"):
            States(run, model)
