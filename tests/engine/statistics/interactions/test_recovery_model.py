"""A sum of AND terms beside least squares and ridges that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions.recovery.model import Terms, contained

N = 6
RNG = np.random.default_rng(0)
MASKS = RNG.random((80, N)) < 0.6
ROWS = np.eye(N, dtype=bool)[:4] | np.eye(N, k=1, dtype=bool)[:4] * (np.arange(4) > 1)[:, None]
"""Terms of one and of two variables."""


def active(rows: np.ndarray) -> np.ndarray:
    return np.array([[all(mask[row]) for row in rows] for mask in MASKS], float).reshape(len(MASKS), len(rows))


def held(noise: float = 0.5, times: int = 4) -> Terms:
    """Three terms, added at once: what they leave is theirs."""
    terms = Terms(0.3, noise, times, N)
    terms.add(ROWS[:3], np.array([5.3, -3.7, 2.3]), np.array([1.0, 4.0, 9.0]), 0.1)
    return terms


def test_a_term_is_active_where_all_of_its_variables_are_present() -> None:
    np.testing.assert_array_equal(contained(ROWS, MASKS), active(ROWS))
    np.testing.assert_array_equal(contained(ROWS[:0], MASKS), np.zeros((80, 0)))


def test_what_is_left_and_what_noise_explains_of_it() -> None:
    terms, times = held(), np.arange(1.0, 81)
    values = RNG.normal(size=80)
    np.testing.assert_allclose(terms.coefficients, [5, -4, 2])
    variances = 0.25 / np.array([1.0, 4, 9]) + 0.25 / 4  # of the answers and of the bias
    left, by_chance = terms.left(MASKS, values, times)
    on = active(ROWS[:3])
    np.testing.assert_allclose(left, values - 0.3 - on @ [5, -4, 2])
    np.testing.assert_allclose(by_chance, 6 * np.sqrt(0.25 / times + 0.25 / 4 + on @ variances))
    later = terms.predicted(MASKS, 2)
    np.testing.assert_allclose(later, [on[:, 2] * 2, on[:, 2] * variances[2]])
    np.testing.assert_allclose(terms.left(MASKS, values, times, later)[0], values - 0.3 - on[:, 2] * 2)


@pytest.mark.parametrize(
    ("noise", "least", "kept"),
    [(0.0, 0.7, [2.0]), (0.0, 0.69, [2.0, 0.7]), (0.1, 0.1, [2.0, 0.7]), (0.1, 0.7, [2.0]), (0.102, 0.1, [2.0])],
)
def test_terms_are_what_exceeds_the_least_and_the_noise(noise: float, least: float, kept: list[float]) -> None:
    """Six standard deviations of one answer and a bias of three: 6 noise sqrt(4 / 3), which is 0.693 of 0.1."""
    terms = Terms(0.0, noise, 3, N)
    terms.add(ROWS[:3], np.array([0.69, 2.0, 0.7]), np.ones(3), least)
    np.testing.assert_allclose(terms.coefficients, kept)
    assert len(terms.masks) == len(kept)


def test_a_fit_is_least_squares_with_weights_without_what_they_do_not_support() -> None:
    rng = np.random.default_rng(1)
    terms, times = held(0.5), rng.integers(1, 5, 80).astype(float)
    terms.add(ROWS[3:], np.array([9.0]), np.ones(1), 0.1)
    on = active(ROWS)
    values = 1.0 + on @ [2.0, -3, 0, 1.5] + 0.5 * rng.normal(size=80) / np.sqrt(times)
    supported = [0, 1, 3]
    design, root = np.c_[np.ones(80), on[:, supported]], np.sqrt(times)
    expected = np.linalg.lstsq(design * root[:, None], values * root)[0]
    errors = np.diag(np.linalg.inv(design.T @ (times[:, None] * design))) * 0.25
    terms.fit(MASKS, values, times)
    assert terms.fits == 1
    np.testing.assert_array_equal(terms.masks, ROWS[supported])
    np.testing.assert_allclose(np.r_[terms.bias, terms.coefficients], expected)
    spread = terms.left(MASKS, values, times)[1] ** 2 / 36 - 0.25 / times
    np.testing.assert_allclose(spread, errors[0] + on[:, supported] @ errors[1:])


@pytest.mark.parametrize("noise", [0.05, 1.0, 5.0])
@pytest.mark.parametrize("samples", [80, 20, 12, 11])
def test_the_fit_of_what_is_not_sparse_is_a_ridge_of_least_cross_validation(noise: float, samples: int) -> None:
    """Of all terms of up to so many variables, where they are at most half as many as the values."""
    masks, rng = MASKS[:samples], np.random.default_rng(2)
    rows = np.concatenate(
        [np.eye(N, dtype=bool), *(np.eye(N, dtype=bool)[i] | np.eye(N, dtype=bool) for i in range(2))]
    )
    rows = np.unique(rows, axis=0)
    values = masks @ rng.normal(size=N) + 0.3 * np.sin(9 * masks.sum(1)) + noise * rng.normal(size=samples)
    best, expected = np.inf, np.full(samples, values.mean())
    for order in (1, 2):
        kept = rows[rows.sum(1) <= order]
        if len(kept) > samples // 2:
            continue
        x = active(kept)[:samples]
        x = x - x.mean(0)
        for share in np.geomspace(1e-8, 1, 33):
            penalty = share * np.linalg.norm(x, 2) ** 2
            hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(len(kept)), x.T) + 1 / samples
            error = np.square(values - hat @ values).sum() / (samples - np.trace(hat)) ** 2
            if error < best * (1 - 1e-9):
                best, expected = error, hat @ values
    terms = Terms(0.0, 0.0, 1, N)
    terms.add(rows, np.arange(1.0, len(rows) + 1), np.ones(len(rows)), 0.0)
    terms.approximate(masks, values)
    np.testing.assert_allclose(terms.bias + terms.predicted(masks)[0], expected, atol=1e-6)
    assert not terms.predicted(masks)[1].any()
