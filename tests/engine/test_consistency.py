from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn import analyze
from featdyn.analysis import analyses
from featdyn.analysis.composites import grid as composites
from featdyn.analysis.inputs import features_at_cuts as features
from featdyn.analysis.inputs.feature_source import Rates, choose
from featdyn.analysis.inputs.stitchable import cut_network
from featdyn.analysis.inputs.weights import States, network
from featdyn.errors import FeatdynError, NetworkError, RecipeError
from featdyn.store import Run

consistency = analyses()["consistency"]


@pytest.fixture(scope="module")
def run(small_store):
    return Run(small_store)


@pytest.fixture(scope="module")
def recomputed(run):
    return consistency(run, features="recomputed", cuts=("stem", "s2*", "pooled"))


def test_the_diagonal_is_the_plain_model(run, recomputed):
    logits = run.array("outputs/logits").values
    split, label = run.coords["split"].values, run.coords["label"].values
    assert recomputed["diagonal_differences"].values.tolist() == [0] * recomputed.sizes["cut"]
    for s in recomputed["set"].values:
        plain = (logits.argmax(-1) == label)[:, split == s].mean(1)
        for cut in recomputed["cut"].values:
            diagonal = np.diag(recomputed["accuracy"].sel(cut=cut, set=s))
            assert (diagonal == plain).all()
        assert (recomputed["plain_accuracy"].sel(set=s) == plain).all()


def test_stored_and_recomputed_features_agree(run, recomputed):
    stored = consistency(run, features="stored", cuts=("stem", "s2*", "pooled"))
    assert set(stored["source"].values) == {"stored"}
    assert set(recomputed["source"].values) == {"recomputed"}
    for name in ("prediction", "accuracy", "agreement", "agreement_prefix"):
        assert (stored[name] == recomputed[name]).all(), name
    np.testing.assert_allclose(stored["loss"], recomputed["loss"], rtol=1e-6)


def test_composites_match_two_models_joined_by_hand(run, recomputed):
    """An independent route: run t2's whole network, but put t1's activation in place of its own at the cut."""
    shallow, deep = network(run), network(run)
    saved = States(run, shallow)
    inputs = torch.from_numpy(run.values("inputs/input"))
    pairs = [(0, 4), (4, 0), (2, 3), (3, 3)]
    for cut, (t1, t2) in itertools.product(("stem", "s2b2", "pooled"), pairs):
        shallow.load_state_dict(saved[t1])
        deep.load_state_dict(saved[t2])
        kept = []
        with (
            torch.no_grad(),
            shallow.get_submodule(cut).register_forward_hook(lambda m, a, o, kept=kept: kept.append(o)),
        ):
            shallow(inputs)
        with torch.no_grad(), deep.get_submodule(cut).register_forward_hook(lambda m, a, o, kept=kept: kept[0]):
            logits = deep(inputs)
        top = logits.topk(2).values
        clear = (top[:, 0] - top[:, 1] > 1e-4).numpy()  # another batch shape may decide a tie differently
        found = recomputed["prediction"].sel(cut=cut).isel(t1=t1, t2=t2).values
        assert clear.mean() > 0.9
        assert (found == logits.argmax(1).numpy())[clear].all(), (cut, t1, t2)


def test_measures_follow_from_predictions(run, recomputed):
    split, label = run.coords["split"].values, run.coords["label"].values
    prediction = recomputed["prediction"].values
    c, t1, t2 = 1, 3, 4
    for s, name in enumerate(recomputed["set"].values):
        mine = prediction[c, t1, t2][split == name]
        cell = recomputed.isel(cut=c, set=s, t1=t1, t2=t2)
        assert cell["accuracy"] == (mine == label[split == name]).mean()
        assert cell["agreement"] == (mine == prediction[c, t2, t2][split == name]).mean()
        assert cell["agreement_prefix"] == (mine == prediction[c, t1, t1][split == name]).mean()
    assert (np.einsum("cstt->cst", recomputed["agreement"].values) == 1).all()


def test_the_result_is_in_the_store_with_its_origin(run):
    found = run.result("consistency")
    assert found.attrs["options"]["cuts"] == ["default"]
    assert found.attrs["input_commit"] == run.checkpoints
    assert "buffers travel" in found.attrs["batchnorm"]
    assert found["cut"].values.tolist() == ["s1b3", "s2b3", "pooled"]
    assert found.sizes["t1"] == found.sizes["t2"] == run.checkpoints


def test_wrong_cuts_and_options(run):
    with pytest.raises(NetworkError, match="s9"):
        consistency(run, cuts=("s9*",))
    with pytest.raises(RecipeError, match="features"):
        consistency(run, features="guessed")
    with pytest.raises(RecipeError, match=r"no field cut; did you mean cuts\? there are sets, cuts"):
        consistency(run, cut="all")


def test_a_network_that_cannot_be_cut_says_why(run):
    class Opaque(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(NetworkError, match="trace"):
        consistency(run, model=Opaque())


def test_stored_features_must_be_there(run, tmp_path):
    from featdyn.training import load
    from featdyn.training.stage import train
    from tests.engine.conftest import SMALL

    changes = [*SMALL, "training.epochs=1", "capture.layers=['s1b3']", "capture.dtype=float16"]
    other = train(load("digits", changes), tmp_path / "r.zarr")
    with pytest.raises(FeatdynError, match="no activations at s2b3, pooled"):
        consistency(other, features="stored")
    found = consistency(other)  # float16 has lost bits, so auto computes
    assert set(found["source"].values) == {"recomputed"}
    assert (found["diagonal_differences"] == 0).all()


class Part:
    def __init__(self, name, macs):
        self.name, self.prefix_macs = name, macs


@settings(deadline=None)
@given(st.data())
def test_the_chosen_sources_are_the_cheapest(data):
    n = data.draw(st.integers(1, 5))
    macs = sorted(data.draw(st.lists(st.integers(1, 100), min_size=n, max_size=n)))
    parts = [Part(f"c{i}", m) for i, m in enumerate(macs)]
    stored = {p.name for p in parts if data.draw(st.booleans())}
    widths = {name: data.draw(st.integers(1, 100)) for name in stored}
    rates = Rates(data.draw(st.floats(0.1, 10)), data.draw(st.floats(0.1, 10)))

    def cost(choice):
        computed = [p.prefix_macs for p in parts if choice[p.name] == "recomputed"]
        read = [widths[p.name] for p in parts if choice[p.name] == "stored"]
        return (max(computed) / rates.macs if computed else 0) + sum(read) / rates.bytes

    options = [
        dict(zip([p.name for p in parts], kinds, strict=True))
        for kinds in itertools.product(("stored", "recomputed"), repeat=n)
    ]
    possible = [o for o in options if all(kind == "recomputed" or name in stored for name, kind in o.items())]
    found = choose(parts, stored, widths, rates)
    assert found in possible
    assert cost(found) == pytest.approx(min(cost(o) for o in possible))


def test_another_checkpoint_costs_a_row_and_a_column(tmp_path, monkeypatch):
    from featdyn.training import load
    from featdyn.training.stage import Events, train
    from tests.engine.conftest import SMALL

    recipe = load("digits", [*SMALL, "training.epochs=3", "network.name=mlp"])
    store = tmp_path / "r.zarr"

    class Stop(Exception):
        pass

    def after(step, steps, loss):
        if step > 25:
            raise Stop

    with pytest.raises(Stop):
        train(recipe, store, Events(step=after))
    analyze(store, "consistency", cuts=("all",), features="recomputed")
    old = Run(store).checkpoints
    run = train(recipe, store)
    new = run.checkpoints
    assert 0 < old < new

    ran = []
    bank_run = composites.SuffixBank.run

    def counted(bank, *args):
        ran.append(len(bank))
        return bank_run(bank, *args)

    monkeypatch.setattr(composites.SuffixBank, "run", counted)
    grown = consistency(run, cuts=("all",), features="recomputed")
    batches = len(features.Batches(run, torch.device("cpu")))
    assert sum(ran) == grown.sizes["cut"] * batches * (new**2 - old**2)
    fresh = consistency(run, cuts=("all",), features="recomputed", fresh=True)
    xr.testing.assert_allclose(grown, fresh, rtol=1e-12)
    assert (grown["prediction"] == fresh["prediction"]).all()

    ran.clear()
    monkeypatch.undo()
    analyze(store, "consistency", cuts=("all",), features="recomputed")
    monkeypatch.setattr(composites.SuffixBank, "run", counted)
    again = consistency(
        Run(store), cuts=("all",), features="recomputed", window=1.0
    )  # other options of the summary: no pair is new
    assert not ran
    assert (again["prediction"] == fresh["prediction"]).all()
    consistency(Run(store), cuts=("all",))
    assert ran


def test_soft_measures_follow_from_logits(run, recomputed):
    """On the diagonal they are those of the recorded logits."""
    logits = torch.from_numpy(run.values("outputs/logits")).double()
    labels = torch.from_numpy(run.coords["label"].values)
    test = run.coords["split"].values == "test"
    own = logits[:, test].log_softmax(-1).gather(-1, labels[test].expand(len(logits), -1)[..., None])[..., 0]
    for cut in range(recomputed.sizes["cut"]):
        cell = recomputed.isel(cut=cut).sel(set="test")
        diagonal = {name: np.diagonal(cell[name].values) for name in ("loss", "probability", "divergence")}
        np.testing.assert_allclose(diagonal["loss"], -own.mean(-1), rtol=1e-4)
        np.testing.assert_allclose(diagonal["probability"], own.exp().mean(-1), rtol=1e-4)
        np.testing.assert_allclose(diagonal["divergence"], 0, atol=1e-6)
    off = recomputed["divergence"].isel(t1=1, t2=-1)
    assert (off > 0).all()


def test_the_plan_is_said_and_what_cannot_fit_is_refused(run, monkeypatch, caplog):
    from featdyn.compute import serial

    with caplog.at_level("INFO", "featdyn"):
        consistency(run, cuts=("pooled",), features="recomputed")
    steps, probes = run.checkpoints, run.schema.samples
    assert f"1 cut x {steps**2} pairs of checkpoints x all {probes} probes" in caplog.text
    monkeypatch.setattr(serial, "available", lambda: 1000)
    with pytest.raises(FeatdynError, match=r"needs .* of memory .* but 1000 B are allowed or free: .* fewer cuts"):
        consistency(run, cuts=("pooled",), features="recomputed")


def test_the_same_on_workers(run, clusters):
    here = consistency(run, cuts=("pooled", "s1b1"), features="recomputed")
    for workers in clusters.values():
        found = consistency(run, cuts=("pooled", "s1b1"), features="recomputed", workers=workers)
        assert (found["prediction"] == here["prediction"]).all()
        xr.testing.assert_allclose(found, here, rtol=1e-4, atol=1e-6)  # convolutions sum differently on one thread


@pytest.mark.parametrize("old", [0, 2])
def test_suffixes_and_weights_that_do_not_fit_come_in_groups(run, monkeypatch, old):
    from featdyn.analysis.inputs import weights as networks

    here = consistency(run, cuts=("pooled", "s1b1"), features="recomputed")
    parts = cut_network(run, None, ("pooled", "s1b1"), "recomputed")
    monkeypatch.setattr(composites, "HELD", 3 * composites.bank_bytes(parts))
    monkeypatch.setattr(networks, "HELD", 0)
    groups = composites.suffix_groups(parts, old)
    assert [t2 for group in groups for t2 in group] == list(range(run.checkpoints))
    assert max(map(len, groups)) == min(3, run.checkpoints)
    found = consistency(run, cuts=("pooled", "s1b1"), features="recomputed")
    xr.testing.assert_allclose(found, here, rtol=1e-12, atol=1e-14)  # means over a set are sums of other shapes
