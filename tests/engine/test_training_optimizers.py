"""Losses and optimizers of a recipe, beside torch's own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from featdyn.networks import build
from featdyn.training import load
from featdyn.training.loop import Loop
from featdyn.training.losses import loss_of, squared_error
from featdyn.training.optimizers import Muon, hidden_weights, optimizer_of, orthogonalised
from featdyn.training.options import TrainingOptions
from featdyn.training.stage import train
from tests.engine.test_training import TINY


@given(st.integers(1, 20), st.integers(1, 9), st.floats(0.01, 100), st.integers(0, 999))
def test_squared_error_is_half_the_squared_distance_from_the_scaled_label(samples, classes, scale, seed):
    rng = np.random.default_rng(seed)
    outputs, labels = rng.standard_normal((samples, classes)), rng.integers(0, classes, samples)
    expected = np.zeros(samples)
    for sample, label in enumerate(labels):
        for c in range(classes):
            expected[sample] += 0.5 * (outputs[sample, c] - (scale if c == label else 0.0)) ** 2
    found = squared_error(torch.from_numpy(outputs), torch.from_numpy(labels), scale)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_cross_entropy_is_torchs_and_the_default():
    outputs, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 2, 1, 0, 0])
    found = loss_of(TrainingOptions())(outputs, labels)
    torch.testing.assert_close(found, F.cross_entropy(outputs, labels, reduction="none"))


def test_a_run_trains_tests_and_records_its_own_loss(tmp_path):
    changes = [*TINY, "training.loss=squared_error", "training.target_scale=3", "training.epochs=1", "probes.test=360"]
    run = train(load("digits", changes), tmp_path / "r.zarr")
    logits, labels = run.values("outputs/logits"), run.values("label")
    wanted = 0.5 * ((logits - 3 * np.eye(10)[labels]) ** 2).sum(2)
    np.testing.assert_allclose(run.values("outputs/loss"), wanted, rtol=1e-5)
    test = run.values("split") == "test"  # all test images are probes
    np.testing.assert_allclose(run.values("test_loss"), wanted[:, test].mean(1), rtol=1e-5)
    assert run.values("test_loss")[-1] < run.values("test_loss")[0]


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (8, 8), (1, 4)])
def test_singular_values_are_brought_near_one_and_vectors_kept(shape):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    found = u.T @ orthogonalised(x) @ vh.T
    values = found.diag()
    torch.testing.assert_close(found, torch.diag(values), atol=1e-10, rtol=0)
    assert ((values > 0.6) & (values < 1.25)).all()


def steps(model, optimizer, inputs, labels, count=5):
    for _ in range(count):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def test_muon_is_torchs_for_hidden_matrices_and_adamw_for_the_rest():
    torch.manual_seed(0)
    ours = build("mlp", classes=4, shape=(1, 5, 5), widths=[16, 12])
    theirs = copy.deepcopy(ours)
    inputs, labels = torch.randn(64, 1, 5, 5), torch.randint(0, 4, (64,))
    hidden = [theirs.hidden1.linear.weight, theirs.hidden2.linear.weight]
    rest = [p for p in theirs.parameters() if all(p is not h for h in hidden)]
    muon = torch.optim.Muon(hidden, 0.02, 0.1, 0.9, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, 0.02, weight_decay=0.1)
    steps(ours, Muon(ours, 0.02, 0.9, 0.1), inputs, labels, 1)
    F.cross_entropy(theirs(inputs), labels).backward()
    muon.step()
    adamw.step()
    for name, p in ours.named_parameters():
        other = theirs.get_parameter(name)
        # torch's Muon multiplies in bfloat16, whose 8 bits five steps of Newton-Schulz spread.
        torch.testing.assert_close(p, other, rtol=0, atol=2e-3 if any(other is h for h in hidden) else 0)


def test_muon_takes_hidden_weights_only_also_of_convolutions():
    model = build("resnet20", classes=3, shape=(1, 8, 8), width=4)
    convolutions = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [id(p) for p in hidden_weights(model)] == [id(p) for p in convolutions]
    tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    tied[2].weight = tied[0].weight
    assert [id(p) for p in hidden_weights(tied)] == [id(tied[1].weight)]
    steps(alone := nn.Linear(4, 3), Muon(alone, 0.1, 0.9, 0.0), torch.randn(6, 4), torch.tensor([0, 1, 2] * 2))


@pytest.mark.parametrize("network", ["mlp", "cnn", "transformer"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_optimizer_learns(optimizer, network):
    changes = (f"network.name={network}", f"training.optimizer={optimizer}", "training.learning_rate=0.01")
    loop = Loop(load("digits", [*TINY, *changes, "training.batch_size=64"]))
    losses = [loop.step(step)[0] for step in range(15)]
    assert losses[-1] < 0.7 * losses[0]


def test_weight_decay_of_adamw_and_muon_is_decoupled():
    model = build("mlp", classes=3, shape=(1, 4, 4), widths=[6])
    for kind in ("adamw", "muon"):
        net = copy.deepcopy(model)
        before = [p.detach().clone() for p in net.parameters()]
        optimizer = optimizer_of(net, TrainingOptions(optimizer=kind, learning_rate=0.1, weight_decay=0.5))
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        for p, old in zip(net.parameters(), before, strict=True):
            torch.testing.assert_close(p.detach(), old * (1 - 0.1 * 0.5))


def test_the_last_layer_alone_trains():
    loop = Loop(load("digits", [*TINY, "intervention.cut=hidden2", "intervention.freeze_at=0"]))
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    losses = [loop.step(step)[0] for step in range(loop.steps)]
    changed = {name for name, value in loop.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert losses[-1] < losses[0]
