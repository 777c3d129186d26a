"""What is asked of a masked function: each mask once, noisy ones as often as told, never more than allowed."""

from __future__ import annotations

import numpy as np
import pytest

from featdyn.statistics.interactions.recovery.queries import Queries, Spent

N = 9  # more than a byte of bits
MASKS = np.eye(N, dtype=bool) | np.eye(N, k=1, dtype=bool)


class Asked:
    """A function whose k-th answer to a mask is its number of variables and k, and which spoils what it is given."""

    def __init__(self) -> None:
        self.times = dict[bytes, int]()
        self.sizes = list[int]()

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        self.sizes.append(len(masks))
        found = []
        for mask in masks:
            self.times[mask.tobytes()] = k = self.times.get(mask.tobytes(), 0) + 1
            found.append(10 * mask.sum() + k)
        masks[:] = False
        return np.array(found, np.float32)


@pytest.mark.parametrize("swapped", [False, True])
def test_only_what_lacks_is_asked(swapped: bool) -> None:
    f = Asked()
    queries = Queries(f, N, swapped=swapped, most=100)
    size = (N - MASKS.sum(1) if swapped else MASKS.sum(1)) * 10.0
    first = MASKS[[0, 1, 0, 2, 1]]  # two of them twice
    values, times = queries.ask(first, 1)
    np.testing.assert_array_equal(values, size[[0, 1, 0, 2, 1]] + 1)
    assert times.tolist() == [1] * 5
    assert (queries.count, queries.calls) == (3, 1)
    values, times = queries.ask(MASKS[[1, 3]], 3)
    np.testing.assert_allclose(values, size[[1, 3]] + 2)
    assert times.tolist() == [3, 3]
    assert (queries.count, queries.calls, f.sizes) == (8, 2, [3, 5])
    assert queries.ask(MASKS[[1, 0]], 1)[1].tolist() == [3, 1]
    assert (queries.count, queries.calls) == (8, 2), "all of that was known"
    np.testing.assert_array_equal(queries.masks, MASKS[:4])
    np.testing.assert_allclose(queries.values, np.add(size[:4], [1, 2, 1, 2]))
    assert queries.times.tolist() == [1, 3, 1, 3]
    np.testing.assert_array_equal(queries.fresh(MASKS[:2]), np.add(size[:2], [2, 4]))
    assert queries.times.tolist() == [1, 3, 1, 3], "not remembered"


def test_a_budget_is_used_up_and_not_exceeded() -> None:
    queries = Queries(Asked(), N, swapped=False, most=5)
    queries.ask(MASKS[:2], 2)
    with pytest.raises(Spent):
        queries.fresh(MASKS[:2])
    queries.fresh(MASKS[:1])
    assert (queries.count, queries.calls) == (5, 2)
    queries.allow(3)
    with pytest.raises(Spent):
        queries.ask(MASKS[2:4], 2)
    values, times = queries.ask(MASKS[4:7], 1)  # others than those that were too many
    assert queries.count == 8
    assert (values > 0).all()
    assert times.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (np.zeros(3), ValueError, r"shape \(2,\) for masks \(2, 9\), got \(3,\)"),
        (np.zeros(2, complex), TypeError, "real numbers, got complex128"),
        (np.array([0, np.inf]), ValueError, r"not finite for masks \(2, 9\)"),
    ],
)
def test_answers_that_are_none_are_refused(answer: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Queries(lambda masks: answer, N, swapped=False, most=9).fresh(MASKS[:2])
