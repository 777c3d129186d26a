"""A layer's interactions beside the output's, one subset after the other."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions import compare_layer, stability
from tests.engine.statistics.interactions import worlds

N = 4


def pair(samples: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    output = np.stack([worlds.planted(N, 5, rng, (1, 3)) for _ in range(samples)])
    return 0.7 * output + np.stack([worlds.planted(N, 3, rng) for _ in range(samples)]), output


def test_overlap_forgotten_and_new_are_sums_over_subsets() -> None:
    layer, output = pair()
    found = compare_layer(worlds.model(layer), worlds.model(output), threshold_share=0.2)
    units = [np.abs(x.sum((-2, -1))).mean() for x in (layer, output)]
    expected = np.zeros((5, 3, N))
    for k, op, s in np.ndindex(*layer.shape):
        if not s:
            continue
        a, b = layer[k, op, s] / units[0], output[k, op, s] / units[1]
        in_layer = a != 0 and abs(layer[k, op, s]) >= 0.2 * np.abs(layer[k]).max()
        in_output = b != 0 and abs(output[k, op, s]) >= 0.2 * np.abs(output[k]).max()
        shared = np.sign(a) * min(abs(a), abs(b)) if a * b > 0 else 0.0
        at = s.bit_count() - 1
        expected[0, k, at] += abs(shared) * (in_layer and in_output)
        expected[1, k, at] += abs(a - shared) * in_layer
        expected[2, k, at] += abs(b - shared) * in_output
        expected[3, k, at] += abs(a) * in_layer
        expected[4, k, at] += abs(b) * in_output
    for name, values in zip(("overlap", "forget", "new", "layer", "output"), expected, strict=True):
        np.testing.assert_allclose(getattr(found, name), values, atol=1e-12)
    overlap, forget, _, in_layer, in_output = expected.sum(1)
    some = in_output > 0
    np.testing.assert_allclose(found.completeness[some], overlap[some] / in_output[some])
    some = in_layer > 0
    np.testing.assert_allclose(found.redundancy[some], forget[some] / in_layer[some])


def test_a_layer_beside_itself_is_complete_and_not_redundant() -> None:
    output = worlds.model(pair()[1])
    same, opposite = compare_layer(output, output), compare_layer(worlds.model(-pair()[1]), output)
    np.testing.assert_allclose(same.completeness[:3], 1)
    np.testing.assert_allclose(same.redundancy[:3], 0, atol=1e-12)
    assert np.isnan(same.completeness[3]), "nothing of order 4"
    np.testing.assert_allclose(opposite.completeness[:3], 0)
    np.testing.assert_allclose(opposite.redundancy[:3], 1)


def test_units_are_those_of_each_network() -> None:
    layer, output = pair()
    plain = compare_layer(worlds.model(layer), worlds.model(output))
    scaled = compare_layer(worlds.model(1e-3 * layer), worlds.model(1e3 * output))
    for name in ("overlap", "forget", "new", "layer", "output"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(plain, name), rtol=1e-9)


def test_stability_of_two_draws_of_one_sample() -> None:
    draws = np.random.default_rng(2).normal(size=(2, 2, 2**N))
    order = np.array([s.bit_count() for s in range(2**N)])
    kept = np.random.default_rng(3).uniform(size=draws[0].shape) < 0.5
    kept[:, order == 2] = False
    each = np.abs(draws.mean(0)) / (np.abs(draws[0] - draws[1]) / np.sqrt(2))
    found = stability(draws, kept)
    for k in range(1, N + 1):
        at = kept & (order == k)
        assert found[k - 1] == pytest.approx(each[at].mean() if at.any() else np.nan, nan_ok=True)
    with pytest.raises(ValueError, match="shape"):
        stability(draws[0])


def test_stability_is_mean_over_spread() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(2, 0.5, size=(6, 3, 2, 2**N))
    draws[..., -1] = 1.0  # never varies
    found = stability(draws)
    at = [s for s in range(2**N) if s.bit_count() == 2]
    expected = np.abs(draws.mean(0)) / draws.std(0, ddof=1).clip(1e-300)
    np.testing.assert_allclose(found[:, 1], expected[..., at].mean((-2, -1)))
    assert np.isnan(found[:, -1]).all()
    with pytest.raises(ValueError, match="2 draws"):
        stability(draws[:1])


def test_what_has_no_unit_or_other_samples_is_refused() -> None:
    layer, output = (worlds.model(x) for x in pair())
    with pytest.raises(ValueError, match="no unit"):
        compare_layer(worlds.model(np.zeros_like(pair()[0])), output)
    with pytest.raises(ValueError, match="one shape"):
        compare_layer(worlds.model(pair(2)[0]), output)
    assert compare_layer(layer, output).overlap.shape == (3, N)
