from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featdyn.data import load as load_data
from featdyn.errors import RecipeError
from featdyn.statistics import interactions
from featdyn.training import load
from featdyn.training.loop import Loop
from featdyn.training.suppression import log_odds, parts, penalty
from tests.strategies import sizes


@given(sizes(1, 5), sizes(1, 6), st.integers(0, 99))
def test_log_odds_are_those_of_the_statistics(n, classes, seed):
    random = torch.Generator().manual_seed(seed)
    logits, labels = 5 * torch.randn(n, classes, generator=random).double(), torch.randint(0, max(2, classes), (n,))
    two = torch.cat([torch.zeros_like(logits), logits], 1) if classes == 1 else logits  # one is class 1 against 0
    np.testing.assert_allclose(log_odds(logits, labels), interactions.log_odds(two.numpy(), labels.numpy()))


@settings(max_examples=20)
@given(st.integers(0, 99), sizes(2, 11))
def test_the_penalty_is_the_sum_of_all_interactions_across_two_parts(seed, side):
    """Of a table over all 16 unions of the four kinds of patches, by the Moebius transform."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(side**2, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs, labels = torch.randn(1, 1, side, side).double(), torch.tensor([seed % 3])
    kind = parts(inputs, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        found = float(penalty(network, inputs, labels, torch.Generator().manual_seed(seed)))
        rows = [sum((kind == k) & bool(s >> k & 1) for k in range(4)) > 0 for s in range(16)]
        v = log_odds(network(torch.cat([torch.where(row, inputs, 0.0) for row in rows])).float(), labels.repeat(16))
    terms = {s: sum((-1) ** ((s ^ t).bit_count()) * float(v[t]) for t in range(16) if t & s == t) for s in range(16)}
    across = sum(value for s, value in terms.items() if s & 1 and s & 2 and not s & 8)
    assert found == pytest.approx(abs(across), abs=1e-4)


def test_training_against_interactions_makes_them_weaker():
    data = load_data("digits")
    penalties = []
    for weight in (0.0, 0.5):
        loop = Loop(load("digits", ["network.name=mlp", "training.epochs=2", f"training.suppress={weight}"]), data)
        for step in range(12):
            loop.step(step)
        inputs, labels = loop.batches[0]
        with torch.no_grad():
            penalties.append(float(penalty(loop.model.eval(), inputs, labels, torch.Generator().manual_seed(0))))
    assert penalties[1] < 0.7 * penalties[0]


def test_a_resumed_step_deals_the_same_parts():
    losses = []
    for _ in range(2):
        recipe = load("digits", ["network.name=mlp", "training.suppress=0.3"])
        loop = Loop(recipe, load_data("digits"))
        losses.append([loop.step(step)[0] for step in range(3)])
    assert losses[0] == losses[1]
    with pytest.raises(RecipeError, match="whole network"):
        load("digits", ["training.suppress=0.1", "intervention.cut=s1b1", "intervention.freeze_at=1"])
