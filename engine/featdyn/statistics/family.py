"""The family of tests of isotropy: each one's reach in n, p and tail, all run on shared work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from featdyn.statistics import sphericity
from featdyn.statistics.centred import Centred
from featdyn.statistics.multiplicity import benjamini_hochberg, holm
from featdyn.statistics.randomness import Rng
from featdyn.statistics.result import TestResult
from featdyn.statistics.tails import Tail

ROBUST = ("sign_test", "exact_norm_conditional")
_GAUSSIAN: tuple[Tail, ...] = ("gaussian",)
_LINEAR: tuple[Tail, ...] = ("gaussian", "independent")
_ANY: tuple[Tail, ...] = ("gaussian", "independent", "elliptical")


@dataclass(frozen=True)
class Rule:
    """When a test is computed and when its p-value is believed.

    ``possible`` and ``accurate`` take (m, p); the limits of ``accurate`` are featdyn's own choice, where the measured
    size at nominal 5 % stays within about 4 to 7 %.
    """

    test: Callable[..., TestResult]
    tails: tuple[Tail, ...]
    possible: Callable[[int, int], bool] = lambda m, p: True
    needs: str = ""
    accurate: Callable[[int, int], bool] = lambda m, p: True
    regime: str = ""


def _large(m: int, p: int) -> bool:
    return min(m, p) >= 10


_LARGE = "m and p of at least 10"

FAMILY: dict[str, Rule] = {
    "mauchly": Rule(
        sphericity.mauchly, _GAUSSIAN, lambda m, p: p < m, "p < m", lambda m, p: p <= m / 5, "p at most m / 5"
    ),
    "john": Rule(sphericity.john, _GAUSSIAN, accurate=lambda m, p: m >= 10, regime="m of at least 10"),
    "ledoit_wolf": Rule(sphericity.ledoit_wolf, _GAUSSIAN, accurate=_large, regime=_LARGE),
    "wang_yao": Rule(sphericity.wang_yao, _LINEAR, accurate=_large, regime=_LARGE),
    "srivastava": Rule(sphericity.srivastava, _GAUSSIAN, accurate=_large, regime=_LARGE),
    "fisher": Rule(sphericity.fisher, _GAUSSIAN, lambda m, p: m > 3, "m > 3", _large, _LARGE),
    "corrected_lrt": Rule(sphericity.corrected_lrt, _GAUSSIAN, lambda m, p: p < m, "p < m", _large, _LARGE),
    "quasi_lrt": Rule(
        sphericity.quasi_lrt, _GAUSSIAN, lambda m, p: p > m, "p > m", lambda m, p: p >= 5 * m, "p of at least 5 m"
    ),
    "chen_zhang_zhong": Rule(sphericity.chen_zhang_zhong, _LINEAR, accurate=_large, regime=_LARGE),
    "largest_root": Rule(sphericity.largest_root, _GAUSSIAN),
    "sign_test": Rule(sphericity.sign_test, _ANY),
    "exact_norm_conditional": Rule(sphericity.exact_norm_conditional, _ANY),
}


@dataclass(frozen=True)
class Entry:
    """One test of the family."""

    name: str
    result: TestResult | None  # None where n and p do not allow the test
    valid: bool  # whether its p-value holds for this n, p and tail; ``reason`` says why not
    reason: str = ""
    holm: float = float("nan")  # both adjusted over the valid tests of the family; NaN for the others
    benjamini_hochberg: float = float("nan")

    def record(self) -> dict[str, Any]:
        """Return a flat dictionary."""
        result = self.result
        return {
            "test": self.name,
            "statistic": float("nan") if result is None else result.statistic,
            "pvalue": float("nan") if result is None else result.pvalue,
            "holm": self.holm,
            "benjamini_hochberg": self.benjamini_hochberg,
            "valid": self.valid,
            "reason": self.reason,
        }


def run_family(c: Centred, tail: Tail, rng: Rng) -> tuple[Entry, ...]:
    """Run every test that n and p allow, and adjust over those that hold."""
    entries = [_entry(name, rule, c, tail, rng) for name, rule in FAMILY.items()]
    raw = [e.result.pvalue if e.result is not None and e.valid else float("nan") for e in entries]
    adjusted = zip(entries, holm(raw), benjamini_hochberg(raw), strict=True)
    return tuple(replace(e, holm=float(h), benjamini_hochberg=float(b)) for e, h, b in adjusted)


def _entry(name: str, rule: Rule, c: Centred, tail: Tail, rng: Rng) -> Entry:
    if not rule.possible(c.m, c.p):
        return Entry(name, None, False, f"needs {rule.needs}")
    result = rule.test(c, center=c.center, rng=rng)
    if tail not in rule.tails:
        lengths = "lengths vary as a whole" if tail == "elliptical" else "coordinates are not Gaussian"
        return Entry(name, result, False, f"{lengths}; assumes {result.assumptions}")
    if not rule.accurate(c.m, c.p):
        return Entry(name, result, False, f"needs {rule.regime}")
    return Entry(name, result, True)
