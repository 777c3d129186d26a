"""Distances between the distributions of features at two checkpoints, with nulls that all cells share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from featdyn.analysis.context import Context
from featdyn.analysis.features.density import DensityOptions
from featdyn.analysis.features.density.basis import FITTED, WIDTH, Points, fitted, projected
from featdyn.analysis.inputs.rounded_away import constant, lost
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.status import DEAD, FEW, NO_LATER, NOT_FINITE, Status
from featdyn.compute import Plan
from featdyn.statistics import two_sample
from featdyn.statistics.multiplicity import westfall_young
from featdyn.statistics.two_sample import TwoSampleResult, labellings
from featdyn.store import ArraySpec, Run

MEASURES: dict[str, tuple[Callable[..., TwoSampleResult], int]] = {
    "total_variation": (two_sample.kde_total_variation, 2),
    "mmd": (two_sample.mmd, 2),
    "energy": (two_sample.energy, 2),
    "sliced_wasserstein": (two_sample.sliced_wasserstein, 2),
    "classifier": (two_sample.classifier, 4),
}
"""Each with the images that it needs; total variation needs more in more dimensions."""
FIELDS = ("statistic", "excess", "null_mean", "null_deviation", "pvalue")
PAIRS = 4
"""Pairs of checkpoints in a task."""
DIMS = ("measure", "cut", "set", "pair")
BESIDE = "features_vary_outside_the_common_basis"
REFUSALS = {"half of the points coincide": "half_of_the_points_coincide", "lower-dimensional": "points_span_too_little"}
"""What measures say where they cannot be taken, and the reason that cells are given; other words are one themselves."""
FAMILY = (
    "adjusted: for each measure over all cuts, sets and pairs, by the maximum over the family under common labellings "
    "(Westfall and Young 1993, step-down). Labellings swap the two checkpoints of an image; tests of a family are "
    "assumed to be exchangeable under common swaps."
)


@dataclass(frozen=True)
class _State:
    """What tasks need: points by (cut, set), a checkpoint's after the other; labellings and images of each set."""

    points: dict[tuple[int, int], list[Points]]
    pairs: list[tuple[int, int]]
    specs: list[ArraySpec | None]  # of the cuts, None where features were computed
    labels: list[NDArray[np.bool_]]
    origins: list[NDArray[np.int64]]
    options: DensityOptions


def density(context: Context[DensityOptions]) -> xr.Dataset:
    """Measure the distance of a set's features between pairs of checkpoints.

    All checkpoints are projected onto one principal basis, fitted on rows of all of them. The probes of both samples
    are the same, so the null swaps the two features of an image, and every cell swaps the same images.
    """
    run, sets, options, parts = context.run, context.sets, context.options, context.layers()
    kept, pairs = sets.choose(run, options.samples, options.seed), _pairs(run.checkpoints, options.pairs)
    origins = [sets.origins[mine] for mine in kept]
    # Features are asked for twice: to fit axes, and to project.
    needs = plan(run, parts, kept, len(pairs), options.permutations)
    parts, needs = parts.in_order(run, needs, context.workers.limits(), 2)
    context.admit(needs)
    shape = len(MEASURES), len(parts.cuts), len(kept), len(pairs)
    found, status = {name: np.full(shape, np.nan) for name in FIELDS}, Status(DIMS, shape)
    null = np.full((options.permutations, *shape), np.nan)
    explained = np.full((*shape[1:3], WIDTH), np.nan)
    points: dict[tuple[int, int], list[Points]] = {}
    bases = fitted(context, parts, kept)
    for s, of_cuts in projected(context, parts, kept, bases):
        for c, z in enumerate(of_cuts):
            points.setdefault((c, s), []).append(z)
    for s, of_set in enumerate(bases):
        for c, basis in enumerate(of_set):
            explained[c, s, : len(basis.explained)] = basis.explained
    items = [(c, s, i) for s in range(len(kept)) for c in range(len(parts.cuts)) for i in range(0, len(pairs), PAIRS)]
    stored = [(cut.name, parts.sources[cut.name] == "stored") for cut in parts.cuts]
    specs = [run.schema[f"layers/{name}/activation"] if there else None for name, there in stored]
    state = _State(points, pairs, specs, _labels(origins, options), origins, options)
    with context.stage(state) as stage:
        for (c, s, start), of_pairs in zip(items, context.each(stage.map(_distances, items)), strict=True):
            for p, of_measures in enumerate(of_pairs, start):
                for m, result in enumerate(of_measures):
                    if isinstance(result, str):
                        status.mark(result, (m, c, s, p))
                        continue
                    null[:, m, c, s, p] = result.null
                    for name in FIELDS:
                        found[name][m, c, s, p] = getattr(result, name)
    found["adjusted"] = np.stack([westfall_young(found["statistic"][m], null[:, m]) for m in range(len(MEASURES))])
    coords = parts.coords(run, sets).drop_dims(["t1", "t2"])
    coords["set_size"] = "set", [len(mine) for mine in kept]
    steps = run.values("step")
    for end, times in enumerate(np.array(pairs, np.int64).reshape(-1, 2).T, 1):
        coords = coords.assign_coords({f"t{end}": ("pair", times), f"step{end}": ("pair", steps[times])})
    return (
        coords.assign_coords(measure=np.array(list(MEASURES), dtype=object))
        .assign({name: (DIMS, values) for name, values in found.items()})
        .assign(explained=(("cut", "set", "component"), explained), status=status.variable())
        .assign_attrs(multiplicity=FAMILY, **({} if pairs else {"empty": f"there are no pairs: {NO_LATER}"}))
    )


def plan(run: Run, parts: Stitchable, kept: list[NDArray[np.intp]], pairs: int, permutations: int) -> Plan:
    """Return what the distances of so many pairs will need."""
    widths, rows = [prod(cut.shape) for cut in parts.cuts], max(map(len, kept))
    sets, steps, probes = len(kept), run.checkpoints, sum(map(len, kept))
    fit = max(3, steps * min(rows, max(2, FITTED // steps)))
    turned = 32 * max(min(WIDTH, width, fit) * width for width in widths)  # by QR: three times float64, and more
    return Plan(
        f"{len(parts.cuts)} cuts x {sets} sets of up to {rows:,} probes x {pairs} pairs of checkpoints",
        tasks=sets * (1 + steps) + sets * len(parts.cuts) * -(-pairs // PAIRS),
        reads=2 * steps * parts.features.stored_bytes,  # at most: to fit axes, and to project
        task={
            "features": parts.pass_bytes + parts.features.block_bytes,  # the file of a block, beside what it holds
            "rows to fit": 4 * fit * (sum(widths) + max(widths)) + 4 * 8 * fit**2 + turned,
        },
        state=parts.held | {"axes": 4 * sets * sum(min(WIDTH, width, fit) * width for width in widths)},
        result={
            "points": 4 * steps * probes * sum(min(WIDTH, width, fit) for width in widths),
            "nulls": permutations * (8 * len(MEASURES) * len(widths) * sets * pairs + 2 * probes),
        },
    )


def _pairs(checkpoints: int, which: str) -> list[tuple[int, int]]:
    if which == "last":
        return [(t, checkpoints - 1) for t in range(checkpoints - 1)]
    if which == "consecutive":
        return [(t, t + 1) for t in range(checkpoints - 1)]
    return [(t1, t2) for t1 in range(checkpoints) for t2 in range(t1 + 1, checkpoints)]


def _labels(origins: list[NDArray[np.int64]], options: DensityOptions) -> list[NDArray[np.bool_]]:
    """Return labellings for each set, in which an image is swapped in all sets or in none."""
    every = np.concatenate(origins)
    first = labellings(len(every), len(every), options.permutations, options.seed, paired=True, groups=every)[
        :, : len(every)
    ]
    of_sets = np.split(first, np.cumsum([len(mine) for mine in origins])[:-1], axis=1)
    return [np.concatenate([mine, ~mine], axis=1) for mine in of_sets]


def _distances(state: _State, item: tuple[int, int, int]) -> list[list[TwoSampleResult | str]]:
    """Return for a few pairs what each measure found, or why it cannot be taken."""
    c, s, start = item
    points, pairs = state.points[c, s], state.pairs[start : start + PAIRS]
    rest = state.specs[c], state.labels[s], state.origins[s], state.options
    return [_measured(points[t1], points[t2], *rest) for t1, t2 in pairs]


def _measured(
    one: Points,
    other: Points,
    spec: ArraySpec | None,
    labels: NDArray[np.bool_],
    origins: NDArray[np.int64],
    options: DensityOptions,
) -> list[TwoSampleResult | str]:
    images, found = len(np.unique(origins)), list[TwoSampleResult | str]()
    x, y = one.beside(other)
    pooled = np.concatenate([x, y])
    flaw = "" if np.isfinite(pooled).all() else NOT_FINITE
    if not flaw:
        still = (np.ptp(pooled, axis=0) <= np.maximum(one.rounding, other.rounding)).all()
        if still:
            unknown = constant(spec) if spec is not None and not one.zero else ""
            flaw = BESIDE if one.varies or other.varies else unknown or DEAD
        elif spec is not None:
            variance = float(pooled.var(0, dtype=np.float64).sum())
            flaw = lost(spec, (one.size + other.size) / 2, variance, averaged=False)
    for name, (measure, least) in MEASURES.items():
        a, b = (x, y)
        if name == "total_variation" and not flaw:
            a, b = _spanned(x[:, : options.components], y[:, : options.components])
            least = 2 * (a.shape[1] + 1)
        if images < least or flaw:
            found.append(FEW if images < least else flaw)
            continue
        try:
            result = measure(a, b, paired=True, groups=origins, permutations=labels, rng=options.seed)
            found.append(result if np.isfinite([result.statistic, *result.null]).all() else NOT_FINITE)
        except ValueError as error:
            said = str(error)
            known = (reason for words, reason in REFUSALS.items() if words in said)
            found.append(next(known, "_".join(re.findall(r"\w+", said.lower()))))
    return found


def _spanned(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return points in as many dimensions as they span: the total variation is the same, and densities exist."""
    pooled = np.concatenate([x, y]).astype(np.float64)
    _, sizes, axes = np.linalg.svd(pooled - pooled.mean(0), full_matrices=False)
    spanned = sizes > 1e-5 * sizes[0]
    if spanned.all():
        return np.ascontiguousarray(x), np.ascontiguousarray(y)
    return tuple((z @ axes[spanned].T).astype(np.float32) for z in (x, y))
