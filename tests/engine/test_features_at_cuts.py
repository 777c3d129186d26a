"""Batches as they were recorded, features of any of their probes, and which way to features is the cheaper."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from featdyn.analysis.features.interactions.tables import ROWS, Asked, of_batches, slices
from featdyn.analysis.inputs import features_at_cuts, stitchable
from featdyn.analysis.inputs.feature_source import Rates, choose
from featdyn.analysis.inputs.features_at_cuts import Batches, measure_rates
from featdyn.analysis.inputs.one_input import of_one_input
from featdyn.analysis.inputs.prefixes import PrefixOrder, PrefixSizes, least_moved
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.recorded_layers import recorded_layers
from featdyn.analysis.inputs.stitchable import cut_network
from featdyn.capture.call import Call
from featdyn.compute import Limits, Plan
from featdyn.errors import NetworkError
from featdyn.store import Run
from featdyn.store.kept import Kept
from tests.engine.on_workers import Own, own_run
from tests.strategies import sizes

N, SHARD, SIZE = 42, 16, 5


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Own]:
    return own_run(tmp_path_factory.mktemp("own") / "run.zarr", checkpoints=2)


def test_batches_are_those_of_the_recording_in_whatever_order_they_are_asked_for(recorded: tuple[Run, Own]) -> None:
    run = recorded[0]
    inputs, labels = torch.from_numpy(run.values("inputs/input")), torch.from_numpy(run.values("inputs/target"))
    batches = Batches(run, torch.device("cpu"))
    starts = [i for block in range(0, N, SHARD) for i in range(block, min(block + SHARD, N), SIZE)]
    assert len(batches) == len(starts) == 10
    assert [batch.start for batch in batches[:]] == starts
    assert [batch.start for batch in batches[1:-1:3]] == starts[1:-1:3]
    assert batches[-1].start == starts[-1]
    for block in range(3):
        assert batches.of_block(block) == [i for i, start in enumerate(starts) if start // SHARD == block]
    for i in (0, 9, 7, 3, 4, 1, 8, 2, 9, 0):  # from block to block and back
        batch = batches[i]
        stop = min(starts[i] + SIZE, (starts[i] // SHARD + 1) * SHARD, N)
        assert (batch.block, batch.start, batch.stop, batch.rows) == (starts[i] // SHARD, starts[i], stop, SIZE)
        rows = np.minimum(np.arange(starts[i], starts[i] + SIZE), stop - 1)  # the last one again
        assert torch.equal(batch.inputs, inputs[rows])
        assert torch.equal(batch.labels, labels[rows])
        for first, last in itertools.combinations(range(stop - starts[i] + 1), 2):
            part = batch.part(first, last)
            assert (part.block, part.start, part.stop) == (batch.block, batch.start + first, batch.start + last)
            assert part.rows == last - first
            assert torch.equal(part.inputs, inputs[part.start : part.stop])
            assert batches.rows(part) == (i, slice(first, last))


@pytest.mark.parametrize("features", ["stored", "recomputed"])
@pytest.mark.parametrize("keeps", [False, True])
def test_features_of_any_probes_are_those_of_the_network(recorded: tuple[Run, Own], features: str, keeps: bool) -> None:
    run, model = recorded
    run.kept = Kept(2**20) if keeps else None
    parts = cut_network(run, model, ("one", "pool"), features)
    sources: dict[str, Any] = {"one": "stored", "pool": "recomputed"}
    mixed = cut_network(run, model, ("one", "pool"), sources).features
    inputs = torch.from_numpy(run.values("inputs/input"))
    try:
        for t in (1, 0, 1):
            state = parts.states[t]
            wanted = [
                torch.func.functional_call(cut.prefix, {k: state[k] for k in dict(cut.prefix.state_dict())}, inputs)
                for cut in parts.cuts
            ]
            for found in (parts.features, mixed):
                for i in (9, 0, 4, 7, 3):
                    batch = found.batches[i]
                    for z, exact in zip(found(batch, t), wanted, strict=True):
                        rows = np.minimum(np.arange(batch.start, batch.start + SIZE), batch.stop - 1)
                        torch.testing.assert_close(z, exact[rows])
                        z.fill_(torch.nan)  # who is given them may change them
                kept = np.array([41, 3, 17, 3, 16, 15, 4])
                for z, exact in zip(found.whole(t, kept), wanted, strict=True):
                    torch.testing.assert_close(z, exact[kept])
    finally:
        run.kept = None
    held = 16 * 4 * (36 + (4 * 36 + 6 if features == "stored" else 0))
    assert parts.features.block_bytes == held
    assert parts.features.stored_bytes == (4 * N * (4 * 36 + 6) if features == "stored" else 0)
    assert mixed.stored_bytes == 4 * N * 4 * 36


def test_a_network_that_returns_no_logits_is_refused_with_the_run(recorded: tuple[Run, Own]) -> None:
    run, model = recorded
    with pytest.raises(NetworkError, match=rf"^{run.path}: [^\n]+$"):
        of_one_input(run, model, Call(lambda net, given: {"a": net(given)}))


def test_rates_are_what_a_pass_and_a_read_take(recorded: tuple[Run, Own], monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = recorded
    cuts = cut_network(run, model, ("one", "two"), "recomputed").cuts
    ticks = itertools.count(1)
    monkeypatch.setattr(features_at_cuts.time, "perf_counter", lambda: float(next(ticks)) ** 2)
    found = measure_rates(run, model, cuts, {"two"})
    assert found.macs == cuts[-1].prefix_macs * SIZE / 3
    assert found.bytes == SHARD * 4 * 6 * 9 / 7
    assert measure_rates(run, model, cuts, set()).bytes == float("inf")


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(1, 9)), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([0.5, 2.0, float("inf")]),
)
@example([(1, True, 1)], 3.0, float("inf"))
@example([(1, True, 1), (1, True, 1)], 0.0, 2.0)
def test_the_source_is_the_cheapest_way(cuts: list[tuple[int, bool, int]], macs: float, read: float) -> None:
    """Of all ways to compute up to some cut and to read the others."""
    total = np.cumsum([more for more, _, _ in cuts])
    named: Any = [SimpleNamespace(name=str(i), prefix_macs=int(m)) for i, m in enumerate(total)]
    stored = {str(i) for i, (_, there, _) in enumerate(cuts) if there}
    found = choose(named, stored, {str(i): width for i, (_, _, width) in enumerate(cuts)}, Rates(macs, read))
    computed = [found[cut.name] == "recomputed" for cut in named]
    assert computed == sorted(computed, reverse=True)

    def cost(depth: int) -> float:
        return (total[depth - 1] / macs if depth and macs else 0) + sum(w for _, _, w in cuts[depth:]) / read

    ways = [d for d in range(len(cuts) + 1) if all(there for _, there, _ in cuts[d:])]
    assert sum(computed) in ways
    assert cost(sum(computed)) == pytest.approx(min(map(cost, ways)))


@pytest.mark.parametrize("more", [0, 1])
def test_little_is_read_without_asking_the_clock(
    recorded: tuple[Run, Own], monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    run, model = recorded
    asked: list[Any] = []
    monkeypatch.setattr(stitchable, "UNTIMED", run.checkpoints * N * 4 * (4 * 36 + 6) + more)
    monkeypatch.setattr(stitchable, "measure_rates", lambda *given: (asked.append(given), Rates(1.0, 1e-9))[1])
    parts = cut_network(run, model, ("one", "pool"))
    assert bool(asked) == (not more)
    assert set(parts.sources.values()) == {"stored" if more else "recomputed"}


def test_what_a_network_in_parts_says_of_itself(recorded: tuple[Run, Own]) -> None:
    run, model = recorded
    parts = cut_network(run, model, ("one", "pool"), "recomputed")
    read = cut_network(run, model, ("one", "pool"), "stored")
    features, widest = 4 * (4 * 36 + 6), 4 * 4 * 36
    assert parts.sample_bytes == features
    assert parts.pass_bytes == SIZE * (features + stitchable.BETWEEN * widest)
    assert read.pass_bytes == SIZE * (features + widest)
    assert parts.held["weights"] == 2 * sum(tensor.nbytes for tensor in model.state_dict().values())
    layers = recorded_layers(run, ["one", "pool"], "it is not asked")
    assert layers.pass_bytes == read.pass_bytes
    for half in ("prefix", "suffix"):
        with pytest.raises(NetworkError, match="recorded layers have no halves"):
            getattr(layers.cuts[0], half)


@given(*[sizes(1, 9)] * 8, st.integers(0, 4), st.booleans())
def test_bytes_of_an_order_are_those_of_its_passes(
    steps: int, batches: int, unit: int, cuts: int, weights: int, pieces: int, piece: int, asked: int, chunk: int,
    disk: bool,
) -> None:  # fmt: skip
    """Features at cuts are written once and read as often as they are asked for, at each checkpoint."""
    found = PrefixSizes(steps, batches, unit, cuts, weights, pieces, piece, asked)
    order, other = PrefixOrder(chunk, disk), PrefixOrder(chunk, False)
    assert found.moved(order) - found.moved(other) == disk * steps * batches * cuts * (1 + asked)
    assert found.on_disk(order) == (0 if chunk else batches * unit) + disk * steps * batches * cuts
    assert found.state(order) == {
        "a piece": piece,
        "features on their way": chunk * unit,
        "features at cuts": 0 if disk else steps * batches * cuts,
    }


def test_sizes_of_prefixes_are_those_of_their_batches_and_pieces() -> None:
    cuts: Any = [SimpleNamespace(shape=(2, 3), after=4), SimpleNamespace(shape=(5,), after=6)]
    pieces: Any = SimpleNamespace(
        after=lambda cut: cut.after, widest=7, stored_bytes=lambda first, stop: 100 * first + stop, held_bytes=33
    )
    batches: Any = type("Four", (), {"size": SIZE, "__len__": lambda self: 4})()
    run: Any = SimpleNamespace(checkpoints=3)
    found = PrefixSizes.of(run, pieces, cuts, batches, 2)
    assert found == PrefixSizes(3, 4, 4 * SIZE * 7, 4 * SIZE * 11, 6, 6, 33, 2)


def test_the_order_that_moves_least_fits_into_memory_and_on_the_disk() -> None:
    ways = {"a": (9, 5, 0), "b": (4, 5, 7), "c": (4, 5, 6), "d": (1, 8, 0)}  # bytes that are read, held, on disk

    def chosen(memory: int, disk: int) -> str:
        way, plan = least_moved(
            ways, lambda w: Plan(w, 1, ways[w][0], state={"all": ways[w][1]}), lambda w: ways[w][2],
            Limits(memory, 0, 1, True), disk,
        )  # fmt: skip
        assert plan.work == way
        return way

    assert [chosen(8, 9), chosen(7, 9), chosen(7, 6), chosen(7, 5)] == ["d", "c", "c", "a"]
    assert chosen(4, 9) == "a"  # none fits: the first of the smallest


def test_coordinates_are_those_of_the_run_and_its_cuts(recorded: tuple[Run, Own]) -> None:
    run, model = recorded
    parts = cut_network(run, model, ("one", "pool"), {"one": "stored", "pool": "recomputed"})
    sets = ProbeSets.of(run)
    found = parts.coords(run, sets)
    assert not found.data_vars
    assert found["cut"].values.tolist() == ["one", "pool"]
    assert (found["set"].values.tolist(), found["set_size"].values.tolist()) == (["train", "test"], [21, 21])
    for end in "12":
        assert found[f"t{end}"].values.tolist() == [0, 1]
        assert found[f"step{end}"].dims == (f"t{end}",)
        assert found[f"step{end}"].values.tolist() == [0, 10]
        assert f"rate{end}" not in found.coords
    whole = {cut.prefix_macs + cut.suffix_macs for cut in parts.cuts}
    assert whole == {36 * 9 * 4 + 9 * 36 * 6 + 18}
    assert found["prefix_macs"].values.tolist() == [36 * 9 * 4, 36 * 9 * 4 + 9 * 36 * 6]
    assert set((found["prefix_macs"] + found["suffix_macs"]).values.tolist()) == whole
    assert found["source"].values.tolist() == ["stored", "recomputed"]
    assert found.attrs == {"cut_method": parts.method}
    apart = replace(parts, difference=0.5, halves=False).coords(run, sets)
    assert apart.attrs["cut_difference"] == 0.5
    assert "prefix_macs" not in apart.coords


class Off(nn.Sequential):
    """A half that gives something else with the weights of some checkpoints."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        found, odd = super().forward(z), float(self[0].bias[0].detach())
        return torch.where(torch.arange(found.shape[1]) == 1, found + odd, found)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("where", [0, 3, 6])
@pytest.mark.parametrize("odd", [0.0, 0.5, float("nan"), float("inf")])
def test_halves_are_compared_at_the_ends_or_at_more_checkpoints(traced: bool, where: int, odd: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].bias.zero_()
    states: Any = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for _ in range(7)]
    states[where]["1.bias"][0] = odd
    prefix, suffix = nn.Sequential(), Off()
    prefix.add_module("0", model[0])
    suffix.add_module("1", model[1])
    cut: Any = SimpleNamespace(prefix=prefix, suffix=suffix, traced=traced, handed=lambda z, inputs: z)
    inputs = torch.randn(5, 3)
    found = stitchable._difference(model, [cut], states, inputs)
    if odd == 0 or (traced and where == 3):
        assert found == 0
        return
    model.load_state_dict(states[where])
    largest = model(inputs).detach().double().abs().nan_to_num(nan=0.0).max()
    assert found == pytest.approx(float(abs(odd) / largest) if np.isfinite(odd) else np.inf)


@given(st.sets(st.integers(0, N - 1)), st.integers(0, 9))
def test_tables_are_of_the_probes_asked_for(asked: set[int], index: int) -> None:
    spans = [
        (block, i, min(i + SIZE, block + SHARD, N)) for block in (0, 16, 32) for i in range(block, block + SHARD, SIZE)
    ]
    spans = [span for span in spans if span[1] < span[2]]
    probes = np.array(sorted(asked), int)
    parts: Any = SimpleNamespace(features=SimpleNamespace(batches=SimpleNamespace(spans=spans)))
    places = of_batches(parts, parts, probes)
    assert [probes[mine].tolist() for mine in places] == [[p for p in probes if i <= p < j] for _, i, j in spans]
    _, start, stop = spans[index]
    batch: Any = SimpleNamespace(start=start, stop=stop)
    assert Asked(probes, probes, probes).of(batch).tolist() == probes[places[index]].tolist()


@pytest.mark.parametrize("players", [1, 8, 9, 10])
def test_subsets_pass_together_each_once(players: int) -> None:
    found = list(slices(players))
    assert np.concatenate(found).tolist() == list(range(2**players))
    assert {len(part) for part in found} == {min(ROWS, 2**players)}
