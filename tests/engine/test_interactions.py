"""Outputs of masked feature maps against hooks in float64, and what is read off them."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import featdyn
from featdyn.analysis import analyses
from featdyn.analysis.features.interactions import InteractionsOptions, compute
from featdyn.analysis.features.interactions.masker import Masker
from featdyn.analysis.features.interactions.masking import Moments, components, entries
from featdyn.analysis.features.interactions.regions import channels, choose, regions, superpixels, words
from featdyn.analysis.features.interactions.tables import MaskedOutputs
from featdyn.analysis.inputs.stitchable import cut_network
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.statistics.interactions import and_or, mean_order, salient, strength_by_order
from featdyn.statistics.interactions.ratio_of_sums import drawn, ratio_of_sums
from featdyn.store import Run, schema
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


@pytest.mark.parametrize("features", ["stored", "recomputed"])
def test_features_of_few_probes_are_those_of_the_batch(tmp_path, monkeypatch, features: str) -> None:
    """What is stored is read in the chunks that hold them."""
    monkeypatch.setattr(schema, "CHUNK_BYTES", 2**8)
    run, model = own_run(tmp_path / "run.zarr")
    parts = cut_network(run, model, ("one", "two"), features)
    block, read = Run.block, list[slice]()

    def counted(self: Run, *place: Any, rows: slice = slice(None), **more: Any) -> Any:
        read.append(rows)
        return block(self, *place, rows=rows, **more)

    for batch in parts.features.batches:
        rows = np.array([batch.stop - batch.start - 1, 0])
        whole = parts.features(batch, 2)
        with monkeypatch.context() as patch:
            patch.setattr(Run, "block", counted)
            few = parts.features.of(batch, 2, rows)
        for mine, every in zip(few, whole, strict=True):
            torch.testing.assert_close(mine, every[rows], rtol=0, atol=0)
    assert (len(read) == 4 * len(parts.features.batches)) == (features == "stored")
    assert all(rows.stop - rows.start == 1 for rows in read)


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
    rng = np.random.default_rng(0)
    z = rng.normal(size=shape)
    z[0, 0], z[0, 1] = np.inf, np.nan  # masked or not, each stays at its place
    mine, subsets = choose(candidates, players, 0, "a")[:3], np.arange(8)
    for value in (np.array(-1.0), rng.normal(size=(shape[0], 1, 1)), rng.normal(size=shape)):
        masked = entries(torch.from_numpy(z), of_entry, mine, torch.from_numpy(value))(subsets)
        assert masked.is_contiguous(memory_format=torch.channels_last)
        for subset, found_here in zip(subsets, masked.numpy(), strict=True):
            gone = [player for k, player in enumerate(mine) if not subset >> k & 1]
            np.testing.assert_array_equal(found_here, np.where(np.isin(of_entry, gone), value, z))


@pytest.mark.parametrize(("shape", "axis"), [((5, 2, 3), 0), ((7, 4), 1), ((4, 7), 1), ((6,), 0), ((2, 3, 2, 5), 3)])
def test_channels_are_the_first_axis_of_maps_and_the_last_of_others(shape: tuple[int, ...], axis: int) -> None:
    found = channels(shape, shape[axis])
    assert found is not None
    np.testing.assert_array_equal(np.broadcast_to(found[0], shape), np.indices(shape)[axis])
    assert found[1].tolist() == list(range(shape[axis]))
    assert channels(shape, shape[axis] + 1) is None


@pytest.mark.parametrize(("shape", "players"), [((7,), 3), ((5, 4), 6), ((4, 1, 2), 5)])
def test_other_shapes_are_equal_parts(shape: tuple[int, ...], players: int) -> None:
    found = regions(shape, players)
    assert found is not None
    sizes = np.bincount(found[0].ravel())
    assert len(sizes) == players
    assert sizes.max() - sizes.min() <= 1
    assert regions((2,), 3) is None
    least = regions((1, 3), 3)
    assert least is not None
    assert least[0].tolist() == [[0, 1, 2]]
    mine = choose(found[1], players, 0, "a")
    z = torch.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    masked = entries(z, found[0], mine[:2], torch.tensor(-1.0))(np.arange(4)).numpy()
    np.testing.assert_array_equal(masked[0], np.where(np.isin(found[0], mine[:2]), -1, z))
    np.testing.assert_array_equal(masked[0b10], np.where(found[0] == mine[0], -1, z))
    np.testing.assert_array_equal(masked[-1], z)


def masked_outputs(model: nn.Module, inputs: torch.Tensor, label: int, cut: str = "") -> float:
    """The log-odds of a network in float64 on one input, or with this in place of a module's output."""
    with torch.no_grad():
        if not cut:
            return float(log_odds(model(inputs[None])[0], label))
        handle = model.get_submodule(cut).register_forward_hook(lambda module, given, out: inputs[None])
        found = float(log_odds(model(torch.zeros(1, 1, 6, 6).double())[0], label))
        handle.remove()
        return found


def in_float64(run: Run, model: nn.Module, t: int) -> nn.Module:
    state = {k: v.double() if v.is_floating_point() else v for k, v in run.state(t).items()}
    model = copy.deepcopy(model).double().eval()
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("masked", ["zero", "mean", "channel_mean"])
def test_patches_of_the_input_take_the_value_that_is_asked_for(recorded, masked: str) -> None:
    run, model = recorded
    found = interactions(run, model=model, at="input", masked=masked, **OPTIONS)
    assert found["cut"].values.tolist() == ["input"]
    inputs = torch.from_numpy(run.values("inputs/input")).double()
    value = {"zero": 0 * inputs[0], "mean": inputs.mean(0), "channel_mean": inputs.mean() + 0 * inputs[0]}[masked]
    places = run.coords["sample"].values.tolist()
    exact = in_float64(run, model, 3)
    for probe in found["probe"].values[[0, -1]]:
        cell = found.sel(cut="input", probe=probe).isel(t=3)
        x, label = inputs[places.index(probe)], int(cell["label"])
        for subset in (0, 0b0110, 0b1111):
            gone = [int(r) for i, r in enumerate(cell["region"].values) if not subset >> i & 1]
            there = torch.tensor([place not in gone for place in range(36)]).reshape(1, 6, 6)
            expected = masked_outputs(exact, torch.where(there, x, value), label)
            assert float(cell["v"][subset]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["channels", "components"])
def test_channels_and_principal_components_of_a_layer(recorded, kind: str) -> None:
    run, model = recorded
    found = interactions(run, model=model, cuts=["two"], kind=kind, players=3, samples=4)
    exact, t = in_float64(run, model, 2), 2
    with torch.no_grad():
        features = exact.two(exact.one(torch.from_numpy(run.values("inputs/input")).double()))
    rows = features.permute(0, 2, 3, 1).reshape(-1, 6)
    mean, axes = rows.mean(0), torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh
    places = run.coords["sample"].values.tolist()
    for probe in found["probe"].values[[1, 6]]:
        cell = found.isel(cut=0, t=t).sel(probe=probe)
        z, label = features[places.index(probe)], int(cell["label"])
        for subset in (0, 0b010, 0b101, 0b111):
            gone = [int(r) for i, r in enumerate(cell["region"].values) if not subset >> i & 1]
            if kind == "channels":
                masked = torch.stack([0 * z[k] if k in gone else z[k] for k in range(6)])
            else:
                apart = z - mean[:, None, None]
                along = torch.einsum("kc,chw->khw", axes[gone], apart)
                masked = z - torch.einsum("kc,khw->chw", axes[gone], along)
            expected = masked_outputs(exact, masked, label, "two")
            assert float(cell["v"][subset]) == pytest.approx(expected, abs=1e-4)


class Words(nn.Module):
    """A small embedding classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.embed(tokens)).mean(1))


def test_words_of_a_text_are_players(tmp_path) -> None:
    torch.manual_seed(0)
    model, tokens, labels = Words().eval(), torch.randint(1, 20, (8, 7)), torch.arange(8) % 3
    with Recorder(model, Probes(tokens, labels), tmp_path / "run.zarr", layers=["embed"]) as recorder:
        recorder.record(step=0)
    run = Run(tmp_path / "run.zarr")
    chosen = {"kind": "words", "players": 4, "samples": 8}
    found = interactions(run, model=model, at="input", token=19, **chosen)
    inner = interactions(run, model=model, cuts=["embed"], **chosen)
    np.testing.assert_array_equal(inner["region"][0], found["region"][0])
    for row, probe in enumerate(found["region"][0].values):
        for subset in (0, 0b0011, 0b1111):
            masked = tokens[row].clone()
            gone = [int(r) for i, r in enumerate(probe) if not subset >> i & 1]
            masked[gone] = 19
            with torch.no_grad():
                expected = float(log_odds(model(masked[None])[0].double(), int(labels[row])))
                z = torch.relu(model.embed(tokens[row]))
                z[gone] = 0
                within = float(log_odds(model.head(z.mean(0)).double(), int(labels[row])))
            assert float(found["v"][0, 0, row, subset]) == pytest.approx(expected, abs=1e-4)
            assert float(inner["v"][0, 0, row, subset]) == pytest.approx(within, abs=1e-4)
    with pytest.raises(FeatdynError, match="--token"):
        interactions(run, model=model, at="input", masked="mean", **chosen)
    with pytest.raises(FeatdynError, match="does not take words masked by --token 20: "):
        interactions(run, model=model, at="input", token=20, **chosen)
    long = interactions(run, model=model, at="input", kind="words", players=8, samples=8)
    assert np.isnan(long["v"]).all()


def test_superpixels_are_of_images() -> None:
    run: Any = SimpleNamespace(coords={"sample": SimpleNamespace(values=np.array(["a"]))}, nodes={})
    options = InteractionsOptions(kind="superpixels", at="input")
    for shape in ((7,), (5, 7)):
        with pytest.raises(
            FeatdynError, match=r"superpixels are of images \(channel, height, width\), not of inputs \("
        ):
            Masker(run, None, np.ones(1, bool), options)(0, 0, torch.zeros(shape), 0)  # type: ignore[arg-type]


def test_superpixels_cover_the_input(recorded) -> None:
    with pytest.raises(FeatdynError, match=r"^interactions: superpixels are of the input: give at = input$"):
        interactions(recorded[0], model=recorded[1], kind="superpixels")
    pytest.importorskip("skimage")
    image = np.zeros((1, 16, 16), np.float32)
    image[:, 4:12, 4:12] = 1
    whole = superpixels(image, 6)
    assert whole is not None
    assert whole[0].shape == (1, 16, 16)
    assert set(np.unique(whole[0])) == set(whole[1])
    found = interactions(recorded[0], model=recorded[1], at="input", kind="superpixels", **OPTIONS)
    assert np.isfinite(found["v"]).all()


@pytest.mark.parametrize(("shape", "colours"), [((1, 4, 9), False), ((3, 20, 5), True), ((2, 8, 8), False)])
def test_superpixels_are_asked_of_an_image_from_0_to_1(monkeypatch, shape, colours) -> None:
    """As many as there would be patches; of a stand-in for SLIC, which sorts places by their first channel."""
    asked: list[tuple[Any, ...]] = []

    def slic(image: np.ndarray, wanted: int, **how: Any) -> np.ndarray:
        asked.append((image, wanted, how))
        return 2 * np.minimum((4 * image[..., 0]).astype(int), 3)  # numbers need not follow each other

    monkeypatch.setitem(sys.modules, "skimage", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "skimage.segmentation", SimpleNamespace(slic=slic))
    image = np.random.default_rng(0).uniform(-7, 5, shape)
    image[0].flat[:4] = [-7, -3, 1, 5]
    found = superpixels(image, 4)
    scaled, wanted, how = asked[0]
    np.testing.assert_allclose(scaled, (image.transpose(1, 2, 0) + 7) / 12)
    assert wanted == min(shape[1], 8) * min(shape[2], 8)
    assert how == {"start_label": 0, "convert2lab": colours, "channel_axis": -1}
    assert found is not None
    assert found[0].shape == (1, *shape[1:])
    assert found[1].tolist() == [0, 2, 4, 6]
    assert superpixels(image, 5) is None
    plain = superpixels(np.full(shape, 3.0), 1)
    assert plain is not None
    assert not asked[-1][0].any()


@pytest.mark.parametrize(("shape", "padded"), [((5,), False), ((5, 3), False), ((5, 2, 3), True), ((4,), True)])
def test_words_are_positions_that_are_no_padding(shape, padded) -> None:
    real = np.array([True, False, True, True, False, True])[: 5 + padded]  # of an input that may be longer
    count = int(real[: shape[0]].sum()) if padded else shape[0]
    found = words(shape, count, real if padded else None)
    assert found is not None
    np.testing.assert_array_equal(np.broadcast_to(found[0], shape), np.indices(shape)[0])
    assert found[1].tolist() == [i for i in range(shape[0]) if real[i] or not padded]
    assert words(shape, count + 1, real if padded else None) is None


@pytest.mark.parametrize("shape", [(4,), (3, 4), (4, 2, 3)])
def test_moments_are_those_of_all_batches(shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    z = 1e4 + torch.randn(11, *shape, generator=random)
    found = Moments.of(iter((z[:2], z[2:3], z[3:])), covariance=True)
    exact = z.double().numpy()
    rows = (exact.transpose(0, 2, 3, 1) if len(shape) == 3 else exact).reshape(-1, 4)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T, bias=True), atol=1e-6)
    np.testing.assert_allclose(found.channel_mean.ravel(), rows.mean(0), rtol=1e-12)
    assert found.channel_mean.shape == ((4, 1, 1) if len(shape) == 3 else (4,))
    assert not Moments.of([z], covariance=False).covariance.numel()
    axes = np.linalg.eigh(np.cov(rows.T, bias=True))[1][:, ::-1]
    masked = components(z[0], found, 2)(np.arange(4)).numpy()
    own = (exact[0].transpose(1, 2, 0) if len(shape) == 3 else exact[0]).reshape(-1, 4)
    for subset in range(4):
        gone = axes[:, [i for i in range(2) if not subset >> i & 1]]
        wanted = own - (own - rows.mean(0)) @ gone @ gone.T
        wanted = wanted.T if len(shape) == 3 else wanted
        np.testing.assert_allclose(masked[subset], wanted.reshape(shape), rtol=1e-6)


def said(status: xr.DataArray) -> dict[tuple[int, ...], str]:
    """Return why cells are missing, by place."""
    words = status.attrs["flag_meanings"].split()
    return {at: words[code] for at, code in np.ndenumerate(status.values) if code}


def test_tables_that_are_missing_take_no_others_along() -> None:
    """Of two cuts, four checkpoints, and sets of four, two and one probes, of which one is in none."""
    v = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    region, origins = np.zeros((2, 8, 3), int), np.array([0, 0, 1, 2, 3, 4, 5, 6])
    members = [np.array([0, 1, 2, 3]), np.array([5, 6]), np.array([7])]
    region[1, [2, 5, 6]], v[1, :, [2, 5, 6]] = -1, np.nan  # too few players
    v[0, 1, 3, 4], v[0, 2, [5, 6], 0], v[0, 0, :4] = np.inf, np.nan, 1.5
    options = InteractionsOptions(players=3, seed=5, slack=0.1)
    found = xr.Dataset(compute._found(v, region, members, origins, options))
    lost = {(1, 1, t): compute.TOO_FEW for t in range(4)} | {(0, 1, 2): compute.NONE_KNOWN}
    alone = {(c, 2, t): compute.NO_SPREAD for c in range(2) for t in range(4)}
    odd = dict.fromkeys([(0, 1, 3), (0, 2, 5), (0, 2, 6)], "not_finite")
    assert said(found["status"]) == odd | {(1, t, i): compute.TOO_FEW for t in range(4) for i in (2, 5, 6)}
    assert said(found["set_status"]) == lost
    assert said(found["order_status"]) == lost | alone | {(0, 0, 0): compute.NONE_SALIENT}
    for c, t, s in np.ndindex(2, 4, 3):
        mine = [i for i in members[s] if np.isfinite(v[c, t, i]).all()]
        if not mine:
            assert np.isnan(found["strength"][c, s, t]).all()
            continue
        model = and_or(v[c, t, mine].astype(np.float64), slack=0.1)
        each = strength_by_order(model, salient(model))
        np.testing.assert_allclose(found["strength"][c, s, t], each.mean(0), rtol=1e-9)
        np.testing.assert_allclose(found["l1"][c, t, mine], model.l1, rtol=1e-9)
        np.testing.assert_allclose(found["gap"][c, t, mine], model.gap, rtol=1e-9, atol=1e-12)
        counts = drawn(len(mine), origins[mine], 5)
        ratio = ratio_of_sums((each @ [1, 2, 3])[:, None], each.sum(1)[:, None], counts, bounds=(1, 3))
        for end, value in (("", ratio.estimate), ("_low", ratio.low), ("_high", ratio.high)):
            np.testing.assert_allclose(found[f"mean_order{end}"][c, s, t], value[0], rtol=1e-9)
    assert np.isfinite(found["l1"].values[:, :, 4]).all()  # of no set


def test_only_what_is_new_is_computed(tmp_path, monkeypatch) -> None:
    run, model = own_run(tmp_path / "run.zarr", checkpoints=2)
    chosen = {"model": model, "at": "input", **OPTIONS}
    featdyn.analyze(run, "interactions", **chosen)
    asked: list[tuple[int, int]] = []
    tables = MaskedOutputs.tables

    def counted(self, item):
        asked.append(item)
        return tables(self, item)

    monkeypatch.setattr(MaskedOutputs, "tables", counted)
    looser = featdyn.analyze(run, "interactions", slack=0.1, **chosen)  # opened before what it goes on from
    assert not asked
    last = interactions(Run(run.path), checkpoints="last", **chosen)
    assert {t for t, _ in asked} == {1}
    np.testing.assert_array_equal(last["v"], looser["v"].isel(t=[1]))
    assert last["t"].values.tolist() == [1]


def test_what_was_stopped_goes_on_from_its_checkpoints(tmp_path, monkeypatch) -> None:
    """Results of the first checkpoints are committed meanwhile, as if the run had no more of them."""
    run, model = own_run(tmp_path / "run.zarr")
    chosen = {"model": model, "cuts": ["two"], **OPTIONS}
    whole = interactions(run, **chosen)
    tables, asked = MaskedOutputs.tables, set()

    def stopped(self, item):
        if item[0] == 2:
            raise KeyboardInterrupt
        return tables(self, item)

    monkeypatch.setattr("featdyn.analysis.context.KEPT_EVERY", -np.inf)
    monkeypatch.setattr(MaskedOutputs, "tables", stopped)
    with pytest.raises(KeyboardInterrupt):
        featdyn.analyze(run, "interactions", **chosen)
    run = Run(run.path)
    first = run.result("interactions", run.results("interactions")[-1])
    assert first["t"].values.tolist() == [0, 1]
    np.testing.assert_array_equal(first["mean_order_low"], whole["mean_order_low"].isel(t=slice(2)))

    def counted(self, item):
        asked.add(item[0])
        return tables(self, item)

    monkeypatch.setattr(MaskedOutputs, "tables", counted)
    xr.testing.assert_equal(featdyn.analyze(run, "interactions", **chosen), whole)
    assert asked == {2, 3}
