"""Sizes at nominal 5 % and powers, as the method note's simulations gave them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from featdyn.statistics import Gram, sphericity
from tests.engine.statistics import laws

TESTS = (
    "john",
    "ledoit_wolf",
    "srivastava",
    "fisher",
    "chen_zhang_zhong",
    "mauchly",
    "corrected_lrt",
    "quasi_lrt",
    "sign_test",
)
NONE = float("nan")
# Rows: n, p, law, replicates; centre estimated, except for the sign test, whose size is that of its normal limit.
TABLE: list[tuple[int, int, Callable[..., np.ndarray], int, tuple[float, ...]]] = [
    (200, 10, laws.gaussian, 2000, (0.050, 0.056, 0.056, 0.055, 0.055, 0.050, 0.055, NONE, 0.058)),
    (200, 100, laws.gaussian, 2000, (0.047, 0.049, 0.048, 0.054, 0.052, 0.313, 0.051, NONE, 0.052)),
    (64, 512, laws.gaussian, 2000, (0.049, 0.049, 0.049, 0.058, 0.057, NONE, NONE, 0.074, 0.050)),
    (50, 2000, laws.gaussian, 600, (0.052, 0.052, 0.050, 0.053, 0.060, NONE, NONE, 0.060, 0.053)),
    (128, 1024, laws.heavy_coordinates, 2000, (0.761, 0.761, 0.761, 0.320, 0.050, NONE, NONE, 0.788, 0.049)),
    (128, 64, laws.elliptical, 2000, (1.0, 1.0, 1.0, 1.0, 0.118, 1.0, 1.0, NONE, 0.054)),
    (64, 512, laws.elliptical, 2000, (1.0, 1.0, 1.0, 1.0, 0.121, NONE, NONE, 1.0, 0.054)),
]


def measure(n: int, p: int, law: Callable[..., np.ndarray], replicates: int) -> dict[str, float]:
    rng = np.random.default_rng([n, p, replicates])
    rejected = dict.fromkeys(TESTS, 0)
    for _ in range(replicates):
        gram = Gram.of(law(rng, n, p))
        for name in TESTS:
            if (name in ("mauchly", "corrected_lrt") and p >= n - 1) or (name == "quasi_lrt" and p <= n - 1):
                continue
            if name == "sign_test":
                result = sphericity.sign_test(gram.about("known"), center="known")
                rejected[name] += result.extras["normal_pvalue"] <= 0.05
            else:
                rejected[name] += getattr(sphericity, name)(gram.about("estimated")).pvalue <= 0.05
    return {name: count / replicates for name, count in rejected.items()}


def compare(row: int, share: float) -> None:
    n, p, law, noted, expected = TABLE[row]
    replicates = max(1, round(noted * share))
    found = measure(n, p, law, replicates)
    print(f"n={n} p={p} {law.__name__}:", {k: f"{v:.3f}" for k, v in found.items()})
    for name, size in zip(TESTS, expected, strict=True):
        if np.isnan(size):
            continue
        rate = min(max(size, 0.01), 0.99)  # both the note's figure and ours are simulated
        error = np.sqrt(rate * (1 - rate) * (1 / replicates + 1 / noted))
        assert abs(found[name] - size) < 4 * error + 5e-4, (name, found[name], size)


@pytest.mark.parametrize("row", range(len(TABLE)))
def test_sizes_on_few_replicates(row: int) -> None:
    compare(row, 0.05)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("row", range(len(TABLE)))
def test_sizes(row: int) -> None:
    compare(row, 1.0)


def power(excess: float, replicates: int) -> float:
    rng = np.random.default_rng(int(excess))
    scale = np.sqrt(1 + excess * (np.arange(512) == 0))
    return float(
        np.mean(
            [
                sphericity.sign_test(laws.gaussian(rng, 64, 512) * scale, center="known").extras["normal_pvalue"]
                <= 0.05
                for _ in range(replicates)
            ]
        )
    )


NOTED_POWER = {1: 0.07, 2: 0.10, 4: 0.22, 8: 0.88}


@pytest.mark.parametrize("excess", NOTED_POWER)
def test_power_of_the_sign_test_on_few_replicates(excess: int) -> None:
    noted = NOTED_POWER[excess]
    assert abs(power(excess, 120) - noted) < 4 * np.sqrt(noted * (1 - noted) / 120) + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("excess", NOTED_POWER)
def test_power_of_the_sign_test(excess: int) -> None:
    noted, found = NOTED_POWER[excess], power(excess, 2000)
    print(f"excess {excess}: power {found:.3f}, noted {noted}")
    assert abs(found - noted) < 4 * np.sqrt(2 * noted * (1 - noted) / 2000) + 0.005


def test_john_is_shifted_by_the_kurtosis_of_the_coordinates() -> None:
    """Mean of m U - p: 1 + b for independent coordinates of excess kurtosis b."""
    rng = np.random.default_rng(9)
    for law, noted in ((rng.uniform, -0.19), (rng.standard_normal, 0.999), (rng.laplace, 3.99)):
        draws = [law(-1, 1, (40, 120)) if noted < 0 else law(size=(40, 120)) for _ in range(300)]
        found = [2 * sphericity.ledoit_wolf(x).statistic + 1 for x in draws]
        assert abs(np.mean(found) - noted) < 4 * np.std(found) / np.sqrt(300) + 0.1
        corrected = [sphericity.wang_yao(x).pvalue <= 0.05 for x in draws]
        assert abs(np.mean(corrected) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 300)


def test_exact_size_under_heavy_tails() -> None:
    rng = np.random.default_rng(10)
    hits = [
        sphericity.exact_norm_conditional(
            laws.elliptical(rng, 32, 128, 3), center="known", rng=i, replicates=199
        ).pvalue
        for i in range(200)
    ]
    assert np.mean(np.array(hits) <= 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)
