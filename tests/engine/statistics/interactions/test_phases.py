"""Boundaries of phases where there are some, where there are none, and where samples cannot tell."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions import phases

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
    assert "step 4" in found.reason
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: phases.peak(a, a[:, :2], STEPS), "one shape"),
        (lambda a: phases.peak(a[:5], a[:5], STEPS), "8 checkpoints"),
        (lambda a: phases.peak(a, a, STEPS[::-1]), "ascending"),
        (lambda a: phases.peak(a * np.nan, a, STEPS), "diverged"),
        (lambda a: phases.lasting_rise(a, a, STEPS, in_a_row=8), "in_a_row"),
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
    found = phases.peak_of(curve, draws, STEPS, what="the share")
    assert (found.step, found.verdict) == (8, "yes")
    assert "the share rises before step 8" in found.reason
    with pytest.raises(ValueError, match="8 checkpoints"):
        phases.peak_of(curve[:5], draws, STEPS)
