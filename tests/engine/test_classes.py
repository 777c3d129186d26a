"""What outputs mean as classes, written out in float64, and what is said of labels that are none: with every number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featdyn.classes import IGNORED, confidence, predicted_classes
from featdyn.networks.classes import check_classes, class_loss

OWN = "or give loss=, a function (outputs, labels) -> (sample,)"


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_class_is_the_largest_logit_s_or_the_sign_of_the_only_one(rows: int, width: int, seed: int) -> None:
    logits = np.random.default_rng(seed).choice([-1.0, 0.0, 1.0, np.nan], (2, rows, width), p=[0.3, 0.3, 0.3, 0.1])
    for i, row in enumerate(logits.reshape(-1, width)):
        best = int(row[0] > 0) if width == 1 else max(range(width), key=lambda c: (row[c], -c))
        wanted = -1 if np.isnan(row).any() else best
        assert predicted_classes(logits).ravel()[i] == wanted
        assert predicted_classes(torch.from_numpy(logits)).ravel()[i] == wanted
    assert predicted_classes(logits).shape == (2, rows)
    assert predicted_classes(logits).dtype == np.int64


def written_out(row: Any, label: int) -> float:
    row = np.asarray(row, np.float64)
    if len(row) == 1:
        return float(np.log1p(np.exp(-row[0] if label else row[0])))
    return float(np.log(np.exp(row).sum()) - row[label])


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_loss_of_samples_is_written_out(width: int) -> None:
    logits = torch.randn(6, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % max(2, width)
    wanted = [written_out(row, label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert class_loss(logits, labels).tolist() == pytest.approx(wanted, rel=1e-12)


def test_the_loss_of_positions_leaves_out_those_that_do_not_count() -> None:
    logits = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 2, IGNORED, 1], [IGNORED, IGNORED, 1, IGNORED]])
    each = [
        [written_out(logits[i, j].tolist(), int(labels[i, j])) for j in range(4) if labels[i, j] != IGNORED]
        for i in range(2)
    ]
    assert class_loss(logits, labels).tolist() == pytest.approx([np.mean(one) for one in each], rel=1e-12)
    assert class_loss(logits, labels, "sum").tolist() == pytest.approx([np.sum(one) for one in each], rel=1e-12)


REFUSED: dict[str, tuple[tuple[int, ...], Any, str]] = {
    # what: shape of outputs, labels, what is said
    "above": (
        (5, 3), torch.tensor([0, 1, 3, 2, 7]), "labels must lie in 0..2 for outputs of width 3, got 3 at probe 2 (2 of "
        f"5): leave such samples (as -100, left out in torch) out, {OWN}",
    ),
    "below": ((2, 3), torch.tensor([0, -1]), "got -1 at probe 1 (1 of 2)"),
    "one logit": ((2, 1), torch.tensor([2, 1]), "labels must lie in 0..1 for outputs of width 1, got 2 at probe 0"),
    "ignored": ((2, 3), torch.tensor([0, IGNORED]), "got -100 at probe 1"),
    "at a position": (
        (2, 3, 4), torch.tensor([[0, 1, 3], [IGNORED, 4, 9]]), "labels must lie in 0..3 for outputs of width 4, got 4 "
        f"at probe 1 (2 of 6): mark others by -100, {OWN}",
    ),
    "no target": (
        (4, 2, 3), torch.tensor([[0, IGNORED], [IGNORED] * 2, [1, 2], [IGNORED] * 2]),
        "probe 1 has no target that counts (all are -100 or padding; 2 such): leave such samples out",
    ),
    "one class at positions": (
        (2, 3, 1), torch.zeros(2, 3, dtype=torch.int64), "cross-entropy at positions takes a logit for each class, got "
        "(2, 3, 1): give loss=",
    ),
    "not numbers of classes": ((2, 3), torch.tensor([0.5, 1.0]), "takes integer labels, got torch.float32: round them"),
    "a column": ((2, 3), torch.tensor([[0], [1]]), "labels of shape (2,), got (2, 1): write labels[:, 0], or give"),
    "a column of floats": ((2, 3), torch.tensor([[0.0], [1.0]]), "got (2, 1): write labels[:, 0].long(), or give"),
    "one-hot": ((2, 3), torch.eye(3)[:2], "got (2, 3): they are one-hot: write labels.argmax(1), or give"),
    "two hot": ((2, 3), torch.tensor([[1, 1, 0], [0, 1, 0]]), f"got (2, 3): {OWN[3:]}"),
    "twice as hot": ((2, 3), torch.tensor([[2, 0, 0], [0, 1, 0]]), f"got (2, 3): {OWN[3:]}"),
    "too few positions": ((2, 3, 4), torch.zeros(2, 2), "one class a position, labels of shape (2, 3), got (2, 2)"),
    "one axis": ((5,), torch.zeros(5), "takes outputs (sample, class) or (sample, position, class), got (5,)"),
    "four axes": ((5, 1, 1, 2), torch.zeros(5), "got (5, 1, 1, 2): record another output"),
    "several": ((5, 2), {"a": torch.zeros(5)}, "takes one tensor of labels, got dict: give one"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_labels_that_are_no_classes_are_said_with_their_numbers(what: str) -> None:
    shape, labels, said = REFUSED[what]
    with pytest.raises(ValueError, match=r".") as error:
        check_classes(shape, labels)
    assert said in str(error.value)


def test_labels_that_are_classes_are_taken() -> None:
    for shape, labels in (
        ((3, 3), torch.tensor([0, 1, 2])),
        ((2, 1), torch.tensor([0, 1])),
        ((2, 2, 3), torch.tensor([[0, IGNORED], [2, 1]])),
        ((2, 1, 3), torch.tensor([[0], [2]])),
    ):
        check_classes(shape, labels)


@given(rows=st.integers(0, 4), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_confidence_is_the_probability_of_the_class(rows: int, width: int, seed: int) -> None:
    logits = np.random.default_rng(seed).standard_normal((rows, width)) * 20
    z = torch.from_numpy(logits)
    each = torch.cat([(-z).sigmoid(), z.sigmoid()], -1) if width == 1 else z.softmax(-1)
    chosen = each[torch.arange(rows), predicted_classes(z)]
    np.testing.assert_allclose(confidence(logits), chosen.numpy(), rtol=1e-9)
