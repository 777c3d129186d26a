"""Averaged weights and averaged predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from featdyn import analyze
from featdyn.analysis import analyses
from featdyn.analysis.inputs.weights import network
from featdyn.analysis.status import reasons
from featdyn.errors import RecipeError
from featdyn.store import Run
from featdyn.training import load
from featdyn.training.stage import train
from tests.engine.conftest import SMALL
from tests.engine.on_workers import own_run, plans, same_on

averaging = analyses()["averaging"]


@pytest.fixture(scope="module")
def run(small_store):
    return Run(small_store)


@pytest.fixture(scope="module")
def found(run):
    return averaging(run, window=3)


def softmax(logits):
    exponent = np.exp(logits - logits.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def test_averaged_predictions_are_the_mean_of_the_recorded_softmax(run, found):
    logits = run.array("outputs/logits").values.astype(np.float64)
    labels, splits = run.coords["label"].values, run.coords["split"].values
    for window in (1, 2, 3):
        mean = softmax(logits[-window:]).mean(0)
        mine = found.sel(average="predictions", window=window)
        assert (mine["prediction"].values == mean.argmax(-1)).all()
        for name in found["set"].values:
            member = splits == name
            right = (mean.argmax(-1) == labels)[member]
            assert float(mine["accuracy"].sel(set=name)) == right.mean()
            loss = -np.log(mean[member, labels[member]]).mean()
            assert float(mine["loss"].sel(set=name)) == pytest.approx(loss, rel=1e-9)


def test_averaged_weights_are_one_network_with_statistics_of_the_training_probes(run, found):
    """Against float64: the mean of the parameters, statistics from one batch of training probes (40, batch 32 -> 2)."""
    model = network(run).double()
    states = [run.state(t) for t in range(run.checkpoints)]
    inputs = torch.from_numpy(run.array("inputs/input").values).double()
    train_probes = inputs[torch.from_numpy(run.coords["split"].values == "train")]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for window in (1, 3):
        model.load_state_dict(
            {name: torch.stack([state[name].double() for state in states[-window:]]).mean(0) for name in states[-1]}
        )
        seen = {m: [] for m in norms}

        def note(m, given, out, seen=seen):
            seen[m].append(given[0])

        hooks = [m.register_forward_hook(note) for m in norms]
        model.train()
        with torch.no_grad():
            for part in (train_probes[:20], train_probes[20:]):
                model(part)
            for hook in hooks:
                hook.remove()
            for m in norms:  # all values of both batches together
                m.running_var, m.running_mean = torch.var_mean(torch.cat(seen[m]), (0, 2, 3))
            logits = model.eval()(inputs).numpy()
        mine = found.sel(average="weights", window=window)
        margin = np.sort(logits, -1)[:, -1] - np.sort(logits, -1)[:, -2]
        same = mine["prediction"].values == logits.argmax(-1)
        assert same[margin > 1e-3].all()
        labels, test = run.coords["label"].values, run.coords["split"].values == "test"
        loss = -np.log(softmax(logits)[test, labels[test]]).mean()
        assert float(mine["loss"].sel(set="test")) == pytest.approx(loss, rel=1e-4)


def test_a_window_of_one_is_the_last_network_and_changes_are_against_it(run, found):
    last = found.sel(average="predictions", window=1)
    assert (last["change"] == 0).all()
    recorded = run.array("outputs/logits").values[-1].argmax(-1)
    assert (last["prediction"].values == recorded).all()
    assert np.allclose(found["change"], found["accuracy"] - last["accuracy"])
    assert (found["change_low"] <= found["change"]).all()
    assert (found["change"] <= found["change_high"]).all()
    assert found["first_step"].values.tolist() == run.coords["step"].values[-1:-4:-1].tolist()


def test_intervals_are_wilson_s_and_wider_where_images_have_copies(run, found):
    assert found["set"].values.tolist() == ["train", "test", "corrupted"]
    for name, size in zip(found["set"].values, found["set_size"].values, strict=True):
        for cell in found["accuracy"].sel(set=name).stack(cell=("average", "window")).transpose("cell"):
            where = {"set": name, "average": cell["average"].item(), "window": cell["window"].item()}
            exact = binomtest(round(float(cell) * size), int(size)).proportion_ci(method="wilson")
            bounds = found["accuracy_low"].sel(where), found["accuracy_high"].sel(where)
            if name == "corrupted":
                assert float(bounds[1] - bounds[0]) > exact.high - exact.low
            else:
                assert [float(b) for b in bounds] == pytest.approx([exact.low, exact.high], abs=1e-9)


def test_a_network_without_batchnorm_keeps_its_last_predictions_and_windows_end_with_the_run(tmp_path):
    changes = [*SMALL, "network.name=mlp", "training.epochs=1", "probes.train=0", "capture.layers=['hidden1']"]
    run = train(load("digits", changes), tmp_path / "mlp.zarr")
    found = averaging(run)
    assert found["window"].values.tolist() == list(range(1, run.checkpoints + 1))
    recorded = run.array("outputs/logits").values[-1].argmax(-1)
    assert (found["prediction"].sel(window=1).values == recorded).all()
    path = analyze(run.path, "averaging", window=2).attrs["path"]
    assert Run(run.path).results("averaging") == [path]


def test_weights_are_missing_where_statistics_cannot_be_estimated(tmp_path, run):
    with pytest.raises(RecipeError, match="averaging: window"):
        averaging(run, window=0)
    changes = [*SMALL, "training.epochs=1", "probes.train=0", "capture.layers=['pooled']", "data.train_size=128"]
    run = train(load("digits", changes), tmp_path / "r.zarr")
    found = averaging(run)
    for name in ("accuracy", "accuracy_low", "loss", "change"):
        assert found[name].sel(average="weights").isnull().all()
        assert found[name].sel(average="predictions").notnull().all()
        assert (reasons(found, name).sel(average="weights") == "no training probes").all()


def test_workers_change_nothing_and_what_they_need_is_said_first(tmp_path, clusters, caplog):
    run, model = own_run(tmp_path / "r.zarr")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    alone = averaging(run, model=model)
    same_on(clusters, averaging, alone, run, model=model)
    plans(averaging, run, caplog, model=model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.momentum == 0.1 for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
