"""The five claims of arXiv 2509.20334, as far as some runs can test them.

What each claim is measured by, and the thresholds, are our own choice: the paper's own definitions were not found. The
repeats are seeds: an interval says what another seed would change, and a single run gets no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from featdyn.across_runs.several_runs import each
from featdyn.analysis.composites.controls.compute import STRICT
from featdyn.analysis.options import ClaimOptions
from featdyn.compute import SERIAL, Workers
from featdyn.errors import FeatdynError
from featdyn.statistics.repeats import Estimate, mean_difference, mean_estimate
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
    verdict: str


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
        Fields of :class:`featdyn.analysis.options.ClaimOptions`.

    Returns
    -------
    pandas.DataFrame
        A line per data set, claim, cut and set; columns are the fields of :class:`Row`. Verdicts are "holds", "does not
        hold" and "undecided"; lines that only inform have none.

    Raises
    ------
    FeatdynError
        No run of a data set has clean labels, or a result is missing.
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

    dataset: str
    seed: int
    kind: str  # "frozen", "clean", "random", or "" for neither
    frozen: str  # which part, and from when
    final: float  # test accuracy
    pair: xr.Dataset | None = None  # of clean and of random runs: composites of one pair, over (cut, set)
    drift: xr.Dataset | None = None  # of clean runs: controls of one pair, over (kind, cut, set)


def _facts(options: ClaimOptions, run: Run) -> _Facts:
    recipe = run.attributes.get("recipe")
    if recipe is None:
        raise FeatdynError(f"{run.path}: was not made by 'featdyn train', so nothing says what its labels are")
    what, noise = recipe.get("intervention") or {}, float(recipe["labels"]["noise"])
    kind = "frozen" if what.get("cut") else "clean" if noise == 0 else "random" if noise >= 0.5 else ""
    return _Facts(
        dataset=str(run.attributes.get("dataset", {}).get("name", run.name)),
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

    def rows(self) -> Iterator[Row]:
        """Yield the lines, claim by claim."""
        first = self._clean[0].pair
        assert first is not None  # a clean run has one
        cells = [(str(cut), str(probes)) for cut in first["cut"].values for probes in first["set"].values]
        least = self._options.stable
        for cell in cells:
            found = mean_estimate(self._agreements(self._clean, cell))
            claim = STABLE if cell[1] == "train" else UNSEEN
            yield self._row(claim, cell, f"agreement, at least {least:g}", found, found.minus(least))
        for cell in cells if self._random else ():
            of_random, of_clean = self._agreements(self._random, cell), self._agreements(self._clean, cell)
            yield self._row(COLLAPSES, cell, "agreement with random labels", mean_estimate(of_random))
            found = mean_difference(of_clean, of_random)
            yield self._row(COLLAPSES, cell, "agreement, clean minus random", found, found)
        for cell in cells:
            for kind in STRICT:
                values = [_value(run.drift, "advantage", cell, kind=kind) for run in self._clean]
                found = mean_estimate(values)
                yield self._row(NO_ARTEFACT, cell, f"accuracy, drift minus {kind.replace('_', ' ')}", found, found)
        for what, values in self._losses().items():
            found = mean_estimate(values)
            yield self._row(FREEZING, (what, "test"), "accuracy lost by freezing", found, found)

    def _agreements(self, runs: Sequence[_Facts], cell: tuple[str, str]) -> list[float]:
        return [_value(run.pair, "agreement", cell) for run in runs]

    def _losses(self) -> dict[str, list[float]]:
        """Return by intervention the final test accuracy of each free twin minus that of the frozen run."""
        twins, found = {run.seed: run for run in self._clean}, dict[str, list[float]]()
        for run in self._frozen:
            if run.seed in twins:
                found.setdefault(run.frozen, []).append(twins[run.seed].final - run.final)
        return found

    def _row(
        self, claim: str, cell: tuple[str, str], quantity: str, found: Estimate, above_zero: Estimate | None = None
    ) -> Row:
        """Return a line; the claim holds where ``above_zero`` is above zero, if that is given."""
        verdict = ""
        if above_zero is not None:
            verdict = "holds" if above_zero.low > 0 else "does not hold" if above_zero.high < 0 else "undecided"
        return Row(self._dataset, claim, *cell, quantity, found.value, found.low, found.high, found.repeats, verdict)


def _pair(run: Run, options: ClaimOptions) -> xr.Dataset:
    """Return the composites of one pair: t2 fits its training probes first, t1 is a fraction of the way there."""
    result = run.result("consistency")[["agreement", "plain_accuracy"]].load()
    if "train" not in result["set"].values:
        raise FeatdynError(f"{run.path}: holds no training probes, by which runs are matched")
    fits = np.flatnonzero(result["plain_accuracy"].sel(set="train").values >= options.fit)
    if not len(fits):
        best = float(result["plain_accuracy"].sel(set="train").max())
        raise FeatdynError(f"{run.path}: no checkpoint fits {options.fit:g} of its training probes (best: {best:.3f})")
    t2 = int(fits[0])
    return result.isel(t1=_before(result["step1"].values, t2, options.age), t2=t2)


def _drift(run: Run, options: ClaimOptions) -> xr.Dataset:
    """Return the controls of the last suffix for the prefix a fraction of the way there."""
    result = run.result("controls")[["advantage"]].load().isel(t2=-1)
    return result.isel(t1=_before(result["step1"].values, result.sizes["t1"] - 1, options.age))


def _before(steps: np.ndarray[Any, Any], t2: int, age: float) -> int:
    return max(0, int(np.searchsorted(steps, age * steps[t2], side="right")) - 1)


def _value(cells: xr.Dataset | None, name: str, cell: tuple[str, str], **more: str) -> float:
    assert cells is not None  # runs of this kind have them
    return float(cells[name].sel({"cut": cell[0], "set": cell[1], **more}))
