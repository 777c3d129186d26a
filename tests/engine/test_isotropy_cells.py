"""Cells of tests of isotropy: which draws can be tested, what is said of those that can, and how cells are stacked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featdyn.analysis import isotropy_cells
from featdyn.analysis.isotropy_cells import stacked, untestable
from featdyn.analysis.isotropy_variables import DRIFT, SHARES, TESTED, isotropy_variables
from featdyn.statistics import Gram, alignment, isotropy
from featdyn.statistics.family import FAMILY

RNG = np.random.default_rng(0)
TWO = np.array([[1.0, 2.0], [-1.0, 0.5]])


@pytest.mark.parametrize(
    ("draws", "center", "reason"),
    [
        (RNG.standard_normal((3, 5)), "estimated", "too_few_samples"),
        (RNG.standard_normal((4, 5)), "estimated", ""),
        (RNG.standard_normal((3, 5)), "known", "too_few_samples"),
        (RNG.standard_normal((4, 5)), "known", ""),
        (RNG.standard_normal((9, 1)), "known", "one_dimension"),
        (RNG.standard_normal((9, 2)), "known", ""),
        (np.ones((6, 3)), "estimated", "draws_do_not_vary"),
        (np.ones((6, 3)), "known", ""),
        (np.zeros((6, 3)), "known", "draws_do_not_vary"),
        (np.concatenate([TWO[:1], np.zeros((5, 2))]), "known", "draws_do_not_vary"),  # one that is not the centre
        (np.concatenate([TWO, np.zeros((5, 2))]), "known", ""),
    ],
)
def test_draws_can_be_tested_from_four_in_two_dimensions_on(draws: Any, center: Any, reason: str) -> None:
    gram = Gram.of(draws)
    assert untestable(gram, center) == reason
    found = isotropy_cells.tested(gram, center, 0.05, 0)
    assert (found[0], bool(found[1])) == (reason, not reason)
    lost = replace(gram, centred=np.where(np.eye(len(draws)) > 0, gram.centred, np.nan))
    assert untestable(lost, center) == "not_finite"


@pytest.mark.parametrize("center", ["estimated", "known"])
@pytest.mark.parametrize(("n", "p", "power", "counted"), [(40, 3, 2, False), (6, 11, 1, True)])
def test_what_is_said_is_that_of_the_draws_themselves(center: Any, n: int, p: int, power: int, counted: bool) -> None:
    x = np.random.default_rng(n).standard_normal((n, p)) * np.arange(1, p + 1) ** power + 0.1
    _, found = isotropy_cells.tested(Gram.of(x), center, 0.2, 7)
    whole = isotropy(x, center=center, rng=7, alpha=0.2)
    assert (found["verdict"], found["reason"]) == (whole.verdict, whole.reason)
    assert (whole.directions is not None) == counted
    assert found["directions"] == (whole.directions if counted else -1)
    for statistic, p_value, valid, entry in zip(
        found["statistic"], found["pvalue"], found["valid"], whole.tests, strict=True
    ):
        assert valid == entry.valid
        if entry.result is None or not np.isfinite(entry.result.statistic):
            assert np.isnan([statistic, p_value]).all()
        else:
            assert (statistic, p_value) == pytest.approx((entry.result.statistic, entry.result.pvalue))
    spectrum = np.linalg.svd(x - x.mean(0) if center == "estimated" else x, compute_uv=False) ** 2
    assert found["share"] == pytest.approx([spectrum[:k].sum() / spectrum.sum() for k in SHARES])
    assert found["stable_rank"] == pytest.approx(spectrum.sum() / spectrum.max())
    shares = spectrum[spectrum > 1e-9] / spectrum.sum()
    assert found["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert found["participation_ratio"] == pytest.approx(alignment.participation_ratio(x, center=center, unbiased=True))
    biased = alignment.participation_ratio(x, center=center, unbiased=False)
    assert found["participation_ratio"] != pytest.approx(biased)
    for name in ("share_isotropic", "share_isotropic_high", "held_out", "half_overlap"):
        known = [value for value in found[name] if np.isfinite(value)]
        assert all(0 <= value <= 1 + 1e-9 for value in known), name
    assert all(name in found for name in TESTED if name not in ("holm", "benjamini_hochberg"))


def test_p_values_are_adjusted_over_all_cells_of_a_test() -> None:
    rng, cells = np.random.default_rng(3), np.empty((2, 3), object)
    pvalues = rng.random((len(FAMILY), 2, 3)) / 4
    for place in np.ndindex(2, 3):
        cells[place] = "", {"pvalue": pvalues[(slice(None), *place)].tolist(), "verdict": "isotropic", "directions": 0}
    cells[1, 2] = "too_few_samples", {}
    found = stacked("noise", cells, ("layer", "t"))
    assert found.keys() == isotropy_variables("noise", "layer t").keys() | {"noise_status"}
    kept = np.delete(pvalues.reshape(len(FAMILY), 6), 5, axis=1)
    for test, each in enumerate(kept):
        order = np.argsort(each)
        holm, hochberg = np.empty(5), np.empty(5)
        holm[order] = np.minimum(np.maximum.accumulate((5 - np.arange(5)) * each[order]), 1)
        hochberg[order] = np.minimum.accumulate((5 / np.arange(1, 6) * each[order])[::-1])[::-1]
        np.testing.assert_allclose(found["noise_holm"].values[test].ravel()[:5], holm)
        np.testing.assert_allclose(found["noise_benjamini_hochberg"].values[test].ravel()[:5], hochberg)
    assert found["noise_holm"].dims == ("test", "layer", "t")
    assert np.isnan(found["noise_holm"].values[:, 1, 2]).all()
    assert found["noise_status"].values.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert found["noise_share"].shape == (len(SHARES), 2, 3)
    missing = {name: found[f"noise_{name}"].values[1, 2] for name in ("verdict", "reason", "directions")}
    assert missing == {"verdict": "undecided", "reason": "too few samples", "directions": -1}
    assert not found["noise_valid"].values.any()
    assert found["noise_valid"].dtype == bool
    assert found["noise_directions"].values[0, 0] == 0


def test_tables_beside_the_first_are_stacked_too() -> None:
    cells = np.empty(2, object)
    cells[0], cells[1] = ("", {"drift_pvalue": [0.5, 0.25, 0.125]}), ("does_not_move", {})
    found = stacked("x", cells, ("t",), DRIFT)
    assert set(found) == {*isotropy_variables("x", "t", DRIFT), "x_status"}
    np.testing.assert_array_equal(found["x_drift_pvalue"].values, [[0.5, np.nan], [0.25, np.nan], [0.125, np.nan]])
