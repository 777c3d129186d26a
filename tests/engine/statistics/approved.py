"""What functions of arrays return when nothing more is said: ``python -m tests.engine.statistics.approved`` anew.

Defaults, seeds and second kinds of each function, on a few arrays, held to a few numbers as results of analyses are
(:mod:`tests.engine.approved_results`). That they are right other tests say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featdyn.statistics import (
    alignment,
    count_directions,
    interactions,
    isotropy,
    repeats,
    representation,
    resampling,
    richness,
    similarity,
    sphericity,
    tail_shape,
    two_sample,
)
from featdyn.statistics.result import Center
from featdyn.statistics.softmax_probe import fit
from tests.engine.approved_results import numbers, write

PAGE = Path(__file__).with_suffix(".json")
RNG = np.random.default_rng(20)
X = RNG.standard_normal((36, 5)) * [3, 2, 1, 1, 0.5]
Y = X @ RNG.standard_normal((5, 4)) + RNG.standard_normal((36, 4))
Z = RNG.standard_normal((30, 5)) * [1, 2, 1, 1, 1] + [0.5, 0, 0, 0, 0]
LABELS, GROUPS = np.arange(36) % 3, np.arange(36) // 2
SHIFTED = X + 2 * np.eye(5)[LABELS]
V = RNG.standard_normal((6, 16)).cumsum(-1)
MODEL = interactions.and_or(V, tolerance=0.5)
BASES = [interactions.and_or(V + 0.3 * RNG.standard_normal(V.shape), tolerance=0.5) for _ in range(2)]
STRENGTH = interactions.strength_by_order(MODEL)
STEPS = np.arange(8)
CURVES = np.abs(np.sin(np.arange(8) * 0.7)[:, None] + 0.2 * RNG.standard_normal((8, 6))) + 0.5
WIDE = RNG.standard_normal((6, 12)) * np.linspace(1, 2, 12)
CENTRES: dict[Center, np.ndarray[Any, Any]] = {"estimated": X, "known": Z}


def _both_centres(name: str) -> list[Any]:
    test = getattr(sphericity, name)
    return [test(WIDE if name == "quasi_lrt" else x, center=center) for center, x in CENTRES.items()]


CALLS: dict[str, Callable[[], Any]] = {
    "drift_share": lambda: alignment.drift_share(X, X @ np.ones(5), 5.0),
    "effective_rank": lambda: [alignment.effective_rank(X, of=of) for of in ("matrix", "covariance")],
    "explained_shares": lambda: alignment.explained_shares(X, (1, 3)),
    "participation_ratio": lambda: [alignment.participation_ratio(X, unbiased=u) for u in (False, True)],
    "split_halves": lambda: [alignment.split_halves(x, (1, 3), center=c) for c, x in CENTRES.items()],
    "stable_rank": lambda: alignment.stable_rank(X),
    "count_directions": lambda: count_directions(X),
    "isotropy": lambda: [isotropy(X), isotropy(X, groups=GROUPS), isotropy(Z, center="known")],
    "tail_shape": lambda: tail_shape(X),
    **{name: partial(_both_centres, name) for name in sphericity.__all__},
    "energy": lambda: [two_sample.energy(X, Z), two_sample.energy(X, SHIFTED, paired=True, groups=GROUPS)],
    "mmd": lambda: [two_sample.mmd(X, Z), two_sample.mmd(X, SHIFTED, bandwidth=[1.0, 3.0], paired=True)],
    "sliced_wasserstein": lambda: [two_sample.sliced_wasserstein(X, Z), two_sample.sliced_wasserstein(X, Z, p=1)],
    "classifier": lambda: two_sample.classifier(X, SHIFTED, paired=True, groups=GROUPS),
    "kde_total_variation": lambda: two_sample.kde_total_variation(X[:, :2], Z[:, :2]),
    "similarity": lambda: [
        getattr(similarity, name)(X, Y)
        for name in ("angular", "information_imbalance", "jaccard", "mean_cca", "procrustes", "pwcca", "svcca")
    ],
    "rsa": lambda: [
        similarity.rsa(similarity.dissimilarities(X), similarity.dissimilarities(Y), compare=c)
        for c in ("spearman", "cosine")
    ],
    "dissimilarities": lambda: [similarity.dissimilarities(X), similarity.dissimilarities(X, of="euclidean")],
    "noise_ceiling": lambda: similarity.noise_ceiling([similarity.dissimilarities(x) for x in (X, Y, SHIFTED)]),
    "jaccard_chance": lambda: similarity.jaccard_chance(36, 10),
    "class_manifolds": lambda: representation.class_manifolds(SHIFTED, LABELS),
    "mean_field": lambda: representation.mean_field(SHIFTED, LABELS),
    "condition_number": lambda: representation.condition_number([4.0, 1.0, 1e-3, 1e-9]),
    "sparsity": lambda: [representation.gini(np.abs(X)), representation.hoyer(X)],
    "local_pca": lambda: representation.local_pca(X),
    "power_law": lambda: representation.power_law(np.arange(1.0, 20) ** -1.3 + 0.01),
    "proportional_effective_rank": lambda: [
        representation.proportional_effective_rank(X, of=of) for of in ("features", "weights")
    ],
    "two_nn": lambda: [representation.two_nn(X), representation.two_nn(X, fit="line")],
    "singular_values": lambda: [representation.singular_values(X, centre=c) for c in (True, False)],
    "intervals": lambda: [
        resampling.share_interval(LABELS > 0),
        resampling.share_interval(LABELS > 0, groups=GROUPS),
        resampling.difference_interval(LABELS - 1),
        resampling.difference_interval(LABELS - 1, groups=GROUPS),
        resampling.mean_interval(X[:, 0]),
        resampling.mean_interval(X[:, 0], groups=GROUPS),
        resampling.wilson([0.1, 0.5], 20),
    ],
    "bootstrap_counts": lambda: [
        resampling.bootstrap_counts(9, 7, 3),
        resampling.bootstrap_counts(6, 5, 3, [0, 0, 1, 2, 2, 2]),
    ],
    "repeats": lambda: [
        (mine := repeats.mean_estimate(X[:6, 0])),
        mine.least_seen(),
        mine.within(-0.1, 0.1),
        mine.minus(1.0),
        repeats.two_level_estimate(X[:6, 0], X[:6, 1] ** 2),
        repeats.mean_difference(X[:6, 0], Z[:5, 0]),
    ],
    "softmax_probe": lambda: fit(SHIFTED @ SHIFTED.T, LABELS.astype(np.int64), GROUPS.astype(np.int64)),
    "feature_metrics": lambda: richness.feature_metrics(X, Y, np.eye(3)[LABELS]),
    "low_rank": lambda: [richness.low_rank_measure(X, Y, centring=c) for c in ("outputs", "projector")],
    "neural_collapse": lambda: richness.neural_collapse(SHIFTED, LABELS, outputs=Y[:, :3]),
    "kernel_deviation": lambda: richness.kernel_deviation(X, SHIFTED),
    "isotropic_reference": lambda: richness.isotropic_reference(5, 36, 3),
    "and_or": lambda: [MODEL.both, interactions.and_or(V, fold=0, tolerance=0.5).both],
    "indices": lambda: (
        [interactions.indices.shapley_values(V), interactions.indices.banzhaf_values(V)]
        + [
            getattr(interactions.indices, name)(V, 2)
            for name in (
                "shapley_interactions",
                "banzhaf_interactions",
                "k_shapley_values",
                "shapley_taylor_interactions",
                "faithful_shapley_interactions",
            )
        ]
    ),
    "strength": lambda: [
        STRENGTH,
        interactions.signed_strength_by_order(MODEL),
        interactions.mean_order(STRENGTH),
        interactions.normalised(STRENGTH),
        interactions.threshold_of_largest(MODEL),
        interactions.threshold_of_span(MODEL),
        interactions.salient(MODEL),
        interactions.top(MODEL, 5),
    ],
    "generalizable": lambda: [interactions.generalizable(MODEL, BASES, need=n) for n in ("one", "majority", "all")],
    "compare_layer": lambda: interactions.compare_layer(BASES[0], MODEL),
    "decay and spindle": lambda: [
        interactions.fit_decay_spindle(np.abs(STRENGTH) + 0.1),
        interactions.theory.spindle(5),
        interactions.theory.filter_norms(5, 0.2),
        interactions.theory.filter_ratios(5, 0.2),
    ],
    "joint_and_or": lambda: interactions.joint_and_or(np.stack([V, V + 0.1]), iterations=20),
    "sparse": lambda: interactions.sparse_interactions(
        lambda m: m[:, 0] * m[:, 1] + 2.0 * m[:, 2], 6, max_queries=3000
    ),
    "phases": lambda: [
        interactions.phases.peak(CURVES, CURVES + 1, STEPS),
        interactions.phases.peak(CURVES, CURVES + 1, STEPS, lowest=True),
        interactions.phases.change(CURVES, CURVES + 1, STEPS, 1, 6),
        interactions.phases.lasting_rise(CURVES, np.flip(CURVES, 0), STEPS),
    ],
}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a returned value is made of, with where it stands: arrays, numbers and words."""
    inside: Iterator[tuple[str, Any]] | None = None
    if is_dataclass(value) and not isinstance(value, type):
        inside = ((field.name, getattr(value, field.name)) for field in fields(value))
    elif isinstance(value, Mapping):
        inside = ((str(name), value[name]) for name in sorted(value))
    elif isinstance(value, (list, tuple)) and not all(isinstance(one, (int, float)) for one in value):
        inside = ((str(i), one) for i, one in enumerate(value))
    if inside is None:
        yield path, value
    else:
        for name, held in inside:
            yield from leaves(held, f"{path}.{name}" if path else name)


def found(name: str) -> dict[str, Any]:
    """Return a few numbers of each part of what a call returns, or its words."""
    said: dict[str, Any] = {}
    for path, value in leaves(CALLS[name]()):
        if isinstance(value, (bool, int, float, list, tuple, np.generic, np.ndarray)):
            array = np.ravel(np.asarray(value, np.float64))
            said[path] = {"of": len(array)} | numbers(array)
        elif value is None or isinstance(value, str):
            said[path] = value
    return said


def main() -> None:
    """Write what tests look at."""
    write(PAGE, {name: found(name) for name in CALLS})


if __name__ == "__main__":
    main()
