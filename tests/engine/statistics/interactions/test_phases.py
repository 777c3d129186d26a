"""Boundaries of phases where there are some, where there are none, and where samples cannot tell."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions import phases
from featdyn.statistics.resampling import bootstrap_counts
from tests.engine.statistics.stretched import stretched

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64.0])
RISE_AND_FALL = np.array([0.2, 0.35, 0.5, 0.65, 0.8, 0.6, 0.45, 0.3])


def strengths(h: np.ndarray, samples: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    whole = rng.uniform(1, 2, size=(len(h), samples))
    return whole * np.clip(h[:, None] + noise * rng.normal(size=whole.shape), 0, 1), whole


def losses(gap: np.ndarray, samples: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = np.linspace(2, 0.1, len(gap))
    train, test = (base[:, None] + noise * rng.normal(size=(len(gap), samples)) for _ in range(2))
    return train, test + gap[:, None]


def test_a_maximum_of_h_is_a_boundary() -> None:
    found = phases.peak(*strengths(RISE_AND_FALL, 100, 0.1), STEPS)
    assert found.step == 8
    assert found.verdict == "yes"
    assert found.low <= 8 <= found.high
    assert "rises before step 8" in found.reason
    part, whole = strengths(1 - RISE_AND_FALL, 100, 0.1)
    lowest = phases.peak(5 * part, whole, STEPS, lowest=True)
    assert (lowest.step, lowest.verdict) == (8, "yes")


@pytest.mark.parametrize("h", [np.linspace(0.2, 0.8, 8), np.linspace(0.8, 0.2, 8)])
def test_what_only_rises_or_falls_has_no_boundary(h: np.ndarray) -> None:
    found = phases.peak(*strengths(h, 200, 0.1), STEPS)
    assert found.verdict == "no"
    assert np.isnan([found.step, found.low, found.high]).all()
    assert "only" in found.reason


def test_flat_curves_cannot_tell() -> None:
    verdicts = [phases.peak(*strengths(np.full(8, 0.5), 20, 0.3, seed), STEPS).verdict for seed in range(40)]
    assert verdicts.count("yes") <= 3, "nominally 5 %"
    assert verdicts.count("cannot tell") >= 30


def test_undefined_h_cannot_tell() -> None:
    part, whole = strengths(RISE_AND_FALL, 30, 0.1)
    whole[3] = part[3] = 0
    found = phases.peak(part, whole, STEPS)
    assert found.verdict == "cannot tell"
    assert "step 4:" in found.reason
    whole[[3, 4, 5, 6]] = part[[3, 4, 5, 6]] = 0
    assert "undefined at step 4, 8, 16:" in phases.peak(part, whole, STEPS).reason
    one = phases.peak(part[:, :1] + 0.1, whole[:, :1] + 1, STEPS)
    assert one.verdict == "cannot tell"


@pytest.mark.parametrize("of", ["gap", "test"])
def test_a_gap_that_rises_to_the_end_is_a_boundary(of: str) -> None:
    gap = np.array([0.1, 0.1, 0.05, 0.02, 0.5, 1.3, 2.5, 4.0])
    found = phases.lasting_rise(*losses(gap, 200, 0.1), STEPS, of=of)
    assert (found.step, found.verdict) == (4, "yes")
    late = phases.lasting_rise(*losses(gap, 200, 0.1), STEPS, after=8, of=of)
    assert late.step == 8
    assert phases.lasting_rise(*losses(gap, 200, 0.1), STEPS, after=32, of=of).verdict == "no"


def test_a_gap_that_falls_has_none_and_one_of_noise_cannot_tell() -> None:
    assert phases.lasting_rise(*losses(np.linspace(2, 0.5, 8), 200, 0.1), STEPS).verdict == "no"
    noisy = [phases.lasting_rise(*losses(np.zeros(8), 15, 1.0, seed), STEPS).verdict for seed in range(40)]
    assert noisy.count("yes") <= 4
    assert noisy.count("cannot tell") >= 20
    # It rises three times, then falls below where it began: no lasting rise.
    passing = np.array([1.0, 1.5, 2.0, 2.5, 1.5, 1.0, 0.8, 0.5])
    transient = phases.lasting_rise(*losses(passing, 200, 0.1), STEPS)
    assert transient.verdict == "no"
    assert "ends below" in transient.reason
    assert np.isnan(transient.step)
    one = phases.lasting_rise(*losses(passing, 1, 0.1), STEPS)
    assert one.verdict == "cannot tell"
    assert "single sample" in one.reason


def summed_up(
    found: phases.Boundary, steps: np.ndarray, step: float, places: list[int], draws: int, units: float
) -> None:
    """Check what a boundary says of the places at which draws have it."""
    np.testing.assert_equal(found.step, step)
    assert found.support == len(places) / draws
    ends = [np.nan] * 2
    if places:
        middle = np.median(places) if np.isnan(step) else steps.tolist().index(step)
        ends = [steps[round(end)] for end in stretched(places, middle, units, (0, len(steps) - 1))]
    np.testing.assert_equal([found.low, found.high], ends)


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("noise", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("steps", [STEPS, STEPS[[0, 4, 7]]])
def test_a_peak_is_that_of_each_draw(steps: np.ndarray, noise: float, lowest: bool) -> None:
    """One draw after the other; its samples in pairs that are drawn together."""
    h, sign, verdicts = RISE_AND_FALL[np.isin(STEPS, steps)], -1 if lowest else 1, set()
    for seed in range(3):
        part, whole = strengths(1 - h if lowest else h, 12, noise, seed)
        groups, t = np.arange(12) // 2, len(steps)
        found = phases.peak(part, whole, steps, lowest=lowest, groups=groups, seed=seed)
        best = int(np.argmax(sign * part.sum(1) / whole.sum(1)))
        places, rises, falls = [], [], []
        every = (sign * part.sum(1) / whole.sum(1)).tolist()
        for count in bootstrap_counts(12, 1000, seed, groups).astype(np.float64):
            drawn = (sign * (part @ count) / (whole @ count)).tolist()
            rises, falls = [*rises, drawn[best] - drawn[0]], [*falls, drawn[best] - drawn[-1]]
            place = drawn.index(max(drawn))
            places += [place] if 0 < place < t - 1 else []
        inside = 0 < best < t - 1
        summed_up(found, steps, steps[best] if inside else np.nan, places, 1000, 6)
        least = [stretched(d, every[best] - every[end], 6, tail=0.05 / t)[0] for d, end in ((rises, 0), (falls, -1))]
        sure = inside and min(least) > 0
        none = not inside and len(places) <= 50
        assert found.verdict == ("yes" if sure else "no" if none else "cannot tell")
        verdicts.add(found.verdict)
        if found.verdict != "yes" and inside:
            ways = ("fall", "rise") if lowest else ("rise", "fall")
            assert f"does not clearly {ways[0]} before and {ways[1]} after step {steps[best]:g} in" in found.reason
    assert noise > 0.1 or "yes" in verdicts


@pytest.mark.parametrize("of", ["gap", "test"])
@pytest.mark.parametrize(("noise", "in_a_row", "after"), [(0.1, 2, -np.inf), (0.6, 1, 2.0), (1.5, 7, -np.inf)])
@pytest.mark.parametrize("end", [3.0, 0.15, 0.05])
def test_a_rise_is_that_of_each_draw(of: str, noise: float, in_a_row: int, after: float, end: float) -> None:
    gap, t = np.array([0.3, 0.2, 0.1, 0.3, 0.6, 1.0, 2.0, end]), len(STEPS)

    def first(curve: np.ndarray) -> int:
        for i in range(t - in_a_row):
            if STEPS[i] >= after and all(curve[j + 1] > curve[j] for j in range(i, i + in_a_row)):
                return i
        return -1

    for seed in range(3):
        train, test = losses(gap, 5, noise, seed)
        test, pairs = test[:, :4], np.array([0, 0, 1, 1])
        found = phases.lasting_rise(
            train, test, STEPS, of=of, in_a_row=in_a_row, after=after, test_groups=pairs, seed=seed
        )
        seeds = np.random.default_rng(seed).integers(2**31, size=2)
        counts = [bootstrap_counts(5, 1000, int(seeds[0])), bootstrap_counts(4, 1000, int(seeds[1]), pairs)]
        start, places, later = first(test.mean(1) - (of == "gap") * train.mean(1)), [], []
        for a, b in zip(*(c.astype(np.float64) for c in counts), strict=True):
            curve = test @ b / b.sum() - (of == "gap") * (train @ a / a.sum())
            later += [curve[-1] - curve[start]]
            places += [first(curve)] if first(curve) >= 0 else []
        every = test.mean(1) - (of == "gap") * train.mean(1)
        least, most = stretched(later, every[-1] - every[start], 2, tail=0.05)
        if start >= 0 and most <= 0:
            assert (found.verdict, found.support) == ("no", len(places) / 1000)
            continue
        summed_up(found, STEPS, STEPS[start] if start >= 0 else np.nan, places, 1000, 2)
        sure, none = start >= 0 and least > 0 and len(places) >= 950, start < 0 and len(places) <= 50
        assert found.verdict == ("yes" if sure else "no" if none else "cannot tell")


@pytest.mark.parametrize(("risen", "verdict"), [(100, "yes"), (99, "yes"), (98, "cannot tell")])
@pytest.mark.parametrize("lowest", [False, True])
def test_all_but_one_in_a_hundred_draws_have_to_agree_of_five_checkpoints(
    risen: int, verdict: str, lowest: bool
) -> None:
    """A draw that is as large at an end as at the maximum has not risen, or not fallen."""
    curve = np.array([0.0, 1, 3, 2, 0])
    for end in (0, -1):
        drawn = np.tile(curve, (100, 1))
        drawn[risen:, end] = drawn[risen:, 2]
        found = phases.peak_of(*((1 - x if lowest else x) for x in (curve, drawn)), STEPS[:5], 100, lowest=lowest)
        assert (found.step, found.verdict) == (2, verdict)


@pytest.mark.parametrize(("undefined", "told"), [(0, True), (1, True), (2, False)])
def test_one_in_twenty_draws_may_be_undefined(undefined: int, told: bool) -> None:
    drawn = np.tile([0.0, 3, 1], (20, 1))
    drawn[:undefined, 1] = np.nan
    found = phases.peak_of([0.0, 3, 1], drawn, STEPS[:3], 20)
    assert (found.verdict == "yes") == told
    assert ("too few samples" in found.reason) == (not told)
    assert "too few samples" in phases.peak_of([0.0, 3, 1], drawn[:0], STEPS[:3], 20).reason


def test_what_stays_equal_has_not_risen() -> None:
    train, test = np.zeros((8, 9)), np.array([1.0, 1, 1, 2, 3, 4, 1, 1])[:, None].repeat(9, 1)
    assert phases.lasting_rise(train, train, STEPS, in_a_row=1).verdict == "no"
    back = phases.lasting_rise(train, test, STEPS)
    assert (back.verdict, back.support) == ("no", 1)
    assert "rises 3 times from step 2 on, but ends below" in back.reason
    for few in ((1, 9), (9, 1)):
        one = phases.lasting_rise(train[:, : few[0]], test[:, : few[1]], STEPS)
        assert "single sample" in one.reason


@pytest.mark.parametrize(("samples", "told"), [(1, False), (2, False), (4, True)])
def test_a_change_has_limits_where_nineteen_of_twenty_draws_have_a_ratio(samples: int, told: bool) -> None:
    """Of twelve samples so many have any strength: 63, 86 and 98 % of draws hold one of these."""
    part, whole = strengths(RISE_AND_FALL, 12, 0.1)
    part[:, samples:] = whole[:, samples:] = 0
    found = phases.change(part, whole, STEPS, 0, 8)
    assert np.isfinite(found.estimate)
    assert (np.isfinite([found.low, found.high]) == told).all()


def test_a_change_is_that_of_each_draw() -> None:
    part, whole = strengths(RISE_AND_FALL, 6, 0.3)
    groups = [0, 0, 1, 2, 3, 3]
    found = phases.change(part, whole, STEPS, 16, 1, groups=groups, seed=4)
    counts = bootstrap_counts(6, 1000, 4, groups).astype(np.float64)
    h = (counts @ part[[5, 1]].T) / (counts @ whole[[5, 1]].T)
    np.testing.assert_allclose([found.low, found.high], stretched(h[:, 1] - h[:, 0], found.estimate, 3.6))


def test_the_fewest_samples_and_checkpoints_that_tell() -> None:
    part, whole = strengths(RISE_AND_FALL, 2, 0.0)
    assert phases.peak(part, whole, STEPS).verdict == "yes"
    assert phases.lasting_rise(*losses(np.arange(8.0), 2, 0.0), STEPS, in_a_row=7).verdict == "yes"
    three = [0, 4, 7]
    assert phases.peak(part[three], whole[three], STEPS[three]).step == 8
    whole[:, 0] = part[:, 0] = 0  # a quarter of the draws have this sample alone
    assert "too few samples" in phases.peak(part, whole, STEPS).reason


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: phases.peak(a[:2], a[:2], STEPS[:2]), "at least 3"),
        (lambda a: phases.peak(a, a, STEPS[[0, 0, *range(2, 8)]]), "ascending"),
        (lambda a: phases.peak(a[:, :0], a[:, :0], STEPS), "must have shape"),
        (lambda a: phases.lasting_rise(a, a, STEPS, in_a_row=0), "in_a_row"),
        (lambda a: phases.peak(a, a[:, :2], STEPS), "one shape"),
        (lambda a: phases.peak(a[:5], a[:5], STEPS), "8 checkpoints"),
        (lambda a: phases.peak(a, a, STEPS[::-1]), "ascending"),
        (lambda a: phases.peak(a * np.nan, a, STEPS), "diverged"),
        (lambda a: phases.lasting_rise(a, a, STEPS, in_a_row=8), "between 1 and 7, the rises there are, got 8"),
        (lambda a: phases.lasting_rise(a[:, :0], a, STEPS), "train_loss must have shape"),
        (lambda a: phases.lasting_rise(a, a, STEPS, of="train"), "of must be"),
    ],
)
def test_bad_input_is_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.ones((8, 4)))


def test_a_change_is_that_of_the_ratio_and_has_an_interval() -> None:
    part, whole = strengths(RISE_AND_FALL, 80, 0.1)
    found = phases.change(part, whole, STEPS, 0, 8)
    expected = part[4].sum() / whole[4].sum() - part[0].sum() / whole[0].sum()
    assert found.estimate == pytest.approx(expected, rel=1e-12)
    assert 0 < found.low < found.estimate < found.high < 1
    alone = phases.change(part[:, :1], whole[:, :1], STEPS, 0, 8)
    assert np.isnan(alone.low)
    nothing = phases.change(part * 0, whole * 0, STEPS, 0, 8)
    assert np.isnan([nothing.estimate, nothing.low]).all()
    same = phases.change(part, whole, STEPS, 8, 8)
    assert same.estimate == 0
    assert np.isnan(same.low), "draws that agree tell no spread"


def test_intervals_of_changes_hold_the_truth() -> None:
    """Of 100 worlds whose H does not change, 95 % or so have an interval about 0."""
    flat, held = np.full(3, 0.5), 0
    for seed in range(100):
        found = phases.change(*strengths(flat, 40, 0.2, seed), [0, 1, 2], 0, 2, seed=seed)
        held += found.low <= 0 <= found.high
    assert held / 100 >= 0.87


def test_any_curve_with_draws_has_a_peak() -> None:
    part, whole = strengths(RISE_AND_FALL, 50, 0.1)
    counts = np.random.default_rng(0).multinomial(50, np.full(50, 0.02), 300)
    curve, draws = part.sum(1) / whole.sum(1), (counts @ part.T) / (counts @ whole.T)
    found = phases.peak_of(curve, draws, STEPS, 50, what="the share")
    assert (found.step, found.verdict) == (8, "yes")
    assert "the share rises before step 8" in found.reason
    with pytest.raises(ValueError, match="8 checkpoints"):
        phases.peak_of(curve[:5], draws, STEPS, 50)
