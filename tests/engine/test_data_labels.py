import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featdyn.data import noisy_labels
from featdyn.data.order import random_order, stratified_order

modest = settings(deadline=None, max_examples=60)
labelled = st.lists(st.integers(0, 6), max_size=80).map(lambda v: np.array(v, np.int64))
seeds = st.integers(0, 2**63)
fractions = st.floats(0, 1)


@modest
@given(labelled, fractions, seeds)
def test_noise_permutes_the_chosen_labels_only(labels, fraction, seed):
    before = labels.copy()
    noisy, mask = noisy_labels(labels, fraction, seed, 7)
    np.testing.assert_array_equal(labels, before)
    assert noisy.dtype == np.int64
    assert mask.sum() == round(fraction * len(labels))
    np.testing.assert_array_equal(noisy[~mask], labels[~mask])
    np.testing.assert_array_equal(np.sort(noisy[mask]), np.sort(labels[mask]))


@modest
@given(labelled, fractions, fractions, seeds)
def test_noise_is_fixed_by_its_seed_and_nested_in_its_fraction(labels, low, high, seed):
    low, high = sorted((low, high))
    first, again, more = (noisy_labels(labels, fraction, seed, 7) for fraction in (low, low, high))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (more.mask >= first.mask).all()


def test_fraction_0_and_1_are_exact_and_seeds_differ():
    labels = np.arange(1000) % 10
    none, everything = noisy_labels(labels, 0, 3, 10), noisy_labels(labels, 1, 3, 10)
    assert not none.mask.any()
    np.testing.assert_array_equal(none.labels, labels)
    assert everything.mask.all()
    wrong = (everything.labels != labels).mean()
    assert wrong == pytest.approx(0.9, abs=0.04)  # 4 standard errors of 1 - 1/10
    assert (noisy_labels(labels, 1, 4, 10).labels != everything.labels).any()


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        (np.zeros(3, np.int32), 0.5, "labels: needs int64"),
        (np.zeros((3, 1), np.int64), 0.5, "labels: needs int64"),
        (np.array([0, 7]), 0.5, r"labels: must lie in 0\.\.6"),
        (np.array([0, -1]), 0.5, r"labels: must lie in 0\.\.6"),
        (np.array([0, 1]), 1.5, "fraction"),
        (np.array([0, 1]), float("nan"), "fraction"),
    ],
)
def test_noise_refuses(labels, fraction, message):
    with pytest.raises(ValueError, match=message):
        noisy_labels(labels, fraction, 0, 7)


@modest
@given(labelled, seeds)
def test_every_prefix_of_a_stratified_order_is_as_balanced_as_it_can_be(labels, seed):
    order = stratified_order(labels, seed)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(labels)))
    total = np.bincount(labels, minlength=7)
    for count in range(len(labels) + 1):
        taken = np.bincount(labels[order[:count]], minlength=7)
        left = taken < total
        if left.any():  # no class that has samples left is two behind another
            assert taken.max() - taken[left].min() <= 1


def test_orders_are_the_same_in_every_version():
    """Sample ids of published stores rest on these; a change here is a break for users."""
    assert random_order(8, 1, 2).tolist() == [5, 6, 3, 2, 1, 0, 4, 7]
    assert stratified_order(np.arange(8) % 3, 1, 2).tolist() == [5, 6, 1, 3, 2, 4, 0, 7]
