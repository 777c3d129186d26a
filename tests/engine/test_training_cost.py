"""What a recipe's checkpoints cost beside recording: which precision it trains in, what is tested, when."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from featdyn.errors import RecipeError
from featdyn.store import Run
from featdyn.training import load, precision, stage
from featdyn.training.loop import Loop
from featdyn.training.options import CheckpointOptions
from featdyn.training.schedule import checkpoint_steps
from featdyn.training.stage import Events, train

TINY = (
    "network.options.width=2", "data.train_size=128", "training.epochs=1", "checkpoints.first_epoch=0",
    "probes.train=8", "probes.test=4", "probes.corrupted=0", "capture.layers=['s1b3']",
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.mark.parametrize("there", [False, True])
def test_auto_is_what_the_processor_has_and_a_slow_one_is_said(monkeypatch, there):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: there, raising=False)
    assert precision.settled("auto", CPU) == ("bfloat16" if there else "float32")
    assert precision.settled("float32", CPU) == "float32"
    assert precision.settled("bfloat16", CPU) == "bfloat16"
    assert bool(precision.slow("bfloat16", CPU)) != there
    assert not precision.slow("float32", CPU)
    assert Loop(load("digits", [*TINY, "training.precision=auto"])).precision == precision.settled("auto", CPU)


def test_of_a_gpu_only_what_it_computes_in_itself_counts(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.append(options) or False)
    assert precision.settled("auto", torch.device("cuda")) == "float32"
    assert asked == [{"including_emulation": False}]


def test_a_run_keeps_the_precision_that_it_began_with(tmp_path, monkeypatch):
    recipe = load("digits", [*TINY, "training.precision=auto"])
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    said = []
    run = train(recipe, tmp_path / "r.zarr", Events(plan=said.append))
    assert run.recipe["training"]["precision"] == "float32"
    assert "bfloat16" not in said[0]
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    assert train(recipe, tmp_path / "r.zarr").checkpoints == run.checkpoints
    with pytest.raises(RecipeError, match=r"training\.precision: 'float32' there, 'bfloat16' here"):
        train(load("digits", [*TINY, "training.precision=bfloat16"]), tmp_path / "r.zarr")


def test_checkpoints_are_tested_on_a_drawn_part_and_the_last_on_all(tmp_path):
    recipe = load("digits", [*TINY, "checkpoints.test_samples=50"])
    run = train(recipe, tmp_path / "r.zarr")
    loop = Loop(recipe)
    for t, whole in ((0, False), (-1, True)):
        loop.model.load_state_dict(run.state(range(run.checkpoints)[t]))
        loss, accuracy = loop.evaluate(whole=whole)
        assert run.values("test_loss")[t] == pytest.approx(loss, rel=1e-5)
        assert run.values("test_accuracy")[t] == accuracy
    other = Loop(load("digits", [*TINY, "checkpoints.test_samples=50", "training.seed=1"]))
    assert not np.array_equal(loop._tested, other._tested)
    assert np.array_equal(loop._tested, Loop(recipe)._tested)
    assert len(np.unique(loop._tested)) == 50


def test_a_store_from_before_goes_on_testing_all(tmp_path, monkeypatch):
    recipe = load("digits", TINY)
    stored = json.loads(json.dumps(recipe.identity))
    del stored["checkpoints"]["test_samples"]
    monkeypatch.setattr(stage, "exists", lambda store: True)
    monkeypatch.setattr(stage, "Run", lambda store: type("Old", (), {"recipe": stored}))
    assert stage._as_begun(recipe, tmp_path).checkpoints.test_samples == 0
    stage.same_recipe(tmp_path, recipe)


def test_a_cadence_of_steps_in_a_recipe():
    options = CheckpointOptions(every="doubling")
    assert checkpoint_steps(10, 3, options) == [0, 1, 2, 4, 8, 16, 30]
    assert checkpoint_steps(100, 3, CheckpointOptions(every="1%")) == [0, 100, 200, 300]
    with pytest.raises(RecipeError, match=r"checkpoints\.every: .*every must be a number of steps"):
        load("digits", ["checkpoints.every='often'"])
    with pytest.raises(RecipeError, match=r"checkpoints\.every"):
        load("digits", ["checkpoints.every=0"])
    assert isinstance(load("digits", ["checkpoints.every=2"]).checkpoints.every, int)


def test_the_store_of_a_recipe_says_its_cadence(tmp_path):
    run = train(load("digits", [*TINY, "checkpoints.every='doubling'"]), tmp_path / "r.zarr")
    assert run.values("step").tolist() == [0, 1, 2]
    assert Run(tmp_path / "r.zarr").recipe["checkpoints"]["every"] == "doubling"
