"""How far moves are from the length that was wanted: of probes that were moved, and had a length to be moved by."""

from __future__ import annotations

import pytest
import torch

from featdyn.analysis.composites.controls.perturbations import lengths, norm_error


@pytest.mark.parametrize(
    ("moves", "sizes", "wanted"),
    [
        ([[3.0, 4.0], [0.0, 2.0]], [5.0, 2.0], 0.0),
        ([[3.0, 4.0], [0.0, 2.0]], [4.0, 2.0], 0.25),  # a quarter too long
        ([[3.0, 4.0], [0.0, 2.0]], [10.0, 2.5], 0.5),  # half as long; the largest counts
        ([[0.0, 0.0], [0.0, 2.0]], [5.0, 2.0], 0.0),  # who has no partner is not moved
        ([[3.0, 4.0], [0.0, 2.0]], [0.0, 2.0], 0.0),  # of what did not drift there is no share
        ([[3.0, 4.0], [0.0, 2.0]], [float("inf"), 2.0], 0.0),
        ([[3.0, 4.0], [0.0, 2.0]], [float("nan"), 2.0], 0.0),
        ([[0.0, 0.0]], [0.0], 0.0),
    ],
)
def test_the_largest_share_by_which_a_length_is_missed(
    moves: list[list[float]], sizes: list[float], wanted: float
) -> None:
    new = torch.tensor([[10.0, -7.0], [0.5, 1.0]])[: len(moves)]
    found = norm_error(new + torch.tensor(moves), new, torch.tensor(sizes, dtype=torch.float64))
    assert found == pytest.approx(wanted, abs=1e-6)


def test_lengths_are_norms_of_all_features_of_a_probe_in_float64() -> None:
    values = torch.full((2, 3, 4), 2.0**70)
    assert lengths(values).tolist() == [12**0.5 * 2.0**70] * 2
    assert lengths(values).dtype == torch.float64
