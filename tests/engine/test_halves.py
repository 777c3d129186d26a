"""When a checkpoint that is joined with itself is its own network: tolerances, and what lies beyond them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from featdyn.analysis.composites.halves import apart, tolerances
from featdyn_kernels.stitch import Stitched

KERNELS, HALF = 0.01, 0.05
"""Of the largest logit: between two kernels in float32, and where features were kept in float16."""


def stitched(logits, labels):
    """Return what a composite of these logits is, from their definitions."""
    x = torch.from_numpy(logits)
    right = x.gather(1, torch.from_numpy(labels)[:, None])[:, 0]
    others = x.scatter(1, torch.from_numpy(labels)[:, None], -torch.inf).max(1).values
    loss = nn.functional.cross_entropy(x, torch.from_numpy(labels), reduction="none")
    predicted = torch.where(x.isnan().any(1), -1, x.argmax(1))
    return Stitched(predicted[None], loss[None], (right - others)[None], None, None)


@pytest.mark.parametrize(
    ("kind", "source", "kept", "wanted"),
    [
        (torch.float32, "recomputed", "float16", KERNELS),
        (torch.float32, "stored", "float32", KERNELS),
        (torch.float32, "stored", "float16", HALF),
        (torch.float64, "stored", "float16", HALF),
        (torch.float16, "recomputed", "float32", 16 * 2**-10),
        (torch.float16, "stored", "float16", HALF),
        (torch.bfloat16, "recomputed", "float32", 16 * 2**-7),
        (torch.bfloat16, "stored", "float16", 16 * 2**-7),
    ],
)
def test_the_tolerance_is_that_of_the_coarsest_numbers_on_the_way(kind, source, kept, wanted):
    """A second cut, whose features are computed, has its own."""
    model = nn.Linear(2, 2, dtype=kind)
    parts = SimpleNamespace(
        model=model,
        cuts=[SimpleNamespace(name="a"), SimpleNamespace(name="b")],
        sources={"a": source, "b": "recomputed"},
    )
    run = SimpleNamespace(schema={"layers/a/activation": SimpleNamespace(dtype=kept)})
    assert tolerances(run, parts) == pytest.approx([wanted, max(KERNELS, 16 * torch.finfo(kind).eps)])


def test_a_network_of_integers_has_the_tolerance_of_kernels():
    model = nn.Module()
    model.register_parameter("w", nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False))
    parts = SimpleNamespace(model=model, cuts=[SimpleNamespace(name="a")], sources={"a": "recomputed"})
    assert tolerances(SimpleNamespace(schema={}), parts) == [KERNELS]


@given(seed=st.integers(0, 2**32 - 1), most=st.sampled_from([KERNELS, HALF]), classes=st.integers(2, 5))
def test_probes_within_the_tolerance_are_the_network_and_those_beyond_are_not(seed, most, classes):
    """Loss and margin move by at most twice what logits do; a margin that moves by more than that is noticed."""
    random = np.random.default_rng(seed)
    own, labels = random.normal(size=(12, classes)) * 10.0 ** random.integers(-3, 4), random.integers(0, classes, 12)
    bound = most * np.abs(own).max()
    near = own + bound * random.choice([-0.99, 0.99], own.shape)
    assert not apart(stitched(near, labels), 0, labels, own, most).any()
    far, moved = own.copy(), random.random(12) < 0.5
    far[moved, labels[moved]] += 2.1 * bound
    np.testing.assert_array_equal(apart(stitched(far, labels), 0, labels, own, most), moved)


def test_a_loss_that_moves_is_noticed_where_the_margin_stands():
    """Of three classes that share all, one of the wrong two leaves: the margin is 0 before and after."""
    own, labels = np.array([[100.0, 100.0, 100.0]]), np.array([0])
    assert apart(stitched(np.array([[100.0, 100.0, 0.0]]), labels), 0, labels, own, 0.001).all()
    assert not apart(stitched(np.array([[100.0, 100.0, 0.0]]), labels), 0, labels, own, 0.003).any()


def test_of_logits_that_are_no_numbers_the_class_is_compared():
    own = np.array([[np.nan, 0.0], [np.inf, 0.0], [1.0, -np.inf], [1.0, 0.0], [3.0, 2.0]])
    labels = np.array([0, 0, 0, 1, 0])
    same = stitched(own, labels)
    assert not apart(same, 0, labels, own, KERNELS).any()
    wrong = same._replace(predictions=torch.tensor([[0, 1, 1, 0, 1]]))
    np.testing.assert_array_equal(apart(wrong, 0, labels, own, KERNELS), [True, True, False, False, False])


def test_one_logit_is_that_of_class_1_against_class_0():
    own, labels = np.array([[2.0], [-1.0], [0.5]]), np.array([1, 0, 0])
    two = np.concatenate([np.zeros_like(own), own], axis=1)
    found = stitched(two, labels)
    assert not apart(found, 0, labels, own, KERNELS).any()
    off = found._replace(margin=found.margin + torch.tensor([[0.0, 0.05, 0.0]]))  # more than 0.02 of 2
    np.testing.assert_array_equal(apart(off, 0, labels, own, KERNELS), [False, True, False])


def test_the_row_is_the_composites_place():
    own, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    one, other = stitched(own, labels), stitched(own + np.array([3.0, 0.0]), labels)
    both = Stitched(*(torch.cat(pair) if pair[0] is not None else None for pair in zip(other, one, strict=True)))
    assert not apart(both, 1, labels, own, KERNELS).any()
    assert apart(both, 0, labels, own, KERNELS).all()
