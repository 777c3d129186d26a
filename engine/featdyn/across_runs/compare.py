"""Runs side by side in one table, with intervals over seeds and over probes.

Runs whose recipes differ in nothing but seeds are repeats of one group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from featdyn.across_runs.matching import before, first_fit, group_names, recipe_fields, refuse_copies
from featdyn.across_runs.several_runs import each
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.compute import SERIAL, Workers
from featdyn.errors import FeatdynError
from featdyn.names import RANGES
from featdyn.query import query, warnings
from featdyn.query.catalogue import Catalogue
from featdyn.query.folds import quantile_of
from featdyn.query.reduce import Reduction
from featdyn.query.stored_array import find
from featdyn.statistics.repeats import Estimate, mean_estimate
from featdyn.statistics.resampling import wilson
from featdyn.store import Run

QUANTITIES = tuple(f"results.consistency.{name}" for name in ("accuracy", "agreement", "retention"))
"""What is compared where nothing is named."""
SHARES = ("accuracy", "accuracy_true", "agreement", "agreement_prefix", "plain_accuracy")
"""Proportions of a set's probes: where their result holds no bounds, Wilson's are theirs, of as many independent probes
as there are where copies of an image agree: our own choice."""
KEEPING = ("mean", "min", "max", "median")
"""Reductions whose values lie where those that they reduce lie; quantiles too."""
TIMES = ("t1", "t2", "t", "checkpoint")
BESIDE = ("probes_low", "probes_high", "least", "most")
MISSING = Estimate(np.nan, np.nan, np.nan, 0)
NUMBERS = ("value", "low", "high", "runs", "probes_low", "probes_high")


def compare(
    runs: Sequence[Run | str | Path],
    quantities: Sequence[str],
    *,
    workers: Workers = SERIAL,
    where: Sequence[str] = (),
    reduce: Sequence[str] = (),
    t1: float = 0.5,
    t2: float = 1.0,
    fit: float | None = None,
) -> pd.DataFrame:
    """Put quantities of several runs side by side.

    Parameters
    ----------
    runs
        Runs, or where they are, to be opened by those who read them. Grouped by the fields in which their recipes
        differ, seeds left out; a run without recipe is a group.
    quantities
        Dotted names, as for :func:`featdyn.query.query`.
    workers
        Who reads the stores, as :func:`featdyn.compute.workers` gives them; one store is a task.
    where, reduce
        As for :func:`featdyn.query.query`.
    t1
        The last checkpoint at or before this fraction of the steps of t2.
    t2
        The last checkpoint at or before this fraction of all steps; quantities of one checkpoint (``t``,
        ``checkpoint``) are taken here too.
    fit
        t2 is instead the first checkpoint whose network has this share of its training probes right, so that runs are
        compared at matched training accuracy.

    Returns
    -------
    pandas.DataFrame
        A row for each quantity, cell (cut, set, ...) and group: ``value``, the mean over the group's runs; ``low`` and
        ``high``, its 95 % Student interval over runs, cut to the values that are possible (NaN of a single run, or of
        equal ones); ``runs`` that have the cell; ``probes_low`` and ``_high``, the 95 % interval over probes within one
        run (a mean over runs), where there is one.

    Raises
    ------
    FeatdynError
        A quantity that is missing somewhere, a run that never fits, or two runs of one recipe and seed.
    """
    if not runs or not quantities:
        raise FeatdynError("give at least one run and one quantity to compare")
    for name, share in {"t1": t1, "t2": t2, "fit": fit}.items():
        if share is not None and not 0 <= share <= 1:
            raise FeatdynError(f"{name} must lie between 0 and 1, got {share:g}")
    asked = _Asked(tuple(quantities), tuple(where), tuple(reduce), t1, t2, fit)
    read = each(_Asked.of, asked, runs, workers)
    marks = [repr(sorted(recipe.items())) for recipe, _ in read]
    refuse_copies(marks, [str(run.path if isinstance(run, Run) else run) for run in runs], "of one recipe and seed")
    named = group_names([recipe for recipe, _ in read])
    table = pd.concat([cells.assign(group=group) for (_, cells), group in zip(read, named, strict=True)])
    table = table.reset_index(drop=True)
    labels = [c for c in table.columns if c not in ("group", "value", *BESIDE)]
    table[labels] = table[labels].astype(object).where(table[labels].notna(), "")
    rows = []
    for key, part in table.groupby([*labels, "group"], sort=False, dropna=False):
        known = part["value"].dropna()
        found = mean_estimate(known).within(part["least"].iloc[0], part["most"].iloc[0]) if len(known) else MISSING
        numbers = (found.value, found.low, found.high, found.repeats, *part[["probes_low", "probes_high"]].mean())
        rows.append((*key, *numbers))
    result = pd.DataFrame(rows, columns=[*labels, "group", *NUMBERS])
    # Groups of one cell lie together, both in the order in which they were first met.
    order = {tuple(row): i for i, row in reversed(list(enumerate(result[labels].itertuples(index=False))))}
    cell = [order[tuple(row)] for row in result[labels].itertuples(index=False)]
    return result.iloc[np.argsort(cell, kind="stable")].reset_index(drop=True)


@dataclass(frozen=True)
class _Asked:
    """What to read of every run: the parameters of :func:`compare`."""

    quantities: tuple[str, ...]
    where: tuple[str, ...]
    reduce: tuple[str, ...]
    t1: float
    t2: float
    fit: float | None

    def of(self, run: Run) -> tuple[dict[str, Any], pd.DataFrame]:
        """Return a run's recipe, flat, and its cells."""
        steps = run.values("step")
        last = before(steps, self.t2 * steps[-1]) if self.fit is None else first_fit(run, self.fit)
        at = {"t1": before(steps, self.t1 * steps[last]), "t2": last, "t": last, "checkpoint": last}
        cells = [_cells(run, quantity, at, self.where, self.reduce) for quantity in self.quantities]
        return recipe_fields(run), pd.concat(cells, ignore_index=True)


def _possible(values: pd.Series[float], stated: Sequence[float] | None, reduce: Sequence[str]) -> tuple[float, float]:
    """Return the range that is possible of values, and of their mean over runs; infinite where nothing says it.

    A sum or a distance of shares is none, and an accuracy that somebody recorded in percent leaves the range.
    """
    functions = [Reduction.parse(text).function for text in reduce]
    kept = all(name in KEEPING or quantile_of(name) is not None for name in functions)
    if stated is None or not kept or not values.dropna().between(stated[0], stated[1]).all():
        return -np.inf, np.inf
    return stated[0], stated[1]


def _cells(run: Run, quantity: str, at: Mapping[str, int], where: Sequence[str], reduce: Sequence[str]) -> pd.DataFrame:
    """Return the values of one quantity with their labels, bounds over probes, and the range that is possible."""
    variable = find(Catalogue(run), quantity)
    name, group = variable.name, quantity.rpartition(".")[0]
    conditions = [*where, *(f"{dim}={at[dim]}" for dim in TIMES if dim in variable.cells.dims)]
    try:
        frame = query(run, quantity, where=conditions, reduce=reduce)
    except FeatdynError as error:
        told = str(error).removeprefix(f"{run.path}: ")
        said = [f"{run.path}: {told}", *(line.removeprefix(f"{run.path}: ") for line in warnings(run, quantity))]
        raise FeatdynError("; ".join(said)) from None
    labels = [c for c in frame.columns if c not in (name, "missing", *TIMES, "step", "step1", "step2", "epoch")]
    share = name in SHARES and not reduce
    try:
        values = frame[name].astype(float)
    except ValueError:
        raise FeatdynError(f"{quantity}: these values are text; compare numbers") from None
    stated = variable.attributes.get("valid_range", (0, 1) if name in SHARES else RANGES.get(name))
    least, most = _possible(values, stated, reduce)
    found = frame[labels].assign(value=values, probes_low=np.nan, probes_high=np.nan, least=least, most=most)
    found.insert(0, "quantity", quantity.removeprefix("results."))
    try:
        for end in ("low", "high"):
            bound = query(run, f"{quantity}_{end}", where=conditions, reduce=reduce)
            found[f"probes_{end}"] = bound[f"{name}_{end}"].astype(float)
    except FeatdynError:
        if share and "set" in labels:
            used = query(run, f"{group}.set_size").set_index("set")["set_size"]
            size = _images(run, used)[frame["set"]].to_numpy()
            found["probes_low"], found["probes_high"] = wilson(found["value"].where(np.isfinite(size)), size)
    return found


def _images(run: Run, sizes: pd.Series[int]) -> pd.Series[float]:
    """Return how many independent probes those of each set amount to, where copies of an image agree (Kish 1965).

    NaN where it is not known which of a set's probes a result is of.
    """
    sets, found = ProbeSets.of(run), {}
    for name, size in sizes.items():
        copies = np.unique(sets.origins[sets.member(str(name))], return_counts=True)[1]
        alone = size <= len(copies) == copies.sum()
        found[name] = size if alone else size**2 / np.square(copies).sum() if size == copies.sum() else np.nan
    return pd.Series(found, dtype=float)
