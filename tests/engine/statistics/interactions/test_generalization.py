"""Labels, H and kappa, counted one by one; worlds where the claim is true, where it is false, and where nobody can
know.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from featdyn.statistics.interactions import (
    agreement,
    chance_labels,
    cohens_kappa,
    generalizable,
    generalization_power,
    salient,
    strength_by_order,
    top,
)
from featdyn.statistics.resampling import bootstrap_counts
from tests.engine.statistics.interactions import worlds
from tests.engine.statistics.stretched import stretched

N = 5


def networks(number: int, samples: int = 12, seed: int = 0, shared: int = 0, own: int = 6) -> list[np.ndarray]:
    """Interactions (sample, 2, 2**n) of networks that share some and have the others to themselves."""
    rng = np.random.default_rng(seed)
    common = [worlds.planted(N, shared, rng) for _ in range(samples)] if shared else [np.zeros((2, 2**N))] * samples
    return [
        np.stack([c + worlds.planted(N, own, rng) for c in common]) if own else np.stack(common) for _ in range(number)
    ]


@pytest.mark.parametrize("need", ["one", "majority", "all"])
@pytest.mark.parametrize("same_sign", [True, False])
@pytest.mark.parametrize("amount", ["whole", "shared"])
@pytest.mark.parametrize("baselines", [1, 2, 3])
def test_labels_are_those_of_the_definition(need: str, same_sign: bool, amount: str, baselines: int) -> None:
    own, *others = networks(1 + baselines, samples=3, shared=4)
    model, found = worlds.model(own), [worlds.model(x) for x in others]
    labels = generalizable(model, found, need=need, same_sign=same_sign, amount=amount)
    sets = [salient(b) for b in found]
    needed = {"one": 1, "majority": baselines // 2 + 1, "all": baselines}[need]
    for at in np.ndindex(own.shape):
        value = own[at]
        each = []
        for b, chosen in zip(others, sets, strict=True):
            has = chosen[at] and value != 0 and (not same_sign or value * b[at] > 0)
            each.append(0.0 if not has else 1.0 if amount == "whole" else min(abs(value), abs(b[at])) / abs(value))
        assert labels[at] == pytest.approx(sorted(each, reverse=True)[needed - 1])
    assert 0 < labels.mean() < 1


def test_matched_lists_take_the_place_of_thresholds() -> None:
    own, other = (worlds.model(x) for x in networks(2, samples=3, shared=4))
    labels = generalizable(own, [other], chosen=[top(other, 2)])
    assert (labels.sum((-2, -1)) <= 2).all()
    assert labels.any()


def power(own: np.ndarray, others: list[np.ndarray]):
    model, found = worlds.model(own), [worlds.model(x) for x in others]
    return generalization_power(model, generalizable(model, found), chance_labels=chance_labels(model, found))


@pytest.mark.parametrize("samples", [2, 3, 8, 9, 10, 23])
def test_chance_is_over_other_samples_that_are_spread_out(samples: int) -> None:
    """What each sample has is told by the one interaction that its baseline has."""
    both = np.zeros((samples, 2, 2**N))
    both[np.arange(samples), 0, 1 + np.arange(samples)] = 1.0
    model, baseline = worlds.model(np.ones_like(both)), worlds.model(both)
    found = chance_labels(model, [baseline], need="all")
    expected = np.arange(1, samples) if samples <= 9 else np.floor(np.linspace(1, samples - 1, 8)).astype(int)
    shifts = []
    for labels in found:
        at, other = np.nonzero(labels[:, 0])
        np.testing.assert_array_equal(at, np.arange(samples))
        shifts += np.unique((at - (other - 1)) % samples).tolist()
    assert shifts == expected.tolist()
    assert not np.any([labels[:, 1].any() for labels in found])


def test_chance_is_of_no_copy_of_the_sample() -> None:
    """Each interaction is of one group alone, whose copies are not equally many."""
    groups = np.array([4, 1, 1, 7, 4, 4, 1, 1, 9])
    both = np.zeros((9, 2, 2**N))
    both[np.arange(9), 0, groups] = 1.0
    found = chance_labels(worlds.model(both), [worlds.model(both)], groups=groups)
    assert len(found) == 3
    assert not np.any(found)
    assert np.any(chance_labels(worlds.model(both), [worlds.model(both)]))
    with pytest.raises(ValueError, match="at least 2 samples"):
        chance_labels(worlds.model(both), [worlds.model(both)], groups=np.zeros(9))


def test_h_counts_strength_and_number() -> None:
    own, other = networks(2, shared=3)
    model = worlds.model(own)
    labels, kept = generalizable(model, [worlds.model(other)]), salient(model)
    found = generalization_power(model, labels)
    size = np.abs(own) * kept
    assert found.ratio.estimate == pytest.approx((size * labels).sum() / size.sum())
    assert found.count_ratio.estimate == pytest.approx((kept * labels).sum() / kept.sum())
    order = np.array([s.bit_count() for s in range(2**N)])
    for k in (2, 3, 4):
        at = order == k
        assert found.by_order.estimate[k - 1] == pytest.approx((size * labels)[..., at].sum() / size[..., at].sum())
    assert np.isnan(found.by_order.estimate[0]), "nothing was planted at order 1"
    assert found.ratio.low < found.ratio.estimate < found.ratio.high
    assert np.isnan(found.chance.estimate), "not asked"
    parts = [strength_by_order(model, kept * w).sum() for w in (labels, 1 - labels)]
    assert sum(parts) == pytest.approx(size.sum())


def test_where_networks_share_interactions_h_is_beyond_chance() -> None:
    own, *others = networks(3, shared=6, own=2)
    found = power(own, others)
    assert found.beyond_chance.low > 0.3
    assert found.ratio.estimate > 0.6


def test_where_they_share_none_h_is_that_of_chance() -> None:
    own, *others = networks(3, samples=30, own=9)
    found = power(own, others)
    assert found.ratio.estimate > 0.15, "dense sets overlap by chance"
    assert found.beyond_chance.low < 0 < found.beyond_chance.high


def test_where_nothing_can_be_known_no_number_is_given() -> None:
    silent = np.zeros((5, 2, 2**N))
    none = power(silent, [silent])
    assert np.isnan([none.ratio.estimate, none.ratio.low, none.beyond_chance.estimate]).all()
    own, other = (x[:1] for x in networks(2, shared=4))
    one = generalization_power(worlds.model(own), generalizable(worlds.model(own), [worlds.model(other)]))
    assert np.isfinite(one.ratio.estimate)
    assert np.isnan([one.ratio.low, one.ratio.high]).all(), "one sample tells no spread"
    equal = power(own.repeat(4, 0), [own.repeat(4, 0)])
    assert equal.ratio.estimate == 1
    assert np.isnan(equal.ratio.low), "samples that all agree tell none either"


def test_checkpoints_are_a_leading_axis() -> None:
    first, second, other = networks(3, samples=4, shared=3)
    both, baseline = worlds.model(np.stack([first, second])), worlds.model(other)
    labels = generalizable(both, [baseline])
    np.testing.assert_array_equal(labels[1], generalizable(worlds.model(second), [baseline]))
    found = generalization_power(both, labels)
    alone = generalization_power(worlds.model(second), labels[1])
    assert found.ratio.low[1] == pytest.approx(alone.ratio.low)
    np.testing.assert_allclose(found.by_order.high[1], alone.by_order.high)


def test_kappa_is_cohens() -> None:
    rng = np.random.default_rng(6)
    a = rng.integers(2, size=(20, 2, 16))
    b = np.where(rng.uniform(size=a.shape) < 0.7, a, 1 - a)
    kept = rng.uniform(size=a.shape) < 0.5
    found = cohens_kappa(a, b, kept)
    assert found.kappa == pytest.approx(cohen_kappa_score(a[kept], b[kept]))
    assert found.agreement == pytest.approx((a == b)[kept].mean())
    assert found.low < found.kappa < found.high
    assert found.low > 0
    chance = cohens_kappa(a, rng.integers(2, size=a.shape), kept)
    assert chance.low < 0 < chance.high
    constant = cohens_kappa(a, np.ones_like(a), kept)
    assert np.isnan(constant.kappa)
    assert "constant" in constant.reason
    for value in (0, 1):
        assert np.isnan(cohens_kappa(np.full_like(a, value), b, kept).kappa)
        assert np.isnan(cohens_kappa(a, np.full_like(a, value), kept).kappa)
    assert "nothing is chosen" in cohens_kappa(a, b, np.zeros_like(kept)).reason
    with pytest.raises(ValueError, match="0 or 1"):
        cohens_kappa(a * 0.5, b, kept)


def test_kappa_s_interval_is_over_draws_of_samples() -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(2, size=(9, 2, 4))
    b, kept = np.where(rng.uniform(size=a.shape) < 0.8, a, 1 - a), rng.uniform(size=a.shape) < 0.7
    found = cohens_kappa(a, b, kept, seed=3)
    sample, x, y, draws = np.nonzero(kept)[0], a[kept], b[kept], []
    for count in bootstrap_counts(9, 1000, 3).astype(np.float64):
        w = count[sample] / count[sample].sum()
        equal, one, other = w @ (x == y), w @ x, w @ y
        by_chance = one * other + (1 - one) * (1 - other)
        draws.append((equal - by_chance) / (1 - by_chance))
    np.testing.assert_allclose([found.low, found.high], stretched(draws, found.kappa, 9, (-1, 1)), atol=1e-12)
    assert found.labels == kept.sum()
    assert found.reason == ""
    same = cohens_kappa(a[:1], b[:1], np.ones_like(a[:1]))
    assert np.isfinite(same.kappa)
    assert np.isnan([same.low, same.high]).all()
    assert "no spread" in same.reason


@pytest.mark.parametrize("ones", [1, 2, 11, 22, 23])
def test_kappa_of_a_rare_label(ones: int) -> None:
    """In one axis of samples; of the rarest label to the rarest other."""
    a, b = np.arange(24) < ones, np.arange(24) % 3 == 0
    for first, second in ((a, b), (b, a)):
        found = cohens_kappa(first, second, np.ones(24))
        assert found.kappa == pytest.approx(cohen_kappa_score(a, b))
        assert (found.labels, found.agreement) == (24, pytest.approx((a == b).mean()))


@pytest.mark.parametrize(("varying", "known"), [(1, False), (2, False), (4, True)])
def test_kappa_has_limits_where_nine_of_ten_draws_have_one(varying: int, known: bool) -> None:
    """Only so many of twelve samples hold labels that vary: 63 %, 86 % and 98 % of draws hold one of these."""
    a = np.zeros((12, 2))
    a[:varying, 0] = 1
    b = a.copy()
    b[-1, 0] = 1
    found = cohens_kappa(a, b, np.ones_like(a))
    assert (np.isfinite([found.low, found.high]) == known).all()
    assert ("no spread" in found.reason) == (not known)


def test_correlation_over_orders_leaves_out_what_is_unknown() -> None:
    a, b = np.array([0.9, 0.7, np.nan, 0.2, 0.1]), np.array([0.8, 0.9, 0.5, 0.3, np.nan])
    both = [0, 1, 3]
    assert agreement.order_correlation(a, b) == pytest.approx(np.corrcoef(a[both], b[both])[0, 1])
    assert np.isnan(agreement.order_correlation(a[:2], b[:2]))
    assert np.isnan(agreement.order_correlation(np.ones(5), b))
    assert np.isnan(agreement.order_correlation(np.full(5, np.nan), b))
    assert agreement.order_correlation(1e-4 * a, b) == pytest.approx(agreement.order_correlation(a, b))


def test_overlaps_of_sets() -> None:
    own, other = (x[0] for x in networks(2, samples=1, shared=3))
    a, b = own != 0, other != 0
    order = np.array([s.bit_count() for s in range(2**N)])
    shared = agreement.shared_fraction([a, b])
    np.testing.assert_allclose(shared, [(a & b).sum() / a.sum(), (a & b).sum() / b.sum()])
    iou, jaccard = agreement.intersection_over_union(a, b), agreement.jaccard_by_order(own, other)
    for k in range(1, N + 1):
        at = order == k
        either = (a | b)[:, at].sum()
        assert np.isnan(iou[k - 1]) if not either else iou[k - 1] == (a & b)[:, at].sum() / either
        x, y = (np.concatenate([np.maximum(v, 0), np.maximum(-v, 0)])[:, at] for v in (own, other))
        if either:
            assert jaccard[k - 1] == pytest.approx(np.minimum(x, y).sum() / np.maximum(x, y).sum())
    assert agreement.jaccard_by_order(own, -own)[1] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: generalizable(m, []), "at least one"),
        (lambda m: generalizable(m, [m], need="some"), "need must be"),
        (lambda m: generalizable(m, [m], amount="half"), "amount must be"),
        (lambda m: generalizable(m, [m], chosen=[]), "one set for each"),
        (
            lambda m: generalizable(m, [worlds.model(np.zeros((7, 2, 2**N)))]),
            r"samples and variables, \(3,\) and 32 subsets, got \(7, 32\)",
        ),
        (lambda m: cohens_kappa(1, 0, True), "at least one sample"),
        (lambda m: cohens_kappa([1, 0], [1, 0, 1], [1, 1]), "first and second must have one shape"),
        (lambda m: cohens_kappa([1, 0], [1, 0], [1, 1, 1]), "labels and chosen must have one shape"),
        (lambda m: chance_labels(worlds.model(np.zeros((1, 2, 8))), []), "at least 2 samples"),
    ],
)
def test_bad_input_is_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(worlds.model(networks(1, samples=3)[0]))
