"""The loss gap without non-generalizable interactions, and the identity it rests on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featdyn.statistics.interactions import cross_entropy, log_odds, loss_gap
from featdyn.statistics.resampling import bootstrap_counts
from tests.engine.statistics.interactions import worlds
from tests.engine.statistics.stretched import stretched, units_of

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
    for wrong in (labels + classes, np.r_[labels[1:], -1], labels * 1.0, np.r_[labels[1:], classes], np.full(20, -1)):
        with pytest.raises(ValueError, match="classes"):
            log_odds(logits, wrong)
    for only in (0, classes - 1):
        np.testing.assert_array_equal(log_odds(logits, only), log_odds(logits, np.full(20, only)))
    assert log_odds(logits[:, :0], labels[:0]).shape == (3, 0)


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


@pytest.mark.parametrize(("train", "test"), [(5, 4), (2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("seed", [0, 7])
def test_every_gap_is_that_of_each_draw(train: int, test: int, seed: int) -> None:
    """Of two checkpoints, with labels between 0 and 1, some interactions chosen, and a group of two test samples."""
    rng, sizes = np.random.default_rng(1), (train, test)
    both = [rng.normal(size=(2, size, 2, 2**N)) for size in sizes]
    labels, chosen = ([rng.uniform(size=x.shape) for x in both], [rng.uniform(size=x.shape) < 0.6 for x in both])
    groups = np.arange(train), np.maximum(np.arange(test), 1)
    models = [worlds.model(x, 0.4) for x in both]
    found = loss_gap(models[0], labels[0], models[1], labels[1], chosen=tuple(chosen), groups=groups, seed=seed)
    order = np.array([s.bit_count() for s in range(2**N)])
    losses = []  # of train and test: (checkpoint, what is taken out: nothing, all, order 1 to n; sample)
    for x, label, kept in zip(both, labels, chosen, strict=True):
        x[..., 0] = 0
        out = x * kept * (1 - label)
        parts = [out * 0, out, *(out * (order == k) for k in range(1, N + 1))]
        v = np.stack([(x - part).sum((-2, -1)) + 0.4 for part in parts], 1)
        losses.append(np.log1p(np.exp(-v)))
    for k, of_loss in enumerate(losses):
        np.testing.assert_allclose(found.loss[:, k], of_loss[:, 0].mean(-1))
        np.testing.assert_allclose(found.loss_without[:, k], of_loss[:, 1].mean(-1))
    seeds = np.random.default_rng(seed).integers(2**31, size=2)
    counts = [
        bootstrap_counts(n, 1000, int(s), g).astype(np.float64) for n, s, g in zip(sizes, seeds, groups, strict=True)
    ]
    means = [x @ (c / c.sum(1, keepdims=True)).T for x, c in zip(losses, counts, strict=True)]
    drawn, point = means[1] - means[0], losses[1].mean(-1) - losses[0].mean(-1)
    units = min(units_of(g.tolist()) for g in groups)
    for interval, values, estimate in (
        (found.gap, drawn[:, 0], point[:, 0]),
        (found.gap_without, drawn[:, 1], point[:, 1]),
        (found.explained, drawn[:, 0] - drawn[:, 1], point[:, 0] - point[:, 1]),
        (found.by_order, drawn[:, :1] - drawn[:, 2:], point[:, :1] - point[:, 2:]),
    ):
        np.testing.assert_allclose(interval.estimate, estimate, atol=1e-12)
        if min(sizes) < 2:
            assert np.isnan([interval.low, interval.high]).all()
            continue
        for k in np.ndindex(estimate.shape):
            limits = stretched(values[k], estimate[k], units)
            np.testing.assert_allclose([interval.low[k], interval.high[k]], limits, atol=1e-9)


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
