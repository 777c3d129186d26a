"""Is noise isotropic? The family of tests, which of them hold here, and a verdict that heavy tails do not fool.

What the tests assume is checked first: see :mod:`featdyn.statistics.assumptions`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.assumptions import Assumptions, assumptions
from featdyn.statistics.blas import one_thread
from featdyn.statistics.centred import Centred
from featdyn.statistics.directions import count_directions
from featdyn.statistics.family import ROBUST, Entry, run_family
from featdyn.statistics.gram import Draws, centred, group_means
from featdyn.statistics.multiplicity import holm
from featdyn.statistics.randomness import Rng
from featdyn.statistics.result import Center
from featdyn.statistics.sphericity.signs import sign_deviation
from featdyn.statistics.tails import TailShape, tail_shape

Verdict = Literal["isotropic", "anisotropic", "undecided"]
_ISOTROPIC_SHARE = 0.9
"""Of p, the participation ratio that "isotropic" has to establish: our own choice."""
_FEW = 3
"""Coordinates up to which fourth powers do not tell a spherical law from others: our own choice."""


@dataclass(frozen=True)
class Isotropy:
    """What :func:`isotropy` found; ``print`` shows it as a table.

    Attributes
    ----------
    verdict : {"isotropic", "anisotropic", "undecided"}
    reason : one sentence
    directions : directions that stand out; 0 unless the verdict is anisotropic, None where they are too many to count
    participation_ratio, participation_ratio_least : float
        ``p / (1 + Q)`` of the sign test, an estimate of ``(tr)^2 / tr(.^2)`` of the covariance of directions, at most
        p, and its lower confidence limit at level 1 - alpha under near-isotropy.
    checks : of independent draws, of the centre, and of a spherical law
    tests : the family, in the order of :data:`featdyn.statistics.family.FAMILY`
    """

    verdict: Verdict
    reason: str
    directions: int | None
    participation_ratio: float
    participation_ratio_least: float
    tail: TailShape
    checks: Assumptions
    n: int
    p: int
    center: Center
    alpha: float
    tests: tuple[Entry, ...] = field(repr=False)

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a test."""
        for entry in self.tests:
            if entry.name == name:
                return entry
        raise KeyError(f"no test {name}; there are {', '.join(e.name for e in self.tests)}")

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary a test, for a data frame."""
        return [entry.record() for entry in self.tests]

    def summary(self) -> dict[str, Any]:
        """Return all but the tests as one flat dictionary."""
        own = {k: v for k, v in self.__dict__.items() if k not in ("tests", "tail", "checks")}
        return own | {f"tail_{k}": v for k, v in asdict(self.tail).items()} | asdict(self.checks)

    def __str__(self) -> str:
        head = f"{self.verdict}: {self.reason}\nn={self.n} p={self.p} centre {self.center}, {self.tail.kind} lengths"
        row = "{:<24} {:>11} {:>9} {:>9} {:>9}  {}".format
        lines = [row("test", "statistic", "p", "Holm", "BH", "holds here")]
        for e in self.tests:
            if e.result is None:
                lines.append(row(e.name, "-", "-", "-", "-", f"not computed: {e.reason}"))
                continue
            adjusted = (f"{e.holm:.3g}", f"{e.benjamini_hochberg:.3g}") if e.valid else ("-", "-")
            note = "yes" if e.valid else f"no: {e.reason}"
            lines.append(row(e.name, f"{e.result.statistic:.4g}", f"{e.result.pvalue:.3g}", *adjusted, note))
        return "\n".join([head, *lines])


def isotropy(
    x: Draws,
    *,
    center: Center | NDArray[np.floating] = "estimated",
    groups: ArrayLike | None = None,
    rng: Rng = None,
    alpha: float = 0.05,
) -> Isotropy:
    """Test whether the covariance of draws is a multiple of the identity, by every test at hand.

    Parameters
    ----------
    x : (n, p), Gram or Centred
        n noise draws of p coordinates, n >= 4 where the centre is estimated. All tests share one Gram matrix.
    center
        ``"known"``: the mean of the law is zero, as that of mini-batch gradients minus the full gradient.
        ``"estimated"``: it is not. Or the mean itself ``(p,)``, known or from many more draws: it is subtracted.
    groups : (n,), optional
        Origin of each draw, such as the image that a corruption was made from: copies are not independent, so that the
        mean of each group is one draw. For an array.
    alpha
        Level of the verdict.

    Notes
    -----
    Which test holds here, the adjustment (Holm, Benjamini and Hochberg, over the tests that hold) and the verdict are
    featdyn's own choice:

    - *undecided* where draws depend on their neighbours, or are not symmetric about a known centre
      (:class:`~featdyn.statistics.assumptions.Assumptions`): draws whose order says nothing should be shuffled first.
    - *anisotropic* where the sign test or the test given the lengths rejects, by Holm over the two, which assume
      independent draws of a spherical law, whatever its tails (about an estimated centre nearly: at 5 % it is said of
      7 % of samples of t(1) and t(1.5), of 9 % of t(1), 32 x 10). Where fourth powers are not those of such a law, and
      of up to 3 coordinates, whose fourth powers do not tell, it also takes a test with its variance estimated, which
      holds for sparse and other independent coordinates. Of 300 samples of 32 x 2 it is so said of 3 to 7 % of
      exponential, lognormal, rectified and rare binary coordinates (9 to 15 % without), and of one direction of excess
      3 beside Gaussian noise in 68 % (84 %), of 32 x 3 in 84 % (90 %), of excess 1 and 128 x 2 or 3 in 83 and 93 % (89
      and 96 %).
    - *isotropic* where no test that holds rejects (Holm) and the sign test bounds the participation ratio of the
      directions below by 0.9 p. A single direction may still hide below the threshold of detection.
    - *undecided* otherwise: too few draws, or tests that disagree.

    The same bits on any number of threads where n or p is at most 512; otherwise within rounding of float64.

    Examples
    --------
    >>> noise = np.random.default_rng(1).normal(size=(200, 20))
    >>> isotropy(noise).verdict
    'isotropic'
    >>> isotropy(noise * np.linspace(0.1, 3, 20)).verdict
    'anisotropic'
    """
    checks.fraction(alpha, "alpha")
    if groups is not None:
        x = group_means(x, groups)
    if not isinstance(center, str):
        x, center = np.asarray(x, dtype=np.float64) - center, "known"
    c = centred(x, center)
    with one_thread(min(c.n, c.p)):
        return _isotropy(c, rng, alpha)


def _isotropy(c: Centred, rng: Rng, alpha: float) -> Isotropy:
    center = c.center
    seen = assumptions(c)
    tail = tail_shape(c, center=center)
    tests = run_family(c, tail.kind, rng)
    robust = {e.name: e for e in tests if e.name in ROBUST}
    sign = robust["sign_test"].result
    assert sign is not None  # it raises where it cannot be computed
    q = max(0.0, sign.extras["Q"])
    ratio = c.p / (1 + q)
    least = c.p / (1 + q + float(scipy.stats.norm.isf(alpha)) * sign_deviation(sign.n, c.p))
    directions: int | None = 0
    rejecting = [e.name for e in tests if e.valid and e.holm <= alpha]
    pvalue = float(holm([e.result.pvalue for e in robust.values() if e.result is not None]).min())
    verdict: Verdict = "undecided"
    if seen.broken:
        reason = seen.broken
    elif pvalue <= alpha and (not seen.spherical or c.p <= _FEW) and seen.variance_pvalue > alpha:
        why = (
            f"{c.p} coordinates do not tell whether their law is"
            if seen.spherical
            else "fourth powers of the entries are not those of"
        )
        reason = (
            f"tests for spherical laws reject (p = {pvalue:.2g}), but {why} "
            f"one and, with its variance estimated, isotropy is not rejected (p = {seen.variance_pvalue:.2g})"
        )
    elif pvalue <= alpha:
        verdict, directions = "anisotropic", count_directions(c, center=center, alpha=alpha).count
        reason = _directions_text(directions, pvalue, ratio)
    elif rejecting:
        reason = f"{', '.join(rejecting)} reject, but not the tests that allow for heavy tails"
    elif least < _ISOTROPIC_SHARE * c.p:
        reason = f"nothing rejects, but {sign.n} rows leave room for a participation ratio of {least:.3g}"
    else:
        verdict = "isotropic"
        reason = f"nothing rejects; the participation ratio of the directions is at least {least:.4g} of {c.p}"
    return Isotropy(verdict, reason, directions, ratio, least, tail, seen, c.n, c.p, center, alpha, tests)


def _directions_text(count: int | None, pvalue: float, ratio: float) -> str:
    lead = f"p = {pvalue:.2g} for any spherical law; "
    if count is None:
        return lead + f"no small set of directions, participation ratio {ratio:.3g}"
    if count == 0:
        return lead + f"no single direction stands out, participation ratio {ratio:.3g}"
    return lead + f"{count} direction{'s stand' if count > 1 else ' stands'} out"
