"""What is held together where not all of it fits: every part once, in order, and as much at a time as there is room."""

from __future__ import annotations

import itertools
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from featdyn.analysis.composites import grid
from featdyn.analysis.composites.batchnorm_statistics import nearly_equal
from featdyn.analysis.features.drift import motion, weight_distance
from featdyn.analysis.features.drift.motion import Units
from featdyn.analysis.inputs import suffix_banks
from tests.strategies import sizes


class States(list[Any]):
    """Those of checkpoints, in memory."""

    @property
    def sizes(self) -> dict[str, int]:
        return {name: tensor.nbytes for name, tensor in self[0].items()}


def network(sizes: list[int], steps: int) -> Any:
    """Return what analyses hold of a network of layers with so many parameters, cut behind the first."""
    layers = [nn.Linear(size, 1, bias=False) for size in sizes]
    whole = nn.Sequential(*layers)
    halves = [nn.Sequential(), nn.Sequential()]
    for i, layer in enumerate(layers):
        halves[i > 0].add_module(str(i), layer)
    cut = SimpleNamespace(prefix=halves[0], suffix=halves[1], suffix_params=sum(sizes[1:]))
    return SimpleNamespace(cuts=[cut], states=States([whole.state_dict()] * steps), halves=True, model=whole)


@given(sizes(1, 12), st.data(), sizes(1, 40), st.integers(0, 300))
def test_suffixes_are_held_as_many_as_fit(steps: int, data: st.DataObject, size: int, room: int) -> None:
    old, parts = data.draw(st.integers(0, steps)), network([1, size], steps)
    one = suffix_banks.bank_bytes(parts)
    assert one == suffix_banks.BANK * 4 * size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "HELD", room)
        groups = grid.suffix_groups(parts, old)
    assert [t for group in groups for t in group] == list(range(steps))
    assert all(len(group) == 1 or len(group) * one <= room for group in groups)
    assert not any(group.start < old < group.stop for group in groups), "what is known costs nothing"
    for first, second in itertools.pairwise(groups):
        assert second.start == old or (len(first) + 1) * one > room, "another one had fitted"


def test_a_cut_behind_all_parameters_has_suffixes_too() -> None:
    assert grid.suffix_groups(network([3], 4), 0) == [range(4)]


@given(st.lists(sizes(1, 9), min_size=1, max_size=7), sizes(1, 4), st.integers(0, 300))
def test_parameters_are_compared_as_many_as_fit(sizes: list[int], steps: int, room: int) -> None:
    parts = network(sizes, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_distance, "HELD", room)
        groups, planned = weight_distance.groups(parts), weight_distance.task_bytes(parts)
    held = [[4 * steps * sizes[int(name.partition(".")[0])] for name in group] for group in groups]
    assert sorted(name for group in groups for name in group) == sorted(parts.states[0])
    assert all(len(group) == 1 or sum(group) <= room for group in held)
    for first, second in itertools.pairwise(held):
        assert sum(first) + second[0] > room, "another one had fitted"
    # A group at all checkpoints, and a piece of a parameter at all of them beside it.
    pieces = min(room, 4 * steps * max(sizes))
    assert max(map(sum, held)) + pieces <= planned
    assert planned <= min(4 * steps * sum(sizes), max(room, max(map(max, held)))) + pieces


def test_without_halves_no_parameter_is_compared() -> None:
    parts = network([3, 4], 2)
    parts.halves = False
    assert weight_distance.groups(parts) == []


@given(sizes(1, 6), sizes(1, 50), st.integers(0, 999))
def test_probes_are_followed_as_many_as_fit(steps: int, sample: int, room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motion, "HELD", room)
        rows = motion.held_rows(SimpleNamespace(states=[{}] * steps, sample_bytes=sample))  # type: ignore[arg-type]
    assert rows == 1 or rows * steps * sample <= room
    assert (rows + 1) * steps * sample > room


@pytest.mark.parametrize("values", [1.0, 1e20, 1e-20])
@pytest.mark.parametrize("room", [1, 40, 2**20])
def test_pieces_of_a_parameter_add_up(values: float, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_distance, "HELD", room)
    states = values * torch.randn(3, 17, generator=torch.Generator().manual_seed(0))
    rows = np.vstack([states.double().numpy(), np.zeros(17)])
    expected = np.square(rows[:, None] - rows).sum(-1)
    parts = [partial(weight_distance._rows, state) for state in states]
    np.testing.assert_allclose(weight_distance._squared(parts, 17), expected, rtol=1e-5)


@given(st.data(), sizes(1, 9))
def test_images_in_several_pieces_are_counted(data: st.DataObject, rows: int) -> None:
    ends = sorted(data.draw(st.sets(sizes(1, 30), min_size=1, max_size=4)))
    spans = [(0, start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
    origins = np.array(data.draw(st.lists(st.integers(0, 6), min_size=ends[-1], max_size=ends[-1])))
    halves = [np.arange(len(origins)) % 2 == k for k in (0, 1)]
    units = Units.of_sets(SimpleNamespace(origins=origins, members=halves, names=["a", "b"]))  # type: ignore[arg-type]
    pieces: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for b, (_, start, stop) in enumerate(spans):
        for i in range(start, stop):
            pieces.setdefault((i % 2, int(origins[i])), set()).add((b, (i - start) // rows))
    assert units.shared(spans, rows) == sum(len(found) > 1 for found in pieces.values())
    assert units.sets == 2
    for i, unit in enumerate(units.of):
        assert units.set_of[unit] == i % 2
        assert units.size[unit] == ((origins == origins[i]) & halves[i % 2]).sum()


@given(sizes(1, 200), sizes(1, 50))
def test_batches_are_of_nearly_one_size(samples: int, most: int) -> None:
    parts = [range(samples)[part] for part in nearly_equal(samples, most)]
    assert [i for part in parts for i in part] == list(range(samples))
    sizes = [len(part) for part in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert (len(sizes) - 1) * most < samples, "no more batches than it takes"


@pytest.mark.parametrize("room", [1, 2**20])
def test_a_half_moves_as_all_its_parameters_together_or_has_a_reason(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One half starts at zero and is not finite in the end; the other one moves, or has no parameters at all."""
    monkeypatch.setattr(weight_distance, "HELD", room)
    parts, rng = network([3, 2, 4], 4), np.random.default_rng(0)
    parts.states = States(
        {name: torch.from_numpy(rng.standard_normal(tensor.shape)) for name, tensor in state.items()}
        for state in parts.states
    )
    parts.states[0] |= {name: 0 * parts.states[0][name] for name in ("1.weight", "2.weight")}
    parts.states[3]["2.weight"][0, 1] = np.nan
    without = SimpleNamespace(prefix=nn.Sequential(), suffix=parts.cuts[0].suffix)
    parts.cuts = [parts.cuts[0], without]

    def found() -> xr.Dataset:
        squares: dict[str, Any] = {}
        for names in weight_distance.groups(parts):
            squares |= weight_distance.squared(parts, names)
        return weight_distance.weight_distance(parts, squares)

    def vectors(*names: str) -> np.ndarray:
        return np.stack([torch.cat([state[n].flatten() for n in names]).numpy() for state in parts.states])

    def why(half: str) -> list[list[list[str]]]:
        words = np.array(["", *result[f"{half}_status"].attrs["flag_meanings"].split()[1:]])
        return words[result[f"{half}_status"].values].tolist()

    result = found()
    own = vectors("0.weight")
    apart = np.linalg.norm(own[:, None] - own, axis=-1) / np.linalg.norm(own, axis=-1)[:, None]
    np.testing.assert_allclose(result["prefix_distance"][0], apart, rtol=1e-6, atol=1e-12)
    rest = vectors("1.weight", "2.weight")[:3]
    wanted = np.full((4, 4), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted[:3, :3] = np.linalg.norm(rest[:, None] - rest, axis=-1) / np.linalg.norm(rest, axis=-1)[:, None]
    wanted[0] = [0, np.nan, np.nan, np.nan]
    reasons = np.full((4, 4), "", object)
    reasons[3], reasons[:, 3], reasons[0, 1:3] = "not_finite", "not_finite", "weights_are_zero"
    for c in range(2):
        np.testing.assert_allclose(result["suffix_distance"][c], wanted, rtol=1e-6, atol=1e-12)
        assert why("suffix")[c] == reasons.tolist()
    assert why("prefix") == [[[""] * 4] * 4, [["no_parameters"] * 4] * 4]
    parts.halves = False
    result = found()
    assert why("prefix") == why("suffix") == [[["the_network_is_not_taken_apart"] * 4] * 4] * 2
