"""Probes: what is taken as inputs, labels and masks, and how they come in batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from featdyn.capture import Axis, Probes
from featdyn.capture.asked import token_targets
from featdyn.capture.probes import batch_of, batch_size
from featdyn.classes import IGNORED

X = torch.arange(6.0).view(3, 2)
MASK = torch.tensor([[1, 0], [1, 1], [0, 1]])


@given(st.integers(1, 3000), st.integers(1, 700))
def test_batches_are_as_few_and_as_even_as_may_be(samples: int, most: int) -> None:
    size = batch_size(samples, most)
    passes = next(n for n in range(1, samples + 1) if n * most >= samples)
    assert size <= most
    assert size * passes >= samples > (size - 1) * passes
    places = [batch_of(start, min(start + size, samples), size) for start in range(0, samples, size)]
    assert {len(one) for one in places} == {size}
    assert torch.cat(places)[:samples].tolist() == list(range(samples))
    assert set(torch.cat(places)[samples:].tolist()) <= {samples - 1}


def test_inputs_that_are_not_finite_are_counted_by_their_samples() -> None:
    a, b = X.clone(), X.clone().double()
    a[0, 1], b[2, 0], b[0, 0] = torch.nan, torch.inf, -torch.inf
    assert Probes({"a": a, "b": b, "ids": torch.zeros(3, dtype=torch.int64)}).odd() == 2
    assert Probes((X, X)).odd() == 0
    assert Probes(torch.zeros(3, 2, dtype=torch.int64)).odd() == 0


@pytest.mark.parametrize(
    ("labels", "dtype", "is_class"),
    [
        (torch.tensor([True, False, True]), torch.int64, True),
        (torch.tensor([3, 0, 1], dtype=torch.uint8), torch.int64, True),
        (torch.tensor([[True, False]] * 3), torch.bool, False),
        (torch.tensor([[1, 0]] * 3, dtype=torch.int32), torch.int64, False),
        (torch.tensor([0.5, 1, 2]), torch.float32, False),
        (torch.tensor([1j, 0, 2]), torch.complex64, False),
    ],
)
def test_integers_are_classes_and_truth_values_where_there_is_one(labels: Tensor, dtype: Any, is_class: bool) -> None:
    probes = Probes(X, labels)
    assert probes.labels.dtype == dtype
    assert ("label" in probes.coords) == is_class
    if is_class:
        assert probes.coords["label"].tolist() == [int(one) for one in labels]


def test_a_mask_that_is_given_comes_before_those_of_the_inputs() -> None:
    inputs = {"x": X, "attention_mask": MASK}
    assert torch.equal(Probes(inputs).mask, MASK.bool())
    assert torch.equal(Probes(inputs, mask=MASK.flip(1)).mask, MASK.flip(1).bool())
    decoder = {**inputs, "decoder_input_ids": X, "decoder_attention_mask": MASK.flip(0)}
    assert torch.equal(Probes(decoder).mask, MASK.flip(0).bool())
    assert Probes((X, MASK)).mask is None
    assert Probes({"x": X, "decoder_input_ids": X, "attention_mask": MASK}).mask is None


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (MASK[:2], r"mask must be \(3, position\) of 0 \(padding\) and 1, got \(2, 2\)$"),
        (MASK[:, 0], r"got \(3,\)$"),
        (MASK[:, :, None], r"got \(3, 2, 1\)$"),
        ((MASK,), "got tuple$"),
        (2 * MASK, r"got \(3, 2\) with other values$"),
        (MASK - 1, r"got \(3, 2\) with other values$"),
        (MASK * torch.tensor([[1], [0], [0]]), r"mask leaves no position of probe 1 \(2 such\): leave them out"),
    ],
)
def test_what_is_no_mask_is_refused(mask: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Probes(X, mask=mask)
    if isinstance(mask, Tensor):
        with pytest.raises(ValueError, match="attention_mask"):
            Probes({"x": X, "attention_mask": mask})


def test_targets_at_padding_do_not_count_where_they_have_the_positions_of_the_mask() -> None:
    labels = torch.tensor([[0, 1], [1, 0], [1, 1]])
    found = token_targets(Probes(X, labels, mask=MASK), (3, 2, 4)).labels
    assert found.tolist() == [[0, IGNORED], [1, 0], [IGNORED, 1]]
    for other in (labels[:, :1], labels[:, 0], {"a": labels}):  # none of them is spread over the positions
        probes = Probes(X, other, mask=MASK)
        assert token_targets(probes, (3, 2, 4)) is probes
    probes = Probes(X, labels)
    assert token_targets(probes, (3, 2, 4)) is probes


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sample": None}, "sample must be a whole number of at least 0, got None"),
        ({"sample": True}, "sample must be a whole number of at least 0, got True"),
        ({"sample": -1}, "sample must be"),
        ({"position": 1.0}, "position must be a whole number of at least 0, got 1.0"),
        ({"position": -1}, "position must be"),
        ({"position": 0}, "sample and position are both 0"),
        ({"sample": 2, "position": 2}, "sample and position are both 2"),
        ({"pool": "max"}, "pool must be one of none, mean, last, cls, got 'max'"),
        ({"mask": ""}, "mask must be the key of an input, got ''"),
        ({"mask": 1}, "mask must be the key of an input, got 1"),
        ({"output": ""}, "output must be a place from 0 on or a key, got ''"),
        ({"output": -1}, "output must be a place from 0 on or a key, got -1"),
        ({"output": 1.0}, "output must be a place from 0 on or a key, got 1.0"),
    ],
)
def test_an_axis_that_cannot_be_is_refused_with_what_was_given(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Axis(**wrong)


@pytest.mark.parametrize(
    ("words", "axis"),
    [
        ([], Axis()),
        (["sample=1", "pool=mean"], Axis(sample=1, pool="mean")),
        (["position=2", "mask=source.mask", "output=1.0"], Axis(position=2, mask="source.mask", output="1.0")),
        (["output=1"], Axis(output=1)),
    ],
)
def test_an_axis_is_what_words_say(words: list[str], axis: Axis) -> None:
    assert Axis.said(words) == axis


@pytest.mark.parametrize("words", [["samples=1"], ["sample="], ["sample"], ["sample=1", "sample=2"], ["=1"]])
def test_words_that_say_no_axis_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{words[-1]!r} says no axis"):
        Axis.said(words)


@pytest.mark.parametrize(
    ("sample", "position", "ndim", "place"),
    [(0, None, 2, None), (0, None, 3, 1), (0, None, 4, None), (1, None, 3, 0), (2, None, 3, 0), (0, 2, 4, 2)],
)
def test_positions_are_the_first_other_axis_of_three(
    sample: int, position: int | None, ndim: int, place: int | None
) -> None:
    axis = Axis(sample=sample, position=position)
    assert axis.place(ndim) == place
    values = torch.randn(2, 3, 4, 5)[(slice(None),) * ndim + (0,) * (4 - ndim)]
    front = [sample] if place is None else [sample, place]
    rest = [i for i in range(ndim) if i not in front]
    assert torch.equal(axis.turned(values), values.permute(*front, *rest))
