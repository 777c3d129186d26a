"""Outputs of masked feature maps against hooks in float64, and what is read off them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import featdyn
from featdyn.analysis import analyses
from featdyn.analysis.features.interactions.regions import choose, kept, regions
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.statistics.interactions import and_or, mean_order, salient, strength_by_order
from featdyn.store import Run
from tests.engine.on_workers import own_run, plans, same_on

interactions = analyses()["interactions"]
OPTIONS = {"players": 4, "samples": 5}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return own_run(tmp_path_factory.mktemp("interactions") / "run.zarr")


@pytest.fixture(scope="module")
def found(recorded):
    return interactions(recorded[0], model=recorded[1], cuts=["one", "two", "pool"], **OPTIONS)


def log_odds(logits: torch.Tensor, label: int) -> torch.Tensor:
    p = torch.softmax(logits, -1)[..., label]
    return torch.log(p) - torch.log1p(-p)


def test_v_is_the_log_odds_behind_masked_features(recorded, found) -> None:
    """A hook puts zeros in place of regions, in float64; regions are found anew from their numbers."""
    run, model = recorded
    model = model.double().eval()
    inputs, labels = torch.from_numpy(run.values("inputs/input")).double(), run.coords["label"].values
    places = {name: k for k, name in enumerate(run.coords["sample"].values.tolist())}
    shapes = {"one": (6, 6), "two": (3, 3)}
    for t in (0, 3):
        model.load_state_dict({k: v.double() if v.is_floating_point() else v for k, v in run.state(t).items()})
        for cut, (height, width) in shapes.items():
            for probe in found["probe"].values[[0, 4, -1]]:
                cell = found.sel(cut=cut, probe=probe).isel(t=t)
                for subset in (0, 0b0101, 0b1110, 0b1111):
                    hidden = [int(r) for i, r in enumerate(cell["region"].values) if not subset >> i & 1]

                    def mask(module, given, out, hidden=hidden, width=width):
                        flat = out.clone().flatten(2)
                        flat[..., hidden] = 0  # of so small a map each place is a region
                        return flat.view_as(out)

                    handle = model.get_submodule(cut).register_forward_hook(mask)
                    with torch.no_grad():
                        logits = model(inputs[[places[probe]]])[0]
                    handle.remove()
                    expected = log_odds(logits, labels[places[probe]])
                    assert float(cell["v"][subset]) == pytest.approx(float(expected), abs=1e-4)
                assert (cell["region"].values < height * width).all()
    model.float()


def test_all_regions_kept_give_the_recorded_network(recorded, found) -> None:
    run = recorded[0]
    logits = torch.from_numpy(run.array("outputs/logits").values).double()
    places = [run.coords["sample"].values.tolist().index(p) for p in found["probe"].values]
    for t in range(run.checkpoints):
        expected = [float(log_odds(logits[t, p], run.coords["label"].values[p])) for p in places]
        for cut in ("one", "two", "pool"):
            np.testing.assert_allclose(found["v"].sel(cut=cut)[t, :, -1], expected, atol=1e-4)


def test_numbers_are_those_of_the_tables(found) -> None:
    splits = {"train": slice(0, 5), "test": slice(5, 10)}  # 42 probes, the first half of them for training
    for cut in ("one", "pool"):
        for name, rows in splits.items():
            model = and_or(found["v"].sel(cut=cut)[2, rows].values.astype(np.float64))
            cell = found.sel(cut=cut, set=name).isel(t=2)
            each = strength_by_order(model, salient(model))
            np.testing.assert_allclose(cell["strength"], each.mean(0), rtol=1e-6)
            assert float(cell["mean_order"]) == pytest.approx(float(mean_order(each.sum(0))))
            low, high = float(cell["mean_order_low"]), float(cell["mean_order_high"])
            if np.isnan(low):  # only single regions count, in all draws
                assert float(cell["mean_order"]) == pytest.approx(1)
            else:
                assert low < float(cell["mean_order"]) < high
            np.testing.assert_allclose(found["l1"].sel(cut=cut)[2, rows], model.l1, rtol=1e-6)
    assert np.isfinite(found["mean_order_low"]).any()
    assert (found["gap"] <= 0.0101 * found["l1"]).all()
    assert found["used"].values.tolist() == [5, 5]


def test_players_stay_and_do_not_depend_on_who_else_is_asked(recorded, found) -> None:
    run, model = recorded
    more = interactions(run, model=model, cuts=["one"], players=4, samples=9)
    shared = [p for p in found["probe"].values if p in set(more["probe"].values)]
    assert shared
    for probe in shared:
        np.testing.assert_array_equal(
            found["region"].sel(cut="one", probe=probe), more["region"].sel(cut="one", probe=probe)
        )
    other = interactions(run, model=model, cuts=["one"], seed=1, **OPTIONS)
    assert (other["region"].values != found["region"].sel(cut="one").values).any()


def test_the_same_on_workers(recorded, clusters) -> None:
    run, model = recorded
    chosen = {"model": model, "cuts": ["two"], **OPTIONS}
    same_on(clusters, interactions, interactions(run, **chosen), run, **chosen)


def test_it_says_what_it_needs(recorded, caplog) -> None:
    plans(interactions, recorded[0], caplog, model=recorded[1], cuts=["one"], **OPTIONS)


def test_a_cut_with_too_few_entries_has_its_reason_and_others_their_numbers(recorded) -> None:
    run, model = recorded
    found = interactions(run, model=model, cuts=["one", "pool"], players=7, samples=3)
    assert np.isfinite(found["v"].sel(cut="one")).all()
    for name in ("v", "l1", "strength", "mean_order"):
        assert found[name].sel(cut="pool").isnull().all()
        words = reasons(found, name)
        assert words is not None
        assert set(words.sel(cut="pool").values.ravel()) == {"fewer entries than players"}
    assert (found["region"].sel(cut="pool") == -1).all()


class Log(nn.Module):
    """What zeros make infinite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)


@pytest.mark.parametrize("infinite", [True, False])
def test_values_that_are_not_finite_and_outputs_that_never_change(tmp_path, infinite: bool) -> None:
    middle = Log() if infinite else nn.Identity()
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Sigmoid(), middle, nn.Linear(6, 3)).eval()
    probes = Probes(torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3)
    with Recorder(model, probes, tmp_path / "run.zarr", layers=["*"]) as recorder, torch.no_grad():
        recorder.record(step=0)
        model[4].weight.zero_()
        recorder.record(step=1)
    found = interactions(Run(tmp_path / "run.zarr"), model=model, cuts=["2" if infinite else "3"], **OPTIONS)
    if infinite:
        assert np.isnan(found["v"][0, 0, :, 0]).all()
        assert np.isfinite(found["v"][0, 0, :, -1]).all()
        said = {"l1": "not finite", "strength": "no probe is computed", "mean_order": "no probe is computed"}
        said["v"] = "not finite"
        for name, why in said.items():
            words = reasons(found, name)
            assert words is not None
            assert set(words.isel(t=0).values.ravel()) == {why}
        return
    assert np.isfinite(found["v"]).all()
    still = found.isel(t=1, cut=0, set=0)
    assert (still["strength"] == 0).all()
    assert np.isnan(still["mean_order"])
    words = reasons(found, "mean_order")
    assert words is not None
    assert words.isel(t=1, cut=0, set=0) == "no interaction is salient"


class Branching(nn.Module):
    """What neither torch.fx nor torch.export follows: it comes apart by hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        return self.last(hidden) if float(hidden.detach().sum()) >= 0 else self.last(-hidden)


def test_a_network_that_comes_apart_by_hooks(tmp_path) -> None:
    torch.manual_seed(0)
    model = Branching().eval()
    inputs, labels = torch.randn(9, 6), torch.arange(9) % 3
    with Recorder(model, Probes(inputs, labels), tmp_path / "run.zarr", layers=["*"]) as recorder:
        recorder.record(step=0)
    found = interactions(Run(tmp_path / "run.zarr"), model=model, cuts=["first"], players=3, samples=9)
    assert "hook" in found.attrs["cut_method"]
    with torch.no_grad():
        hidden = model.first(inputs)
        for subset in range(8):
            kept_ = torch.tensor([bool(subset >> (k * 3 // 8) & 1) for k in range(8)])
            logits = model.last(torch.relu(torch.where(kept_, hidden, 0.0)))
            expected = [float(log_odds(row.double(), int(label))) for row, label in zip(logits, labels, strict=True)]
            np.testing.assert_allclose(found["v"][0, 0, :, subset], expected, atol=1e-4)


def test_it_is_kept_in_the_store_and_read_again(recorded) -> None:
    run, model = recorded
    found = featdyn.analyze(run, "interactions", model=model, cuts=["two"], **OPTIONS)
    again = Run(run.path).result("interactions")
    np.testing.assert_array_equal(again["v"], found["v"])
    model_again = and_or(again["v"].values.astype(np.float64))
    np.testing.assert_allclose(model_again.l1, found["l1"], rtol=1e-6)
    with pytest.raises(FeatdynError, match="players"):
        interactions(run, model=model, players=14)


@pytest.mark.parametrize(("shape", "players"), [((3, 32, 32), 10), ((2, 9, 9), 36), ((2, 8, 8), 40), ((4, 2, 3), 6)])
def test_regions_are_patches(shape: tuple[int, ...], players: int) -> None:
    found = regions(shape, players)
    assert found is not None
    of_entry, candidates = found
    assert of_entry.shape == (1, *shape[1:])
    side = [min(s, 8) for s in shape[1:]]
    sizes = np.bincount(of_entry.ravel())
    assert len(sizes) == side[0] * side[1]
    assert sizes.max() <= np.prod([-(-s // c) for s, c in zip(shape[1:], side, strict=True)])
    border = np.unique(np.r_[of_entry[0, 0], of_entry[0, -1], of_entry[0, :, 0], of_entry[0, :, -1]])
    assert bool(np.isin(candidates, border).any()) == (len(sizes) - len(border) < players)
    assert len(candidates) >= players


@pytest.mark.parametrize(("shape", "players"), [((7,), 3), ((5, 4), 6), ((4, 1, 2), 5)])
def test_other_shapes_are_equal_parts(shape: tuple[int, ...], players: int) -> None:
    found = regions(shape, players)
    assert found is not None
    sizes = np.bincount(found[0].ravel())
    assert len(sizes) == players
    assert sizes.max() - sizes.min() <= 1
    assert regions((2,), 3) is None
    mine = choose(found[1], players, 0, 1)
    masks = kept(found[0], mine[:2], np.arange(4))
    np.testing.assert_array_equal(masks[0], ~np.isin(found[0], mine[:2]))
    np.testing.assert_array_equal(masks[0b10], found[0] != mine[0])
    assert masks[-1].all()
