"""How far have distributions of features moved?

Dimension reduction, bandwidth and nulls are our own choice (feature dynamics, section 2.3): those of arXiv 2509.20334
were not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from featdyn.analysis.dissect import dissect
from featdyn.analysis.options import DensityOptions
from featdyn.analysis.sets import Sets
from featdyn.statistics import two_sample
from featdyn.statistics.multiplicity import benjamini_hochberg, holm
from featdyn.statistics.two_sample import TwoSampleResult
from featdyn.store import Run
from featdyn.validation import validate
from featdyn_kernels.eigh import gram_eigh

WIDTH = 50
"""Principal components in which the distances of more than three dimensions are taken."""
FITTED = 2000
"""Rows, evenly over checkpoints, that the common basis is fitted on."""
MEASURES: dict[str, Callable[..., TwoSampleResult]] = {
    "total_variation": two_sample.kde_total_variation,
    "mmd": two_sample.mmd,
    "energy": two_sample.energy,
    "sliced_wasserstein": two_sample.sliced_wasserstein,
    "classifier": two_sample.classifier,
}
FIELDS = ("statistic", "excess", "null_mean", "null_deviation", "pvalue")
DIMS = ("measure", "cut", "set", "pair")


def density(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Measure the distance of a set's features between pairs of checkpoints.

    All checkpoints are projected onto one principal basis, fitted on rows of all of them. Total variation is taken in
    its first ``components``, the other distances in its first 50. The probes of both samples are the same, so the null
    swaps the two features of a probe.

    Parameters
    ----------
    run, model, progress
        As for :func:`featdyn.analysis.consistency.consistency`.
    **options
        Fields of :class:`featdyn.analysis.options.DensityOptions`.

    Returns
    -------
    xarray.Dataset
        Over (measure, cut, set, pair): ``statistic``; ``null_mean`` and ``null_deviation`` under permutation, and
        ``excess``, the statistic minus that mean, which is what to read of a biased distance; ``pvalue``, and ``holm``
        and ``benjamini_hochberg``, adjusted over cuts, sets and pairs for each measure. ``explained (cut, set,
        component)``: the share of the variance of all checkpoints along each axis of the basis. Coordinates ``t1``,
        ``t2``, ``step1`` and ``step2`` of a pair.
    """
    chosen = validate(DensityOptions, options, "density")
    parts, sets = dissect(run, model, chosen.cuts), Sets.of(run)
    pairs = _pairs(run.checkpoints, chosen.pairs)
    kept = [np.flatnonzero(member)[: chosen.samples] for member in sets.members]
    shape = len(MEASURES), len(parts.cuts), len(sets.names), len(pairs)
    found = {name: np.full(shape, np.nan) for name in FIELDS}
    explained = np.full((*shape[1:3], WIDTH), np.nan)
    for s, mine in enumerate(kept):
        bases = [_Basis(run.checkpoints, len(mine), chosen.seed) for _ in parts.cuts]
        for t in range(run.checkpoints):
            for basis, z in zip(bases, parts.features.whole(t, mine), strict=True):
                basis.add(t, z.flatten(1).cpu().numpy())
        for basis in bases:
            basis.fit()
        for t in range(run.checkpoints):  # once more: all checkpoints' features at once would not fit
            for basis, z in zip(bases, parts.features.whole(t, mine), strict=True):
                basis.project(t, z.flatten(1).cpu().numpy())
        for c, basis in enumerate(bases):
            explained[c, s, : len(basis.explained)] = basis.explained
            for i, (t1, t2) in enumerate(pairs):
                for m, result in enumerate(_distances(basis.points[t1], basis.points[t2], chosen)):
                    for name in FIELDS:
                        found[name][m, c, s, i] = getattr(result, name)
                if progress:
                    done = (s * len(bases) + c) * len(pairs) + i + 1
                    progress(done, len(kept) * len(bases) * len(pairs))
    adjusted = {
        adjust.__name__: np.stack([adjust(p.ravel()).reshape(shape[1:]) for p in found["pvalue"]])
        for adjust in (holm, benjamini_hochberg)
    }
    coords = parts.coords(run, sets).drop_dims(["t1", "t2"])
    coords["set_size"] = "set", [len(mine) for mine in kept]
    steps = run.values("step")
    columns = {f"{name}{end}": [of(pair[end - 1]) for pair in pairs] for end in (1, 2) for name, of in _columns(steps)}
    return (
        coords.assign_coords(measure=np.array(list(MEASURES), dtype=object))
        .assign_coords({name: ("pair", values) for name, values in columns.items()})
        .assign({name: (DIMS, values) for name, values in (found | adjusted).items()})
        .assign(explained=(("cut", "set", "component"), explained))
        .assign_attrs(options=chosen.model_dump(mode="json"))
    )


def _columns(steps: NDArray[Any]) -> Iterator[tuple[str, Callable[[int], int]]]:
    yield "t", int
    yield "step", lambda t: int(steps[t])


def _pairs(checkpoints: int, which: str) -> list[tuple[int, int]]:
    if which == "last":
        return [(t, checkpoints - 1) for t in range(checkpoints - 1)]
    if which == "consecutive":
        return [(t, t + 1) for t in range(checkpoints - 1)]
    return [(t1, t2) for t1 in range(checkpoints) for t2 in range(t1 + 1, checkpoints)]


def _distances(x: NDArray[Any], y: NDArray[Any], options: DensityOptions) -> Iterator[TwoSampleResult]:
    for name, measure in MEASURES.items():
        width = options.components if name == "total_variation" else x.shape[1]
        null = {} if name == "classifier" else {"permutations": options.permutations}
        a, b = (np.ascontiguousarray(z[:, :width]) for z in (x, y))
        yield measure(a, b, paired=True, rng=options.seed, **null)


class _Basis:
    """The common principal basis of all checkpoints of one cut and set, and the points in it."""

    def __init__(self, checkpoints: int, samples: int, seed: int) -> None:
        rows = max(2, min(samples, FITTED // checkpoints))
        self._rows = np.sort(np.random.default_rng(seed).permutation(samples)[:rows])
        self._fitted: list[NDArray[Any]] = []
        self._mean: NDArray[Any] = np.zeros(0)
        self._axes: NDArray[Any] = np.zeros((0, 0))
        self.explained: NDArray[np.float64] = np.zeros(0)
        self.points: dict[int, NDArray[np.float32]] = {}

    def add(self, t: int, features: NDArray[Any]) -> None:
        """Take a checkpoint's share of the rows to fit."""
        self._fitted.append(features[self._rows])

    def fit(self) -> None:
        """Find the basis."""
        x = np.concatenate(self._fitted).astype(np.float64)
        self._fitted = []
        self._mean = x.mean(0)
        x -= self._mean
        values, vectors = gram_eigh(x, min(WIDTH, *x.shape))
        self._axes = np.asarray(vectors)[:, ::-1]
        self.explained = np.asarray(values)[::-1] / np.vdot(x, x)

    def project(self, t: int, features: NDArray[Any]) -> None:
        """Keep a checkpoint's points."""
        self.points[t] = ((features - self._mean) @ self._axes).astype(np.float32)
