"""Verdicts of a study's claims on what was measured, by rules that the study's file holds.

Each cell of a claim's quantity is estimated over seeds: the mean of one group, or of differences of two, seed by seed,
with Student's interval (Welch's where groups are not paired), which is never narrower than the images within seeds
allow where the claim says so. A cell *holds* where the value lies within the margins and *does not hold* where it lies
outside, each by the two-sided test at 0.05 of the margin in question, after Holm's correction over all cells of the
claim's family on one data set. What is not decided is *undecided* where the test would have seen the claim's ``effect``
with a power of 0.8, or where the cell's own interval, without that correction, lies beyond the margin; else there is
*no power*; nor is there where a need fails, or seeds tell no spread.

A claim does not hold where one of its cells does not; it is undecided where one is; it holds where all that are
decided hold; it has no power where no cell is decided or undecided. That, levels and margins are our own choice.

That a cell's own interval counts was added on 2026-11-30, after runs of all three studies at the small scale: a claim
with dozens of cells was said to hold by a few of them, though others lay outside and had only no power against Holm's
correction. Of 78 verdicts it turned one, from *holds* to *undecided*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from featdyn.reproduce.measured import Measured
from featdyn.reproduce.study import Claim, Need, Study
from featdyn.statistics.multiplicity import holm
from featdyn.statistics.repeats import Estimate, mean_difference, mean_estimate, two_level_estimate

ALPHA, POWER = 0.05, 0.8
HOLDS, FAILS, UNDECIDED, NO_POWER, INFORMS = "holds", "does not hold", "undecided", "no power", "informs"

Runs: TypeAlias = Mapping[str, Mapping[int, Mapping[str, Measured]]]
"""Group to seed to quantity to what was measured."""


@dataclass(frozen=True)
class Row:
    """One cell of a claim."""

    cell: Mapping[str, str]
    value: float
    low: float
    """95 % limits of this cell alone."""
    high: float
    seeds: int
    pvalue: float
    """Holm's, over the family; NaN where nothing was tested."""
    least: float
    """The smallest distance beyond the margin that would have been seen (power 0.8, after correction)."""
    verdict: str
    reason: str = ""
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Of each group, by seed."""


@dataclass(frozen=True)
class Judged:
    """A claim on one data set."""

    claim: Claim
    data: str
    verdict: str
    rows: Sequence[Row]
    reason: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many cells have each verdict."""
        found = [row.verdict for row in self.rows]
        return {verdict: found.count(verdict) for verdict in dict.fromkeys(found)}


def judge(study: Study, data: str, runs: Mapping[str, Runs]) -> list[Judged]:
    """Return every claim's verdict on one data set, from the runs of each experiment there."""
    tried = [(claim, _cells(study, claim, runs.get(claim.experiment, {}))) for claim in study.claims]
    rows = [[row for row, _ in cells] for _, cells in tried]
    families: dict[str, list[tuple[int, int, Estimate]]] = {}
    for c, (claim, cells) in enumerate(tried):
        for r, (_, found) in enumerate(cells):
            if found is not None:
                families.setdefault(claim.family or claim.id, []).append((c, r, found))
    for members in families.values():
        adjusted = holm([_pvalue(study.claims[c], found) for c, _, found in members])
        for (c, r, found), p in zip(members, adjusted, strict=True):
            rows[c][r] = _decided(study.claims[c], rows[c][r], found, float(p), len(members))
    return [_joined(claim, data, mine) for (claim, _), mine in zip(tried, rows, strict=True)]


def _cells(study: Study, claim: Claim, runs: Runs) -> list[tuple[Row, Estimate | None]]:
    """Return each cell of a claim, with its estimate where there is something to test; rows say why not."""
    of = [
        {seed: found[claim.quantity] for seed, found in sorted(runs.get(group, {}).items()) if claim.quantity in found}
        for group in claim.groups
    ]
    if not all(of):
        return []
    first = next(iter(of[0].values()))
    found = []
    for labels in first.cells():
        cell = dict(zip(first.axes, labels, strict=True))
        if any(cell[axis] not in chosen for axis, chosen in claim.where.items()):
            continue
        numbers = [{seed: m.at(cell) for seed, m in group.items()} for group in of]
        estimate, lost = _estimate(claim, numbers)
        why = _failing(claim.needs, runs, cell) or (estimate.reason if estimate else _missing(of))
        values = {g: [v for v, _ in n.values()] for g, n in zip(claim.groups, numbers, strict=True)}
        at = _possible(study, claim, estimate or Estimate(np.nan, np.nan, np.nan, 0))
        verdict = INFORMS if claim.informs else NO_POWER if why else UNDECIDED
        reason = why or (f"{lost} of {lost + at.repeats} seeds have no number" if lost and claim.informs else "")
        row = Row(cell, at.value, at.low, at.high, at.repeats, np.nan, np.nan, verdict, reason, values)
        found.append((row, None if claim.informs or why else estimate))
    return found


def _possible(study: Study, claim: Claim, found: Estimate) -> Estimate:
    """Return an estimate with limits that its quantity, or the difference of two, can have."""
    possible = study.quantities[claim.quantity].possible
    if possible is None:
        return found
    low, high = possible
    return found.within(low, high) if len(claim.groups) == 1 else found.within(low - high, high - low)


def _estimate(claim: Claim, numbers: list[dict[int, tuple[float, float]]]) -> tuple[Estimate | None, int]:
    """Return the estimate over seeds, and how many seeds have no number."""
    clustered = claim.unit == "seed and image"
    if len(numbers) == 2 and not claim.paired:
        parts = [np.array([x for x, _ in group.values() if np.isfinite(x)]) for group in numbers]
        lost = sum(map(len, numbers)) - sum(map(len, parts))
        return (mean_difference(*parts) if all(map(len, parts)) else None), lost
    seeds = sorted(set.intersection(*(set(group) for group in numbers)))
    pairs = np.array([[group[seed] for group in numbers] for seed in seeds])  # (seed, group, value and variance)
    if not len(seeds):
        return None, 0
    signs = np.array([1.0, -1.0][: len(numbers)])
    values, variances = pairs[..., 0] @ signs, pairs[..., 1].sum(1)  # of two groups as if independent
    kept = np.isfinite(values)
    if not kept.any():
        return None, len(seeds)
    found = two_level_estimate(values[kept], variances[kept]) if clustered else mean_estimate(values[kept])
    return found, int((~kept).sum())


def _broken(claim: Claim, value: float) -> list[float]:
    """Return the margin that a value violates, if any."""
    below = [claim.at_least] if claim.at_least is not None and value < claim.at_least else []
    return below + ([claim.at_most] if claim.at_most is not None and value > claim.at_most else [])


def _outside(claim: Claim, row: Row) -> bool:
    """Return whether all of a cell's own interval violates a margin."""
    low, high = _broken(claim, row.low), _broken(claim, row.high)
    return low == high != []


def _pvalue(claim: Claim, found: Estimate) -> float:
    """Return the two-sided p-value of the margin that the value violates, or the larger of those that it keeps."""
    kept = [margin for margin in (claim.at_least, claim.at_most) if margin is not None]
    return max(found.minus(margin).pvalue for margin in _broken(claim, found.value) or kept)


def _decided(claim: Claim, row: Row, found: Estimate, p: float, tests: int) -> Row:
    """Return a row with its verdict, by its corrected p-value and the number of tests in its family."""
    assert claim.effect is not None  # there is a margin
    least = found.least_seen(ALPHA / tests, POWER)
    if p <= ALPHA:
        return replace(row, pvalue=p, least=least, verdict=FAILS if _broken(claim, row.value) else HOLDS)
    weak = least > claim.effect and not _outside(claim, row)
    reason = f"an effect of {claim.effect:g} would not have been seen" if weak else ""
    return replace(row, pvalue=p, least=least, verdict=NO_POWER if weak else UNDECIDED, reason=reason)


def _failing(needs: Sequence[Need], runs: Runs, cell: Mapping[str, str]) -> str:
    """Return why there is no power at a cell; empty where all that is needed is so."""
    for need in needs:
        for group in need.groups:
            found = [run[need.quantity].at(cell)[0] for run in runs.get(group, {}).values() if need.quantity in run]
            tested = [float(np.mean(found))] if need.of == "mean" and found else found
            low, high = (-np.inf if need.at_least is None else need.at_least, need.at_most)
            if not tested or not all(low <= x <= (np.inf if high is None else high) for x in tested):
                return need.why
    return ""


def _missing(of: list[dict[int, Measured]]) -> str:
    reasons = [m.missing for group in of for m in group.values() if m.missing]
    return reasons[0] if reasons else "no seed has a number"


def _joined(claim: Claim, data: str, rows: list[Row]) -> Judged:
    """Return the claim's verdict from those of its cells."""
    if not rows:
        return Judged(claim, data, INFORMS if claim.informs else NO_POWER, rows, "not run at this scale")
    verdicts = {row.verdict for row in rows}
    if claim.informs:
        return Judged(claim, data, INFORMS, rows)
    if FAILS in verdicts:
        return Judged(claim, data, FAILS, rows)
    with_power = verdicts - {NO_POWER}
    if not with_power:
        return Judged(claim, data, NO_POWER, rows, rows[0].reason)
    return Judged(claim, data, UNDECIDED if UNDECIDED in with_power else HOLDS, rows)


def table(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return verdicts as JSON-like values, one a claim and data set."""
    return [
        {
            "claim": each.claim.id, "data": each.data, "statement": each.claim.statement, "source": each.claim.source,
            "experiment": each.claim.experiment, "quantity": each.claim.quantity, "groups": list(each.claim.groups),
            "at_least": each.claim.at_least, "at_most": each.claim.at_most, "effect": each.claim.effect,
            "published": each.claim.published, "own_choice": each.claim.own_choice, "verdict": each.verdict,
            "reason": each.reason, "counts": each.counts,
            "rows": [{
                "cell": dict(row.cell), "value": row.value, "low": row.low, "high": row.high, "seeds": row.seeds,
                "pvalue": row.pvalue, "least_seen": row.least, "verdict": row.verdict, "reason": row.reason,
                "values": {group: list(values) for group, values in row.values.items()},
            } for row in each.rows],
        }
        for each in judged
    ]  # fmt: skip
