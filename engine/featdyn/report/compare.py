"""Runs side by side: one table and one figure, with intervals over seeds and over probes.

Runs whose recipes differ in nothing but seeds are repeats of one group. Which pair of checkpoints stands for a run, and
matching runs by training accuracy, are our own choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from featdyn.across_runs.several_runs import each
from featdyn.compute import SERIAL, Workers
from featdyn.errors import FeatdynError
from featdyn.query import query
from featdyn.query.variable import find
from featdyn.report.figures import COLOURS, text
from featdyn.statistics.repeats import mean_estimate
from featdyn.statistics.resampling import wilson
from featdyn.store import Run
from featdyn.store.files import Folder

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHARES = ("accuracy", "accuracy_true", "agreement", "agreement_prefix", "plain_accuracy")
"""Proportions of a set's probes: where their result holds no bounds, Wilson's are theirs."""
TIMES = ("t1", "t2", "t", "checkpoint")
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
        The last checkpoint before this fraction of the steps of t2.
    t2
        The last checkpoint before this fraction of all steps; quantities of one checkpoint (``t``, ``checkpoint``) are
        taken here too.
    fit
        t2 is instead the first checkpoint whose network has this share of its training probes right, so that runs are
        compared at matched training accuracy.

    Returns
    -------
    pandas.DataFrame
        A row for each quantity, cell (cut, set, ...) and group: ``value``, the mean over the group's runs; ``low`` and
        ``high``, its 95 % Student interval over runs (NaN of a single one); ``runs``; ``probes_low`` and ``_high``, the
        95 % interval over probes within one run (a mean over runs), where there is one.

    Raises
    ------
    FeatdynError
        A quantity that is missing somewhere, or a run that never fits.
    """
    if not runs or not quantities:
        raise FeatdynError("give at least one run and one quantity to compare")
    for name, share in (("t1", t1), ("t2", t2), ("fit", 0.5 if fit is None else fit)):
        if not 0 <= share <= 1:
            raise FeatdynError(f"{name} must lie between 0 and 1, got {share:g}")
    asked = _Asked(tuple(quantities), tuple(where), tuple(reduce), t1, t2, fit)
    read = each(_Asked.of, asked, runs, workers)
    named = _names([recipe for recipe, _ in read])
    table = pd.concat([cells.assign(group=group) for (_, cells), group in zip(read, named, strict=True)])
    table = table.reset_index(drop=True)
    labels = [c for c in table.columns if c not in ("group", "value", "probes_low", "probes_high")]
    table[labels] = table[labels].astype(object).where(table[labels].notna(), "")
    rows = []
    for key, part in table.groupby([*labels, "group"], sort=False, dropna=False):
        found = mean_estimate(part["value"])
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
        at = _places(run, self.t1, self.t2, self.fit)
        cells = [_cells(run, quantity, at, self.where, self.reduce) for quantity in self.quantities]
        return _recipe(run), pd.concat(cells, ignore_index=True)


def groups(runs: Sequence[Run]) -> list[str]:
    """Name each run by the fields of its recipe in which the runs differ; seeds do not count."""
    return _names([_recipe(run) for run in runs])


def _names(recipes: Sequence[dict[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe))
    kept = [key for key in keys if key.rpartition(".")[2] not in ("seed", "description")]
    differ = [key for key in kept if len({repr(recipe.get(key)) for recipe in recipes}) > 1]
    named = [", ".join(f"{key}={recipe[key]}" for key in differ if key in recipe) for recipe in recipes]
    return [name or "all runs" for name in named]


def _recipe(run: Run) -> dict[str, Any]:
    return dict(_flat(run.attributes.get("recipe") or {"store": run.name}))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _places(run: Run, t1: float, t2: float, fit: float | None) -> dict[str, int]:
    """Return the checkpoint that each axis of time is read at."""
    steps = run.values("step")
    last = _before(steps, t2 * steps[-1]) if fit is None else _fits(run, fit)
    return {"t1": _before(steps, t1 * steps[last]), "t2": last, "t": last, "checkpoint": last}


def _before(steps: np.ndarray[Any, Any], step: float) -> int:
    return max(0, int(np.searchsorted(steps, step, side="right")) - 1)


def _fits(run: Run, level: float) -> int:
    split = run.values("split") if "split" in run.paths("sample") else np.array([])
    train = np.flatnonzero(split == "train")
    if not len(train):
        raise FeatdynError(f"{run.path}: holds no training probes, by which runs are matched")
    labels, best = run.values("label")[train], 0.0
    for t in range(run.checkpoints):
        logits = run.values("outputs/logits", slice(t, t + 1))[0, train]
        right = float((logits.argmax(-1) == labels).mean())
        if right >= level:
            return t
        best = max(best, right)
    raise FeatdynError(f"{run.path}: no checkpoint fits {level:g} of its training probes (best: {best:.3f})")


def _cells(run: Run, quantity: str, at: Mapping[str, int], where: Sequence[str], reduce: Sequence[str]) -> pd.DataFrame:
    """Return the values of one quantity with their labels and bounds over probes."""
    dims = find(run, quantity).cells.dims
    conditions = [*where, *(f"{dim}={at[dim]}" for dim in TIMES if dim in dims)]
    frame = query(run, quantity, where=conditions, reduce=reduce)
    name = str(frame.columns[-1])
    labels = [c for c in frame.columns[:-1] if c not in (*TIMES, "step", "step1", "step2", "epoch")]
    found = frame[labels].assign(value=frame[name].astype(float), probes_low=np.nan, probes_high=np.nan)
    found.insert(0, "quantity", quantity.removeprefix("results."))
    group, _, _ = quantity.rpartition(".")
    try:
        for end in ("low", "high"):
            bound = query(run, f"{quantity}_{end}", where=conditions, reduce=reduce)
            found[f"probes_{end}"] = bound.iloc[:, -1].astype(float)
    except FeatdynError:
        if name in SHARES and "set" in labels and not reduce:
            sizes = query(run, f"{group}.set_size").set_index("set")["set_size"]
            bounds = [wilson(v, int(sizes[s])) for v, s in zip(found["value"], frame["set"], strict=True)]
            found["probes_low"], found["probes_high"] = np.array(bounds, float).reshape(-1, 2).T
    return found


def draw(table: pd.DataFrame) -> go.Figure:
    """Return the figure of a table of :func:`compare`: a panel for each quantity, a colour for each group.

    Bars are 95 % intervals: over runs, or of a single run over probes.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    quantities, names = list(dict.fromkeys(table["quantity"])), list(dict.fromkeys(table["group"]))
    figure = make_subplots(rows=len(quantities), cols=1, subplot_titles=[text(q) for q in quantities])
    labels = [c for c in table.columns if c not in ("quantity", "group", *NUMBERS)]
    for row, quantity in enumerate(quantities, 1):
        for g, name in enumerate(names):
            mine = table[(table["quantity"] == quantity) & (table["group"] == name)]
            single = mine["runs"] < 2
            low, high = (mine[e].where(~single, mine[f"probes_{e}"]) for e in ("low", "high"))
            trace = go.Scatter(
                x=[text(" · ".join(str(v) for v in cell if v != "")) for cell in mine[labels].itertuples(index=False)],
                y=mine["value"],
                name=text(name),
                legendgroup=text(name),
                showlegend=row == 1,
                mode="markers",
                marker={"size": 9, "color": COLOURS[g % len(COLOURS)]},
                error_y={"array": high - mine["value"], "arrayminus": mine["value"] - low, "thickness": 1.5},
                customdata=["probes" if one else "runs" for one in single],
                hovertemplate="%{x}<br>%{y:.4g}, 95 % interval over %{customdata}<extra>%{fullData.name}</extra>",
            )
            figure.add_trace(trace, row=row, col=1)
    figure.update_layout(
        height=120 + 300 * len(quantities), template="plotly_white", scattermode="group", legend={"orientation": "h"}
    )
    return figure


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Write the figure as one HTML file that works offline.

    Raises
    ------
    FeatdynError
        The file cannot be written.
    """
    target = Path(path)
    page: str = draw(table).to_html(include_plotlyjs=True, full_html=True)
    if target.is_dir():
        raise FeatdynError(f"{target}: the figure cannot be written: is a folder, give a file")
    try:
        Folder(target.parent).replace(target.name, page.encode("utf-8", errors="replace"))
    except OSError as error:
        raise FeatdynError(f"{target}: the figure cannot be written: {error.strerror}") from error
