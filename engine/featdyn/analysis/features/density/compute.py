"""How far have distributions of features moved?

Dimension reduction, bandwidth and nulls are our own choice (feature dynamics, section 2.3): those of arXiv 2509.20334
were not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from featdyn.analysis.inputs.probe_sets import ProbeSets, spread
from featdyn.analysis.inputs.stitchable import Stitchable, cut_network
from featdyn.analysis.options import DensityOptions
from featdyn.compute import SERIAL, Plan, Workers, same
from featdyn.statistics import Gram, two_sample
from featdyn.statistics.multiplicity import benjamini_hochberg, westfall_young
from featdyn.statistics.two_sample import TwoSampleResult
from featdyn.store import Run
from featdyn.validation import validate
from featdyn_kernels.eigh import eigh

WIDTH = 50
"""Principal components in which the distances of more than three dimensions are taken."""
FITTED = 1000
"""Rows, evenly over checkpoints, that the common basis is fitted on."""
MEASURES: dict[str, Callable[..., TwoSampleResult]] = {
    "total_variation": two_sample.kde_total_variation,
    "mmd": two_sample.mmd,
    "energy": two_sample.energy,
    "sliced_wasserstein": two_sample.sliced_wasserstein,
    "classifier": two_sample.classifier,
}
FIELDS = ("statistic", "excess", "null_mean", "null_deviation", "pvalue")
PAIRS = 4
"""Pairs of checkpoints in a task."""
DIMS = ("measure", "cut", "set", "pair")

Points: TypeAlias = NDArray[np.float32]


def density(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: Workers = SERIAL,
    **options: Any,
) -> xr.Dataset:
    """Measure the distance of a set's features between pairs of checkpoints.

    All checkpoints are projected onto one principal basis, fitted on rows of all of them. Total variation is taken in
    its first ``components``, the other distances in its first 50. The probes of both samples are the same, so the null
    swaps the two features of a probe,
    and those of probes of one origin together.

    Parameters
    ----------
    run, model, progress, workers
        As for :func:`featdyn.analysis.composites.consistency.compute.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.DensityOptions`.

    Returns
    -------
    xarray.Dataset
        Over (measure, cut, set, pair): ``statistic``; ``null_mean`` and ``null_deviation`` under permutation, and
        ``excess``, the statistic minus that mean, which is what to read of a biased distance; ``pvalue``, and adjusted
        over cuts, sets and pairs for each measure ``westfall_young`` (familywise, by the maximum of statistics that
        share their labellings) and ``benjamini_hochberg``. ``explained (cut, set,
        component)``: the share of the variance of all checkpoints along each axis of the basis. Coordinates ``t1``,
        ``t2``, ``step1`` and ``step2`` of a pair.
    """
    chosen = validate(DensityOptions, options, "density")
    parts, sets = cut_network(run, model, chosen.cuts, chosen.features), ProbeSets.of(run)
    kept, pairs = spread(run, sets, chosen.samples), _pairs(run.checkpoints, chosen.pairs)
    workers.admit(plan(run, parts, kept, len(pairs)))
    done, total = 0, len(kept) * (1 + run.checkpoints + len(parts.cuts) * len(pairs))

    def count(tasks: int) -> None:
        nonlocal done
        done += tasks
        if progress:
            progress(done, total)

    shape = len(MEASURES), len(parts.cuts), len(kept), len(pairs)
    found = {name: np.full(shape, np.nan) for name in FIELDS}
    explained = np.full((*shape[1:3], WIDTH), np.nan)
    points: dict[tuple[int, int], list[Points]] = {}  # (cut, set): a checkpoint after the other
    bases = _bases(run, parts, kept, chosen, workers, count)
    for s, of_cuts in _projected(run, parts, kept, bases, workers):
        count(1)
        for c, z in enumerate(of_cuts):
            points.setdefault((c, s), []).append(z)
    for s, of_set in enumerate(bases):
        for c, basis in enumerate(of_set):
            explained[c, s, : len(basis.explained)] = basis.explained
    items = [
        (c, s, start) for s in range(len(kept)) for c in range(len(parts.cuts)) for start in range(0, len(pairs), PAIRS)
    ]
    origin = run.coords["origin"].values if "origin" in run.coords else None
    n = run.schema.samples
    labels = two_sample.labellings(n, n, chosen.permutations, chosen.seed, paired=True, groups=origin)
    null = np.full((chosen.permutations, *shape), np.nan)
    state = points, pairs, chosen, [(labels[:, np.r_[m, n + m]], None if origin is None else origin[m]) for m in kept]
    with workers.stage(state, partial(same, state)) as stage:
        for (c, s, start), values in zip(items, stage.map(_distances, items), strict=True):
            for name, value in zip(FIELDS, values, strict=False):
                found[name][:, c, s, start : start + PAIRS] = value
            null[:, :, c, s, start : start + PAIRS] = values[len(FIELDS) :]
            count(values.shape[-1])
    adjusted = {
        "westfall_young": np.stack([westfall_young(found["statistic"][m], null[:, m]) for m in range(len(MEASURES))]),
        "benjamini_hochberg": np.stack([benjamini_hochberg(p) for p in found["pvalue"]]),
    }
    coords = parts.coords(run, sets).drop_dims(["t1", "t2"])
    coords["set_size"] = "set", [len(mine) for mine in kept]
    steps = run.values("step")
    for end, times in enumerate(np.array(pairs).reshape(-1, 2).T, 1):
        coords = coords.assign_coords({f"t{end}": ("pair", times), f"step{end}": ("pair", steps[times])})
    return (
        coords.assign_coords(measure=np.array(list(MEASURES), dtype=object))
        .assign({name: (DIMS, values) for name, values in (found | adjusted).items()})
        .assign(explained=(("cut", "set", "component"), explained))
        .assign_attrs(options=chosen.model_dump(mode="json"))
    )


def plan(run: Run, parts: Stitchable, kept: list[NDArray[np.intp]], pairs: int) -> Plan:
    """Return what the distances of so many pairs will need."""
    widths, rows = [prod(cut.shape) for cut in parts.cuts], max(map(len, kept))
    sets, steps, probes = len(kept), run.checkpoints, sum(map(len, kept))
    return Plan(
        f"{len(parts.cuts)} cuts x {sets} sets of up to {rows:,} probes x {pairs} pairs of checkpoints",
        tasks=2 * sets * steps + sets * len(parts.cuts) * -(-pairs // PAIRS),
        reads=parts.features.stored_bytes * (steps * probes + sets * FITTED) // run.schema.samples,
        task={
            "features": parts.pass_bytes,
            "rows to fit": 4 * FITTED * (sum(widths) + max(widths)) + 3 * 8 * FITTED**2,
        },
        state=parts.held | {"axes": 4 * WIDTH * sets * sum(widths)},
        result={"points": 4 * WIDTH * len(widths) * steps * probes},
    )


def _pairs(checkpoints: int, which: str) -> list[tuple[int, int]]:
    if which == "last":
        return [(t, checkpoints - 1) for t in range(checkpoints - 1)]
    if which == "consecutive":
        return [(t, t + 1) for t in range(checkpoints - 1)]
    return [(t1, t2) for t1 in range(checkpoints) for t2 in range(t1 + 1, checkpoints)]


@dataclass(frozen=True)
class _Basis:
    """The common principal basis of all checkpoints of one cut and set."""

    axes: NDArray[np.float32]  # (F, components), largest variance first
    offset: NDArray[np.float32]  # (components,), of the mean of the rows that it was fitted to
    explained: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> _Basis:
        """Fit the basis to rows ``(n, F)`` of all checkpoints, by their inner products: no copy of them is made."""
        products = Gram.of(rows).centred
        values, vectors = (np.asarray(found)[..., ::-1] for found in eigh(products, min(WIDTH, *rows.shape)))
        kept = values > values[0] * len(rows) * np.finfo(np.float64).eps
        kept[0] = True  # also where nothing varies
        combination = vectors[:, kept] / np.sqrt(np.where(values > 0, values, 1.0)[kept])
        # Its columns sum to zero, as those of centred products do, so the mean need not be taken from the rows.
        axes = rows.T @ (combination - combination.mean(0)).astype(np.float32)
        offset = rows.mean(0, dtype=np.float64) @ axes
        return cls(axes, offset.astype(np.float32), values[kept] / (np.trace(products) or 1.0))


def _bases(
    run: Run,
    parts: Stitchable,
    kept: list[NDArray[np.intp]],
    options: DensityOptions,
    workers: Workers,
    count: Callable[[int], None],
) -> list[list[_Basis]]:
    """Fit the bases of each set and cut, on a share of the probes at every checkpoint."""
    groups = []
    for mine in kept:
        rows = max(2, min(len(mine), FITTED // run.checkpoints))
        order = np.random.default_rng(options.seed).permutation(len(mine))
        groups.append([(t, mine[np.sort(order[:rows])]) for t in range(run.checkpoints)])
    found = []
    with workers.stage(parts, parts.again) as stage:
        for of_set in stage.fold(_rows, groups, _joined, _fitted):
            found.append(of_set)
            count(1)
    return found


Rows: TypeAlias = list[list[NDArray[np.float32]]]  # of each cut, a checkpoint's after the other


def _rows(parts: Stitchable, item: tuple[int, NDArray[np.intp]]) -> Rows:
    return [[z.flatten(1).cpu().numpy()] for z in parts.features.whole(*item)]


def _joined(a: Rows, b: Rows) -> Rows:
    return [of_cut + more for of_cut, more in zip(a, b, strict=True)]


def _fitted(parts: Stitchable, rows: Rows) -> list[_Basis]:
    return [_Basis.of(np.concatenate(of_cut)) for of_cut in rows]


def _projected(
    run: Run, parts: Stitchable, kept: list[NDArray[np.intp]], bases: list[list[_Basis]], workers: Workers
) -> Iterator[tuple[int, list[Points]]]:
    """Yield sets, checkpoint by checkpoint, with their points ``(probe, component)`` in the basis of each cut."""
    items = [(s, t) for s in range(len(kept)) for t in range(run.checkpoints)]
    again = partial(_projector, parts.again, kept, bases)
    with workers.stage((parts, kept, bases), again) as stage:
        for (s, _), found in zip(items, stage.map(_project, items), strict=True):
            yield s, found


def _projector(parts: Callable[[], Stitchable], kept: Any, bases: Any) -> tuple[Stitchable, Any, Any]:
    return parts(), kept, bases


def _project(
    state: tuple[Stitchable, list[NDArray[np.intp]], list[list[_Basis]]], item: tuple[int, int]
) -> list[Points]:
    parts, kept, bases = state
    s, t = item
    found = [np.empty((len(kept[s]), basis.axes.shape[1]), np.float32) for basis in bases[s]]
    for mine, features in parts.features.over(t, kept[s]):  # all of a checkpoint's features at once would not fit
        for points, basis, z in zip(found, bases[s], features, strict=True):
            points[mine] = z.flatten(1).cpu().numpy() @ basis.axes - basis.offset
    return found


Swaps: TypeAlias = tuple[NDArray[np.bool_], NDArray[Any] | None]  # of a set: labellings, origins of its probes
State: TypeAlias = tuple[dict[tuple[int, int], list[Points]], list[tuple[int, int]], DensityOptions, list[Swaps]]


def _distances(state: State, item: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return :data:`FIELDS` of every measure for a few pairs, then its null: ``(field, measure, pair)``."""
    points, pairs, options, swaps = state
    c, s, start = item
    found = []
    for t1, t2 in pairs[start : start + PAIRS]:
        results = _measured(points[c, s][t1], points[c, s][t2], options, swaps[s])
        fields = [[getattr(result, name) for result in results] for name in FIELDS]
        found.append([*fields, *np.stack([result.null for result in results], axis=1)])
    return np.moveaxis(np.array(found, dtype=np.float64), 0, -1)


def _measured(x: Points, y: Points, options: DensityOptions, swaps: Swaps) -> list[TwoSampleResult]:
    found = []
    for name, measure in MEASURES.items():
        width = options.components if name == "total_variation" else x.shape[1]
        a, b = (np.ascontiguousarray(z[:, :width]) for z in (x, y))
        found.append(measure(a, b, paired=True, rng=options.seed, permutations=swaps[0], groups=swaps[1]))
    return found
