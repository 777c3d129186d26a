"""When a search for terms gives up: after three rounds in a row without one, or beyond two thousand terms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from featdyn.statistics.interactions.recovery.model import Terms
from featdyn.statistics.interactions.recovery.queries import Queries
from featdyn.statistics.interactions.recovery.search import Search, random_masks


class Stuck(Search):
    """A search in which something is always left, and each round finds so many terms as it is told."""

    def told(self, found: list[int]) -> Stuck:
        self.found, self.rounds, self.left = found, 0, True
        return self

    def _stored(self) -> Any:
        return np.array([1.0 if self.left else 0.1]), np.zeros(1)

    def _narrowed(self, mask: Any) -> Any:
        return mask

    def _side_by_side(self, searches: list[Any], threshold: float) -> Any:
        assert len(searches) == 8
        self.rounds += 1
        return [None] * (self.found.pop(0) if self.found else 0)

    def _explain(self, masks: Any) -> None:
        self.terms.masks.append(masks)

    def _look(self, threshold: float = np.inf) -> bool:
        return False


def search(found: list[int], terms: int = 0) -> Stuck:
    held: Any = SimpleNamespace(masks=[None] * terms)
    queries: Any = SimpleNamespace(masks=np.ones((1, 4), bool))
    return Stuck(queries, held, 0.0, 2, 1, 1, np.random.default_rng(0)).told(found)


@pytest.fixture(autouse=True)
def subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featdyn.statistics.interactions.recovery.search._subsets", lambda mask: mask)


@pytest.mark.parametrize(("found", "rounds"), [([], 3), ([0, 0, 1], 6), ([2, 0, 1, 0, 0, 1], 9)])
def test_three_rounds_in_a_row_without_a_term_are_the_end(found: list[int], rounds: int) -> None:
    stuck = search(found)
    assert not stuck._at(0.5)
    assert stuck.rounds == rounds


@pytest.mark.parametrize(("terms", "rounds"), [(1999, 2), (2000, 1), (2001, 0)])
def test_beyond_two_thousand_terms_a_function_is_not_sparse(terms: int, rounds: int) -> None:
    stuck = search([1] * 9, terms)
    assert not stuck._at(0.5)
    assert stuck.rounds == rounds


def test_what_exceeds_no_threshold_is_explained() -> None:
    stuck = search([])
    stuck.left = False
    assert stuck._at(0.5)
    assert stuck.rounds == 0
    assert not stuck._at(0.05)


def test_what_is_left_of_all_answers_follows_terms_that_are_added_and_fitted() -> None:
    """It is kept between looks, and computed anew only where answers or terms are new."""
    rng = np.random.default_rng(0)
    queries = Queries(
        lambda m: 1.0 + m[:, 0] + 3.0 * m[:, 1] * m[:, 2] + 0.1 * rng.normal(size=len(m)), 5, swapped=False, most=999
    )
    terms = Terms(1.0, 0.1, 4, 5)
    kept = Search(queries, terms, 0.5, 2, 1, 1, np.random.default_rng(1))
    masks = random_masks(60, 5, np.random.default_rng(2))
    for k, change in enumerate(
        [
            lambda: queries.ask(masks[:20], 2),
            kept.single_variables,
            lambda: kept._explain(np.array([[False, True, True, False, False]])),
            lambda: queries.ask(masks[20:], 1),
            lambda: terms.fit(queries.masks, queries.values, queries.times),
            lambda: queries.ask(masks[:9], 4),
        ]
    ):
        change()
        wanted = terms.left(queries.masks, queries.values, queries.times)
        for _ in range(2):
            np.testing.assert_allclose(kept._stored(), wanted, atol=1e-12)
        assert len(terms.masks) == [0, 1, 2, 2, 2, 2][k]
