"""The five claims of arXiv 2509.20334, as far as some runs can test them.

What each claim is measured by, and the thresholds, are our own choice: the paper's own definitions were not found. The
repeats are seeds: an interval says what another seed would change, and a single run gets no verdict. Verdicts are by
two-sided tests at 0.05, by Holm's procedure over the lines of a claim; where all seeds give the same value, as at a
ceiling, nothing says how another would vary, and there is no power to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from featdyn.across_runs.matching import before, first_fit, refuse_copies
from featdyn.across_runs.options import ClaimOptions
from featdyn.across_runs.several_runs import each
from featdyn.analysis.composites.controls import STRICT
from featdyn.compute import SERIAL, Workers
from featdyn.errors import FeatdynError
from featdyn.statistics.multiplicity import holm
from featdyn.statistics.repeats import EQUAL, Estimate, mean_difference, mean_estimate
from featdyn.store import Run
from featdyn.validation import validate

if TYPE_CHECKING:
    import pandas as pd

STABLE, UNSEEN, COLLAPSES, NO_ARTEFACT, FREEZING = (
    "1 predictions are stable",
    "2 also on unseen and corrupted data",
    "3 it collapses for random labels",
    "4 no artefact of convergence",
    "5 freezing the shallow part hurts",
)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, with its 95 % interval over seeds, and what that says of the claim."""

    dataset: str
    claim: str
    cut: str
    probes: str
    quantity: str
    value: float
    low: float
    high: float
    runs: int
    pvalue: float  # Holm's, over the lines of the claim with a verdict
    verdict: str


ALPHA = 0.05


def claims(runs: Sequence[Run | str | Path], *, workers: Workers = SERIAL, **options: Any) -> pd.DataFrame:
    """Test the claims on runs of which some have clean labels, some random ones, and some a frozen shallow part.

    Composites have the suffix of t2, the first checkpoint that fits its training probes (so that runs are compared at
    matched training accuracy), and the prefix of t1, the last checkpoint before a given fraction of t2's steps.

    Parameters
    ----------
    runs
        Runs, or where they are, to be opened by those who read them. Each has a ``consistency`` result; those with
        clean labels a ``controls`` result too. A run is frozen when its recipe has an intervention, else random when at
        least half of its labels are noise, else clean when none is.
    workers
        Who reads the stores, as :func:`featdyn.compute.workers` gives them; one store is a task.
    **options
        Fields of :class:`featdyn.across_runs.options.ClaimOptions`.

    Returns
    -------
    pandas.DataFrame
        A line per data set, claim, cut and set; columns are the fields of :class:`Row`. Verdicts are "holds", "does not
        hold", "undecided" and "no power" (all seeds give the same value); lines that only inform have none.

    Raises
    ------
    FeatdynError
        No run of a data set has clean labels, a result is missing, or two runs of one kind have one seed.
    """
    import pandas as pd

    chosen = validate(ClaimOptions, options, "claims")
    facts = each(_facts, chosen, runs, workers)
    datasets = dict.fromkeys(fact.dataset for fact in facts)
    tables = [_Table(name, [fact for fact in facts if fact.dataset == name], chosen) for name in datasets]
    return pd.DataFrame([asdict(row) for table in tables for row in table.rows()])


@dataclass(frozen=True, eq=False)
class _Facts:
    """What claims need of one run."""

    store: str
    dataset: str
    seed: int
    kind: str  # "frozen", "clean", "random", or "" for neither
    frozen: str  # which part, and from when
    final: float  # test accuracy
    pair: xr.Dataset | None = None  # of clean and of random runs: composites of one pair, over (cut, set)
    drift: xr.Dataset | None = None  # of clean runs: controls of one pair, over (kind, cut, set)


def _facts(options: ClaimOptions, run: Run) -> _Facts:
    recipe = run.recipe
    if recipe is None:
        raise FeatdynError(f"{run.path}: was not made by 'featdyn train', so nothing says what its labels are")
    what, noise = recipe.get("intervention") or {}, float(recipe["labels"]["noise"])
    kind = "frozen" if what.get("cut") else "clean" if noise == 0 else "random" if noise >= 0.5 else ""
    return _Facts(
        store=str(run.path),
        dataset=str(run.described("dataset").get("name", run.name)),
        seed=int(recipe["training"]["seed"]),
        kind=kind,
        frozen=f"{what['cut']} from epoch {what['freeze_at']:g}" if kind == "frozen" else "",
        final=float(run.values("test_accuracy")[-1]),
        pair=_pair(run, options) if kind in ("clean", "random") else None,
        drift=_drift(run, options) if kind == "clean" else None,
    )


class _Table:
    """The claims on the runs of one data set."""

    def __init__(self, dataset: str, runs: Sequence[_Facts], options: ClaimOptions) -> None:
        self._dataset, self._options = dataset, options
        self._clean, self._random, self._frozen = (
            [run for run in runs if run.kind == kind] for kind in ("clean", "random", "frozen")
        )
        if not self._clean:
            raise FeatdynError(f"{dataset}: every claim needs a run with clean labels and no intervention")
        known = [run for run in runs if run.kind]
        marks = [(run.kind, run.frozen, run.seed) for run in known]
        refuse_copies(marks, [run.store for run in known], "runs of one kind and seed")

    def rows(self) -> list[Row]:
        """Return the lines, claim by claim, with their verdicts."""
        lines = list(self._lines())
        adjusted = np.full(len(lines), np.nan)
        for claim in dict.fromkeys(row.claim for row, _ in lines):
            mine = [i for i, (row, tested) in enumerate(lines) if row.claim == claim and tested is not None]
            adjusted[mine] = holm([lines[i][1].pvalue for i in mine])  # type: ignore[union-attr]
        return [
            row if tested is None else replace(row, pvalue=float(p), verdict=_verdict(tested, p))
            for (row, tested), p in zip(lines, adjusted, strict=True)
        ]

    def _lines(self) -> Iterator[tuple[Row, Estimate | None]]:
        """Yield each line, and what must be above 0 for its claim to hold."""
        first = self._clean[0].pair
        assert first is not None  # a clean run has one
        cells = [(str(cut), str(probes)) for cut in first["cut"].values for probes in first["set"].values]
        least = self._options.stable
        for cell in cells:
            found = mean_estimate(_values(self._clean, "agreement", cell))
            claim = STABLE if cell[1] == "train" else UNSEEN
            yield self._row(claim, cell, f"agreement, at least {least:g}", found.within(0, 1)), found.minus(least)
        for cell in cells if self._random else ():
            of_random, of_clean = (_values(runs, "agreement", cell) for runs in (self._random, self._clean))
            inform = mean_estimate(of_random).within(0, 1)
            yield self._row(COLLAPSES, cell, "agreement with random labels", inform), None
            found = mean_difference(of_clean, of_random)
            yield self._row(COLLAPSES, cell, "agreement, clean minus random", found.within(-1, 1)), found
        for cell in cells:
            for kind in STRICT:
                found = mean_estimate(_values(self._clean, "advantage", cell, kind=kind))
                quantity = f"accuracy, drift minus {kind.replace('_', ' ')}"
                yield self._row(NO_ARTEFACT, cell, quantity, found.within(-1, 1)), found
        twins, lost = {run.seed: run for run in self._clean}, dict[str, list[float]]()
        for run in self._frozen:
            if run.seed in twins:  # its free twin
                lost.setdefault(run.frozen, []).append(twins[run.seed].final - run.final)
        for what, values in lost.items():
            found = mean_estimate(values)
            yield self._row(FREEZING, (what, "test"), "accuracy lost by freezing", found.within(-1, 1)), found

    def _row(self, claim: str, cell: tuple[str, str], quantity: str, found: Estimate) -> Row:
        value, low, high, runs = found.value, found.low, found.high, found.repeats
        return Row(self._dataset, claim, *cell, quantity, value, low, high, runs, pvalue=np.nan, verdict="")


def _verdict(tested: Estimate, pvalue: float) -> str:
    """Return what a value that should be above 0 says of a claim."""
    if tested.reason == EQUAL:
        return "no power"
    if not pvalue <= ALPHA:
        return "undecided"
    return "holds" if tested.value > 0 else "does not hold"


def _pair(run: Run, options: ClaimOptions) -> xr.Dataset:
    """Return the composites of one pair: t2 fits its training probes first, t1 is a fraction of the way there."""
    result, t2 = run.result("consistency")[["agreement"]].load(), first_fit(run, options.fit)
    if t2 >= result.sizes["t2"]:
        again = f"featdyn analyze {run.path} consistency"
        raise FeatdynError(f"{run.path}: its result is of fewer checkpoints; run: {again}")
    steps = result["step1"].values
    return result.isel(t1=before(steps, options.age * steps[t2]), t2=t2)


def _drift(run: Run, options: ClaimOptions) -> xr.Dataset:
    """Return the controls of the last suffix for the prefix a fraction of the way there."""
    result = run.result("controls")[["advantage"]].load().isel(t2=-1)
    steps = result["step1"].values
    return result.isel(t1=before(steps, options.age * steps[-1]))


def _values(runs: Sequence[_Facts], name: str, cell: tuple[str, str], **more: str) -> list[float]:
    each = [run.pair if name == "agreement" else run.drift for run in runs]  # runs of this kind have them
    return [float(found[name].sel({"cut": cell[0], "set": cell[1], **more})) for found in each if found is not None]
