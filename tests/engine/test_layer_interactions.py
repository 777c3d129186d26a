"""Interactions of layers through linear probes, against hooks, scikit-learn on plain features, and planted networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression
from torch import nn

import featdyn
from featdyn.analysis import analyses
from featdyn.analysis.features.interactions import NO_SPREAD, NONE_SALIENT
from featdyn.analysis.features.layer_interactions import LayerInteractionsOptions
from featdyn.analysis.features.layer_interactions.compared import Tables, compared
from featdyn.analysis.features.layer_interactions.tables import LayerTables
from featdyn.analysis.status import reasons
from featdyn.capture import Probes, Recorder
from featdyn.errors import FeatdynError
from featdyn.statistics import softmax_probe
from featdyn.statistics.interactions import and_or, compare_layer
from featdyn.statistics.interactions.ratio_of_sums import drawn, ratio_of_sums
from featdyn.store import Run
from tests.engine.on_workers import Own, own_run
from tests.engine.test_interactions import said

analysis = analyses()["layer_interactions"]
OPTIONS = {"players": 3, "samples": 4, "cuts": ["one", "pool"]}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return own_run(tmp_path_factory.mktemp("layers") / "run.zarr", checkpoints=2)


@pytest.fixture(scope="module")
def found(recorded):
    return analysis(recorded[0], model=recorded[1], **OPTIONS)


def features_of(run: Run, model: nn.Module, t: int, cut: str, inputs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return features at a module and the network's outputs, float64."""
    model = model.double().eval()
    model.load_state_dict({k: v.double() if v.is_floating_point() else v for k, v in run.state(t).items()})
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(cut).register_forward_hook(lambda module, given, out: kept.append(out))
    with torch.no_grad():
        outputs = model(inputs)
    handle.remove()
    model.float()
    return kept[0].flatten(1).numpy(), outputs.numpy()


def log_odds(scores: np.ndarray, label: int) -> np.ndarray:
    others = np.delete(scores, label, axis=1)
    return scores[:, label] - np.logaddexp.reduce(others, axis=1)


@pytest.mark.parametrize("cut", ["one", "pool"])
def test_tables_are_those_of_hooks_and_of_a_plain_classifier(recorded, found, cut: str) -> None:
    run, model = recorded
    inputs, labels = torch.from_numpy(run.values("inputs/input")).double(), run.coords["label"].values
    train = np.flatnonzero(run.coords["split"].values == "train")
    places = {name: i for i, name in enumerate(run.coords["sample"].values.tolist())}
    probe = found["probe"].values[5]
    cell = found.sel(cut=cut, probe=probe).isel(t=1)
    masked = inputs[[places[probe]]].repeat(8, 1, 1, 1)
    for subset in range(8):
        for i, region in enumerate(cell["region"].values):
            if not subset >> i & 1:
                masked[subset, 0, region // 6, region % 6] = 0  # of so small an image each pixel is a patch
    fitted, _ = features_of(run, model, 1, cut, inputs[train])
    z, outputs = features_of(run, model, 1, cut, masked)
    np.testing.assert_allclose(cell["v_output"], log_odds(outputs, labels[places[probe]]), atol=1e-4)
    mean = fitted.mean(0)
    fitted, z = fitted - mean, z - mean
    held = softmax_probe.fit(fitted @ fitted.T, labels[train].astype(np.int64))
    unit = (fitted**2).sum(1).mean()
    plain = LogisticRegression(C=1 / (held.penalty * len(train)), tol=1e-8, max_iter=10_000)
    plain.fit(fitted / np.sqrt(unit), labels[train])
    expected = log_odds(plain.decision_function(z / np.sqrt(unit)), labels[places[probe]])
    np.testing.assert_allclose(cell["v"], expected, atol=2e-3)


def test_numbers_are_those_of_the_tables(found) -> None:
    for name in ("train", "test"):
        of_set = found.sel(set=name).isel(probe=np.flatnonzero(found["split"].values == name), cut=0, t=1)
        layer, output = (and_or(of_set[v].values.astype(float), slack=0.04) for v in ("v", "v_output"))
        expected = compare_layer(layer, output)
        np.testing.assert_allclose(of_set["overlap"], expected.overlap.mean(0), rtol=1e-6, atol=1e-9)
        total = expected.overlap.sum() / expected.output.sum(), expected.forget.sum() / expected.layer.sum()
        np.testing.assert_allclose([of_set["completeness"], of_set["redundancy"]], total, rtol=1e-6)
        loss = np.logaddexp(0, -of_set["v"].values[:, -1].astype(float)).mean()
        assert float(of_set["loss"]) == pytest.approx(loss, rel=1e-6)
        assert 0 <= float(of_set["completeness_low"]) <= float(of_set["completeness"]) <= 1


class Planted(nn.Module):
    """The first layer holds the product of two inputs and the sum of all, of which the output uses ``used``."""

    def __init__(self, used: str) -> None:
        super().__init__()
        self.layer = _Both()
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 0.0] if used == "product" else [0.0, 3.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x))


class _Both(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0] * x[:, 1], x.sum(1)], 1)


def planted_run(path, used: str, *, one_class: bool = False) -> tuple[Run, nn.Module]:
    """Record it on labels that are the sign of the product; with ``one_class`` all of training are 1."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=random).sign() * (1 + torch.rand(60, 3, generator=random))
    told = x[:, 0] * x[:, 1]
    if one_class:
        told[:40] = 1
    split = np.array(["train"] * 40 + ["test"] * 20, dtype=object)
    model = Planted(used)
    with Recorder(model, Probes(x, (told > 0).long(), {"split": split}), path, layers=["layer"]) as recorder:
        recorder.record(step=0)
    return Run(path), model


@pytest.mark.parametrize(("used", "complete"), [("product", True), ("sum", False)])
def test_worlds_in_which_a_layer_holds_what_the_output_uses_and_in_which_it_does_not(
    tmp_path, used: str, complete: bool
) -> None:
    """The label is the sign of the product: a linear probe of the layer reads that, whatever the output reads."""
    run, model = planted_run(tmp_path / "run.zarr", used)
    cell = analysis(run, model=model, players=3, samples=10, cuts=["layer"], kind="words").sel(set="test").squeeze()
    assert (float(cell["completeness_low"]) > 0.8) is complete
    if complete:
        assert cell["overlap"].values.argmax() == 1  # a product of two is of order 2
    else:
        assert float(cell["redundancy_low"]) > 0.5


def test_what_cannot_be_computed_has_its_reason(tmp_path) -> None:
    run, model = planted_run(tmp_path / "run.zarr", "sum", one_class=True)
    found = analysis(run, model=model, players=2, samples=3, cuts=["layer"], kind="words")
    assert set(np.unique(reasons(found, "v"))) == {"one class"}
    assert set(np.unique(reasons(found, "redundancy"))) == {"one class"}
    assert np.isfinite(found["v_output"]).all()
    few = analysis(run, model=model, players=4, samples=3, cuts=["layer"], kind="words")
    assert set(np.unique(reasons(few, "completeness"))) == {"fewer entries than players"}
    with pytest.raises(FeatdynError, match="is no set of probes"):
        analysis(run, model=model, train="none", players=2, cuts=["layer"])


def test_a_label_that_no_training_probe_has(tmp_path) -> None:
    """Cells of other labels are not taken along."""
    model, labels = Own(), torch.tensor([0, 1] * 4 + [0, 1, 2] * 2)
    split = np.array(["train"] * 8 + ["test"] * 6, dtype=object)
    with Recorder(model, Probes(torch.randn(14, 1, 6, 6), labels, {"split": split}), tmp_path / "run.zarr") as recorder:
        recorder.record(step=0)
    found = analysis(Run(tmp_path / "run.zarr"), model=model, players=2, samples=6, cuts=["pool"])
    said = reasons(found, "v").isel(cut=0, t=0)
    unseen = said.values == "no training probe has its label"
    assert unseen.any()
    assert (said.values[~unseen] == "").all()
    assert len(set(found["label"].values[unseen]) & set(found["label"].values[~unseen])) == 0


def test_linear_probes_learn_from_training_probes_that_are_not_asked_for(recorded) -> None:
    chosen = {"model": recorded[1], "players": 2, "samples": 100, "cuts": ["pool"]}  # all of a set
    alone, both = (analysis(recorded[0], sets=sets, **chosen)["v"] for sets in (["test"], ["train", "test"]))
    assert np.isfinite(alone).all()
    np.testing.assert_array_equal(alone, both.sel(probe=alone["probe"].values).transpose(*alone.dims))


def test_the_training_set_may_have_any_name(tmp_path) -> None:
    """In float64, whose features are taken as they are."""
    model, split = Own().double(), np.array(["seen"] * 9 + ["new"] * 9, dtype=object)
    probes = Probes(torch.randn(18, 1, 6, 6).double(), torch.arange(18) % 3, {"split": split})
    with Recorder(model, probes, tmp_path / "run.zarr") as recorder:
        recorder.record(step=0)
    run, chosen = Run(tmp_path / "run.zarr"), {"players": 2, "samples": 2, "cuts": ["pool"]}
    assert np.isfinite(analysis(run, model=model, train="seen", **chosen)["v"]).all()
    with pytest.raises(FeatdynError, match="needs training probes"):
        analysis(run, model=model, **chosen)


def test_only_what_is_new_is_computed(recorded, monkeypatch) -> None:
    run, model = recorded
    whole = featdyn.analyze(run, "layer_interactions", model=model, **OPTIONS)
    monkeypatch.setattr(LayerTables, "tables", lambda self, item: pytest.fail("computed again"))
    again = analysis(Run(run.path), model=model, slack=0.0, **OPTIONS)
    xr.testing.assert_equal(again["v"], whole["v"].transpose(*again["v"].dims))


@pytest.mark.parametrize("classes", [2, 4])
def test_a_probe_in_dual_form_is_one_on_features(classes: int) -> None:
    """Against scikit-learn on the features themselves, more features than samples and fewer."""
    random = np.random.default_rng(classes)
    for n, p in ((24, 60), (60, 5)):
        labels = np.arange(n) % classes
        x = random.normal(size=(n, p)) + labels[:, None] * (np.arange(p) < 2)
        x -= x.mean(0)
        probe = softmax_probe.fit(x @ x.T, labels)
        unit = np.sqrt((x**2).sum(1).mean())
        strength = (2 if classes == 2 else 1) / (probe.penalty * n)  # one row of weights for two holds their difference
        plain = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(x / unit, labels)
        new = random.normal(size=(7, p))
        scores, expected = probe.scores(new @ x.T), plain.decision_function(new / unit)
        if classes == 2:
            np.testing.assert_allclose(scores[:, 1] - scores[:, 0], expected, atol=1e-3)
        else:
            centred = expected - expected.mean(1, keepdims=True)
            np.testing.assert_allclose(scores - scores.mean(1, keepdims=True), centred, atol=1e-3)


@pytest.mark.parametrize(
    ("gram", "labels", "said"),
    [
        (np.eye(3), np.zeros(3, np.int64), "two classes"),
        (np.eye(3), np.arange(3), "at least 6 samples"),
        (np.zeros((4, 4)), np.arange(4) % 2, "do not vary"),
        (np.full((3, 3), np.nan), np.arange(3), "finite"),
    ],
)
def test_a_probe_says_what_it_cannot_be_fitted_to(gram, labels, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        softmax_probe.fit(gram, labels)


def test_tables_that_are_missing_take_no_others_along() -> None:
    """Of two layers, two checkpoints, and sets of four and two probes, of which one is in none."""
    rng = np.random.default_rng(0)
    v, output = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 2, 7, 8), (2, 7, 8)))
    why, few = np.full((2, 2, 7), "", object), np.arange(7) == 1
    v[:, :, 1], output[:, 1] = np.nan, np.nan
    v[0, 0, 2], why[0, 0, 2] = np.nan, "one_class"
    v[1, 1, [4, 5]], why[1, 1, [4, 5]] = np.nan, "no_training_probe_has_its_label"
    v[1, 0, 3, 0], output[1, 3, 7] = np.inf, np.nan
    output[0, [4, 5]] = 0.25  # without any interaction
    members, origins = [np.array([0, 1, 2, 3]), np.array([4, 5])], np.arange(7) // 2
    options = LayerInteractionsOptions(players=3, seed=3, slack=0.1)
    found = xr.Dataset(compared(Tables(v, output, why, few), members, origins, options))

    lost = {(c, t, 1): "fewer_entries_than_players" for c in range(2) for t in range(2)}
    lost |= {(0, 0, 2): "one_class", (1, 0, 3): "not_finite"}
    unseen = "no_training_probe_has_its_label"
    assert said(found["status"]) == lost | {(1, 1, i): unseen for i in (4, 5)}
    assert said(found["output_status"]) == {(t, 1): "fewer_entries_than_players" for t in range(2)} | {
        (1, 3): "not_finite"
    }
    assert said(found["set_status"]) == {(c, 1, 0): NONE_SALIENT for c in range(2)} | {(1, 1, 1): unseen}
    assert said(found["share_status"]) == said(found["set_status"]) | {(0, 1, 1): NO_SPREAD}
    for c, s, t in np.ndindex(2, 2, 2):
        mine = [i for i in members[s] if np.isfinite(v[c, t, i]).all() and np.isfinite(output[t, i]).all()]
        cell = {name: values.values[c, s, t] for name, values in found.items() if values.dims[:2] == ("cut", "set")}
        if mine:
            np.testing.assert_allclose(cell["loss"], np.log1p(np.exp(-v[c, t, mine, 7].astype(float))).mean())
        else:
            assert np.isnan(cell["loss"])
        if (c, s, t) in said(found["set_status"]):
            assert np.isnan([cell["completeness"], cell["redundancy"], *cell["overlap"]]).all()
            continue
        both = [and_or(table[mine].astype(float), slack=0.1) for table in (v[c, t], output[t])]
        expected, counts = compare_layer(*both), drawn(len(mine), origins[mine], 3)
        for name in ("overlap", "forget", "new"):
            np.testing.assert_allclose(cell[name], getattr(expected, name).mean(0), rtol=1e-9)
        for name, part, whole in (("completeness", "overlap", "output"), ("redundancy", "forget", "layer")):
            sums = (getattr(expected, of).sum(1)[:, None] for of in (part, whole))
            ratio = ratio_of_sums(*sums, counts)
            ends = [cell[f"{name}{end}"] for end in ("", "_low", "_high")]
            np.testing.assert_allclose(ends, [ratio.estimate[0], ratio.low[0], ratio.high[0]], rtol=1e-9)
    one = compared(
        Tables(v[:1, :1, :1], output[:1, :1], why[:1, :1, :1], few[:1]), [np.array([0])], origins[:1], options
    )
    assert one["share_status"].attrs["flag_meanings"].split()[1:] == [NO_SPREAD]
    assert not one["set_status"].values.any()
