"""Measures over pairs of checkpoints: planted memory is read back, and definitions hold word for word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featdyn.analysis.composites.consistency import ConsistencyOptions
from featdyn.analysis.composites.consistency import memory as pairs
from featdyn.analysis.composites.consistency.per_set import measures
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.statistics.ratios import ratio_interval
from tests.strategies import sizes

RIGHT = st.tuples(sizes(1, 5), sizes(1, 7)).flatmap(lambda s: arrays(np.bool_, (s[0], s[0], s[1])))


def planted(memory: np.ndarray, learnt: np.ndarray, checkpoints: int) -> np.ndarray:
    """Probe n is right from checkpoint learnt[n] on, with prefixes no more than memory[n] checkpoints old."""
    t1, t2 = np.arange(checkpoints)[:, None, None], np.arange(checkpoints)[None, :, None]
    return (t2 >= learnt) & (np.abs(t2 - t1) <= memory)


def test_a_planted_horizon_is_read_back():
    rng = np.random.default_rng(0)
    memory, learnt = rng.integers(0, 9, 50), rng.integers(0, 6, 50)
    found = pairs.horizon(planted(memory, learnt, 8))
    t2 = np.arange(8)[:, None]
    np.testing.assert_array_equal(found, np.where(t2 < learnt, -1, np.minimum(memory, t2)))
    steps = np.array([0, 1, 4, 10, 20, 40, 80, 160])
    wanted = np.where(found < 0, np.nan, steps[t2] - steps[np.clip(t2 - found, 0, 7)])
    np.testing.assert_array_equal(pairs.horizon_steps(found, steps), wanted)


def test_planted_forgetting_is_read_back():
    # Checkpoint 0 has all ten right; with the suffix of checkpoint 1 its prefix loses three of them and no more.
    right = np.ones((2, 2, 10), bool)
    right[0, 1, :3] = False
    known = np.ones_like(right)
    np.testing.assert_allclose(pairs.forgetting(right, known), [[0, 0.3], [0, 0]])
    np.testing.assert_allclose(pairs.particle_forgetting(right, known), [[0, 0.3], [0, 0]])
    np.testing.assert_allclose(ratio_interval(right, right[[0, 1], [0, 1]][:, None]).estimate, [[1, 0.7], [1, 1]])
    unseen = pairs.accuracy(right[..., 3:], known[..., 3:])
    np.testing.assert_allclose(pairs.transferability(unseen, pairs.accuracy(right, known)), [[1, 1 / 0.7], [1, 1]])
    known[0, 1, :2] = False  # of the eight that have a prediction with either suffix one is lost
    np.testing.assert_allclose(pairs.forgetting(right & known, known), [[0, 1 / 8], [0, 0]])
    np.testing.assert_allclose(pairs.particle_forgetting(right & known, known), [[0, 1 / 8], [0, 0]])


def test_particles_may_be_forgotten_where_accuracy_is_not():
    right = np.array([[[1, 0], [0, 1]], [[1, 1], [0, 1]]], bool)  # the prefix of 0 has one right with either suffix
    known = np.ones_like(right)
    assert pairs.forgetting(right, known)[0, 1] == 0
    assert pairs.particle_forgetting(right, known)[0, 1] == 0.5


@settings(deadline=None, max_examples=60)
@given(RIGHT)
def test_definitions(right):
    t, _, n = right.shape
    horizon = pairs.horizon(right)
    for t2 in range(t):
        for i in range(n):
            s = horizon[t2, i]
            assert all(right[t2 - k, t2, i] for k in range(s + 1))
            assert s == t2 or not right[t2 - s - 1, t2, i]
    known = np.ones_like(right)
    gap = pairs.by_gap(right, known, range(t), range(1 - t, t))
    for k, s in enumerate(range(1 - t, t)):
        own = [right[t2 - s, t2].mean() for t2 in range(t) if 0 <= t2 - s < t]
        assert gap[k].mean() == pytest.approx(np.mean(own))
    assert (pairs.particle_forgetting(right, known) >= pairs.forgetting(right, known) - 1e-12).all()
    assert (np.diagonal(pairs.forgetting(right, known)) == 0).all()


def test_empty_sets_and_networks_that_are_never_right():
    assert np.isnan(pairs.accuracy(*np.zeros((2, 2, 2, 0), bool))).all()
    found = ratio_interval(np.zeros((2, 3), bool), np.zeros((2, 3), bool))
    assert np.isnan([found.estimate, found.low, found.high]).all()


@pytest.mark.parametrize("copies", [1, 4])
def test_intervals_of_retention_hold_the_truth_as_often_as_they_say(copies):
    """With copies of one image too, which are no independent samples."""
    rng, hits, groups = np.random.default_rng(1), [], np.repeat(np.arange(200), copies)
    for _ in range(400):
        own = rng.random(200) < 0.8
        kept = own & (rng.random(200) < 0.75)  # retention 0.75
        found = ratio_interval(np.repeat(kept, copies), np.repeat(own, copies), groups=groups)
        hits.append(found.low <= 0.75 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.985


def test_intervals_of_retention_have_a_width_where_all_is_right_or_lost():
    all_right, low = np.ones(50, bool), 50 / (50 + 1.959964**2)  # Wilson's lower limit of 50 of 50
    found = ratio_interval(all_right, all_right)
    assert (found.low, found.high) == pytest.approx((low, 1 / low), rel=1e-6)
    lost = ratio_interval(~all_right, all_right)
    assert lost.estimate == lost.low == 0 < lost.high < 0.1


def test_measures_of_every_cut_and_set():
    rng = np.random.default_rng(2)
    right = rng.random((2, 4, 4, 30)) < 0.6
    labels = np.arange(30) % 3
    members = [np.arange(30) < 20, np.arange(30) >= 20]
    sets, steps = ProbeSets(["train", "test"], members, np.arange(30)), np.array([0, 3, 9, 27])
    found = measures(right, np.ones_like(right), labels, steps, sets, ConsistencyOptions(), 4, members[0])
    for c in range(2):
        for s, m in enumerate(members):
            cell = found.isel(cut=c, set=s)
            mine = right[c][..., m]
            np.testing.assert_allclose(cell["accuracy"], mine.mean(-1))
            assert (cell["accuracy_low"] <= cell["accuracy"] + 1e-12).all()
            assert (cell["accuracy"] <= cell["accuracy_high"] + 1e-12).all()
            np.testing.assert_allclose(cell["class_accuracy"].sel({"class": 1}), mine[..., labels[m] == 1].mean(-1))
            np.testing.assert_allclose(cell["transferability"], mine.mean(-1) / right[c][..., members[0]].mean(-1))
            # The window is the last half: t2 = 2 and 3.
            assert cell["gap_accuracy"].sel(lag=-1) == pytest.approx(mine[3, 2].mean())
            assert cell["gap_accuracy"].sel(lag=1) == pytest.approx((mine[1, 2].mean() + mine[2, 3].mean()) / 2)
            horizon = pairs.horizon(right[c])[:, m].astype(float)
            own = [h[h >= 0].mean() for h in horizon]
            np.testing.assert_allclose(cell["horizon"], own)
    again = measures(right, np.ones_like(right), labels, steps, sets, ConsistencyOptions(), 4, members[0])
    assert found.identical(again)


def test_gap_curves_of_the_constant_phase_leave_out_what_came_later():
    rng = np.random.default_rng(3)
    right, labels = rng.random((1, 5, 5, 12)) < 0.5, np.zeros(12, int)
    sets, steps = ProbeSets(["probes"], [np.ones(12, bool)], np.arange(12)), np.arange(5)
    options = ConsistencyOptions(phase="constant", window=1.0)
    found = measures(right, np.ones_like(right), labels, steps, sets, options, 3)
    alone = measures(right[:, :3, :3], np.ones_like(right[:, :3, :3]), labels, steps[:3], sets, options, 3)
    for name in ("gap_accuracy", "gap_accuracy_low"):
        np.testing.assert_array_equal(found[name], alone[name])
    assert found["lag"].values.tolist() == [-2, -1, 0, 1, 2]
    assert found.sizes["t1"] == 5
