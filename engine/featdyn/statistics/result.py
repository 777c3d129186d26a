"""What a test of one sample returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

Center: TypeAlias = Literal["estimated", "known"]


@dataclass(frozen=True)
class TestResult:
    """One test of one sample.

    Attributes
    ----------
    name : the test's name in :mod:`featdyn.statistics.sphericity`
    statistic, pvalue : float
        On the scale of the null distribution named in the test's docstring; large statistics speak against the null.
    n, p : rows that the test used (half of the draws where it works on differences of pairs) and coordinates
    center : {"estimated", "known"}
    regime, assumptions : for which n and p the p-value holds, and for which laws
    extras : further numbers of this test, by name
    """

    __test__: ClassVar[bool] = False  # not a test class to pytest

    name: str
    statistic: float
    pvalue: float
    n: int
    p: int
    center: Center
    regime: str
    assumptions: str
    extras: Mapping[str, float] = field(default_factory=dict)
