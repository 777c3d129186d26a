"""The loss gap without non-generalizable interactions, and the identity it rests on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featdyn.statistics.interactions import cross_entropy, log_odds, loss_gap
from tests.engine.statistics.interactions import worlds

N = 4


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_softplus_of_minus_log_odds_is_cross_entropy(classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits, labels = rng.normal(size=(3, 20, classes)) * 20, rng.integers(classes, size=20)
    logits[0, 0] = 0
    logits[0, 0, labels[0]] = 500.0  # p = 1 in float64
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).permute(0, 2, 1), torch.from_numpy(np.tile(labels, (3, 1))), reduction="none"
    )
    v = log_odds(logits, labels)
    np.testing.assert_allclose(cross_entropy(v), expected, rtol=1e-12, atol=1e-12)
    p = torch.softmax(torch.from_numpy(logits[1] / 20), -1)[np.arange(20), labels]
    np.testing.assert_allclose(log_odds(logits[1] / 20, labels), torch.log(p / (1 - p)), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="classes"):
        log_odds(logits[..., :1], labels * 0)
    with pytest.raises(ValueError, match="classes"):
        log_odds(logits, labels + classes)


def world(seed: int, samples: int, harm: float) -> tuple[np.ndarray, np.ndarray]:
    """Interactions that help, labelled 1, and ones of order 4 that add ``harm`` to v, labelled 0."""
    rng = np.random.default_rng(seed)
    both = np.zeros((samples, 2, 2**N))
    both[:, 0, 1], both[:, 1, 0b11] = rng.normal(1, 0.3, size=(2, samples))
    both[:, 0, -1] = harm + rng.normal(0, 0.5, size=samples)
    labels = np.ones_like(both)
    labels[..., -1] = 0
    return both, labels


def gap(harm_in_train: float, harm_in_test: float, train: int = 60, test: int = 80):
    a, b = world(0, train, harm_in_train), world(1, test, harm_in_test)
    return loss_gap(worlds.model(a[0]), a[1], worlds.model(b[0]), b[1]), a, b


def test_losses_are_those_of_the_sums_left() -> None:
    found, (train, labels), (test, _) = gap(2.0, -2.0)
    for k, both in enumerate((train, test)):
        v = both.sum((-2, -1))
        assert found.loss[k] == pytest.approx(np.log1p(np.exp(-v)).mean())
        kept = (both * labels[:1]).sum((-2, -1))
        # Those below the threshold are not taken out.
        tau = 0.03 * np.abs(v).mean()
        kept = kept + np.where(np.abs(both[:, 0, -1]) < tau, both[:, 0, -1], 0)
        assert found.loss_without[k] == pytest.approx(np.log1p(np.exp(-kept)).mean())
    assert found.gap.estimate == pytest.approx(found.loss[1] - found.loss[0])
    assert found.gap_without.estimate == pytest.approx(found.loss_without[1] - found.loss_without[0])
    assert found.by_order.estimate[N - 1] == pytest.approx(found.explained.estimate), "only order 4 was taken out"
    assert not found.by_order.estimate[: N - 1].any()


def test_the_claim_can_be_true_false_and_unknown() -> None:
    true = gap(2.0, -2.0)[0]
    assert true.explained.low > 0
    assert abs(true.gap_without.estimate) < 0.2 < true.gap.low
    false = gap(-2.0, 2.0)[0]
    assert false.explained.high < 0, "taking them out widens the gap"
    unknown = gap(0.0, 0.0)[0]
    assert unknown.explained.low < 0 < unknown.explained.high
    one = gap(2.0, -2.0, test=1)[0]
    assert np.isnan([one.explained.low, one.explained.high]).all()


def test_samples_that_are_all_equal_tell_no_spread() -> None:
    both, labels = (x[:1].repeat(5, 0) for x in world(0, 5, 1.0))
    equal = worlds.model(both)
    found = loss_gap(equal, labels, worlds.model(-both), labels)
    assert np.isfinite(found.gap.estimate)
    assert np.isnan([found.gap.low, found.gap.high, found.explained.low]).all()


def test_labels_that_do_not_fit_are_refused() -> None:
    a, labels = world(0, 5, 1.0)
    with pytest.raises(ValueError, match="labels"):
        loss_gap(worlds.model(a), labels[:3], worlds.model(a), labels)


def test_samples_of_one_group_are_drawn_together() -> None:
    a, b = world(0, 30, 1.0), world(1, 30, -1.0)
    twice = [[np.repeat(x, 2, axis=0) for x in pair] for pair in (a, b)]
    groups = np.repeat(np.arange(30), 2)

    def found(pair, **more):
        return loss_gap(worlds.model(pair[0][0]), pair[0][1], worlds.model(pair[1][0]), pair[1][1], **more).gap

    once, together = found((a, b)), found(twice, groups=(groups, groups))
    for name in ("estimate", "low", "high"):
        assert getattr(together, name) == pytest.approx(getattr(once, name), rel=1e-6)
    apart = found(twice)
    assert apart.high - apart.low < 0.85 * (once.high - once.low)
