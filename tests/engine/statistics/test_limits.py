"""Arguments of the statistics at the limits of their range, where they are taken, and just beyond: refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featdyn.statistics import (
    alignment,
    count_directions,
    interactions,
    isotropy,
    multiplicity,
    representation,
    resampling,
    similarity,
    sphericity,
    two_sample,
)
from featdyn.statistics.jackknife import jackknife_interval
from featdyn.statistics.ratios import ratio_interval
from tests.engine.limits import check_limits

RNG = np.random.default_rng(0)
X, Y, V = RNG.standard_normal((12, 5)), RNG.standard_normal((12, 5)), RNG.standard_normal((3, 8))
MODEL = interactions.and_or(V, tolerance=1e9)
CLASSES = np.arange(12) % 2
TINY = 1e-9
STRENGTH = np.array([[0.5, 0.3, 0.2, 0.1]])

CASES: dict[str, tuple[Callable[[Any], Any], list[Any], list[Any]]] = {
    # what: call, values at its limits, values beyond them
    "two_nn dropped": (lambda v: representation.two_nn(X, dropped=v), [0.0, 0.5], [-TINY, 1.0]),
    "local_pca k": (lambda v: representation.local_pca(X, k=v), [2], [1]),
    "local_pca share": (lambda v: representation.local_pca(X, k=4, share=v), [TINY, 1.0], [0.0, 1 + TINY]),
    "power_law first": (lambda v: representation.power_law(np.arange(9.0, 0, -1), first=v), [1], [0]),
    "mean_field draws": (lambda v: representation.mean_field(X, CLASSES, draws=v), [2], [1]),
    "mean_field classes": (lambda v: representation.mean_field(X, CLASSES * v, draws=2), [1], [0]),
    "class_manifolds labels": (lambda v: representation.class_manifolds(X, CLASSES + v), [0], [-1]),
    "explained_shares k": (lambda v: alignment.explained_shares(X, [v], replicates=2), [1, 5], [0, 6]),
    "explained_shares replicates": (lambda v: alignment.explained_shares(X, [1], replicates=v), [1], [0]),
    "count_directions alpha": (lambda v: count_directions(X, alpha=v), [TINY, 1 - TINY], [0.0, 1.0]),
    "isotropy alpha": (lambda v: isotropy(X, alpha=v), [TINY, 1 - TINY], [0.0, 1.0]),
    "sign_test rows": (lambda v: sphericity.sign_test(X[:v], center="known"), [3], [2]),
    "unbiased rows": (lambda v: sphericity.chen_zhang_zhong(X[:v]), [4], [3]),
    "unbiased rows about zero": (lambda v: sphericity.chen_zhang_zhong(X[:v], center="known"), [3], [2]),
    "exact replicates": (lambda v: sphericity.exact_norm_conditional(X, replicates=v), [1], [0]),
    "exact rows": (lambda v: sphericity.exact_norm_conditional(X[:v], replicates=2), [4], [3]),
    "mauchly columns": (lambda v: sphericity.mauchly(X[:6, :v], center="known"), [5], []),
    "kde columns": (lambda v: two_sample.kde_total_variation(X[:, :v], Y[:, :v], permutations=1), [1, 3], [4]),
    "kde rows": (lambda v: two_sample.kde_total_variation(X[:v, :2], Y[:, :2], permutations=1), [6], [5]),
    "classifier rows": (lambda v: two_sample.classifier(X[:v], Y, permutations=1), [4], [3]),
    "mmd rows": (lambda v: two_sample.mmd(X, Y[:v], permutations=1), [2], [1]),
    "energy columns": (lambda v: two_sample.energy(X[:, :v], Y[:, :v], permutations=1), [1], [0]),
    "permutations": (lambda v: two_sample.mmd(X, Y, permutations=v), [1], [0]),
    "svcca share": (lambda v: similarity.svcca(X, Y, share=v), [TINY, 1.0], [0.0, 1 + TINY]),
    "jaccard k": (lambda v: similarity.jaccard(X, Y, k=v), [1, 11], [0]),
    "wilson shares": (lambda v: resampling.wilson(v, 4), [0.0, 1.0], [-TINY, 1 + TINY]),
    "wilson size": (lambda v: resampling.wilson(0.5, v), [1], [0]),
    **{
        f"level of {what}": (call, [TINY, 1 - TINY], [0.0, 1.0])
        for what, call in {
            "wilson": lambda v: resampling.wilson(0.5, 4, level=v),
            "a share": lambda v: resampling.share_interval([0, 1], level=v),
            "a difference": lambda v: resampling.difference_interval([0, 1], level=v),
            "a mean": lambda v: resampling.mean_interval([1.0], level=v),
            "a ratio": lambda v: ratio_interval([0, 1], [1, 1], level=v),
            "a jackknife": lambda v: jackknife_interval(1.0, [1.0], level=v),
        }.items()
    },
    "shares of a share": (lambda v: resampling.share_interval([0.5, v]), [0.0, 1.0], [-TINY, 1 + TINY]),
    "shares of a difference": (lambda v: resampling.difference_interval([0, v]), [-1.0, 1.0], [-1 - TINY, 1 + TINY]),
    "benjamini_hochberg": (lambda v: multiplicity.benjamini_hochberg([v, 0.5]), [0.0, 1.0], [-TINY, 1 + TINY]),
    "holm": (lambda v: multiplicity.holm([v, 0.5]), [0.0, 1.0], [-TINY, 1 + TINY]),
    "westfall_young draws": (lambda v: multiplicity.westfall_young([1.0], np.zeros((v, 1))), [1], [0]),
    "order": (lambda v: interactions.indices.shapley_interactions(V, v), [1, 3], [0, 4]),
    "top": (lambda v: interactions.top(MODEL, v), [1, MODEL.both[0].size], [0, MODEL.both[0].size + 1]),
    "threshold share": (lambda v: interactions.threshold_of_span(MODEL, share=v), [0.0, 1.0], [-TINY, 1 + TINY]),
    "threshold": (lambda v: interactions.salient(MODEL, v), [0.0], [-TINY, np.inf]),
    "decay orders": (lambda v: interactions.fit_decay_spindle(STRENGTH[:, :v]), [4], [3]),
    "decay strength": (lambda v: interactions.fit_decay_spindle(STRENGTH * [1, 1, 1, v]), [0.0], [-TINY]),
    "theory noise": (lambda v: interactions.theory.filter_norms(3, v), [TINY], [0.0, np.inf]),
    "theory variables": (lambda v: interactions.theory.spindle(v), [1], [0]),
    "in a row": (
        lambda v: interactions.phases.lasting_rise(np.ones((5, 3)), np.ones((5, 3)), np.arange(5), in_a_row=v),
        [1, 4],
        [0, 5],
    ),
    "slack": (lambda v: interactions.and_or(V, slack=v, tolerance=1e9), [0.0], [-TINY, np.inf]),
    "sgd learning rate": (lambda v: sgd(learning_rate=v), [TINY], [0.0, np.inf]),
    "sgd iterations": (lambda v: sgd(iterations=v), [1], [0]),
    "sgd momentum": (lambda v: sgd(momentum=v), [0.0], [-TINY, 1.0]),
    "joint share": (lambda v: joint(share=v), [0.0, 1.0], [-TINY, 1 + TINY]),
    "joint slack": (lambda v: joint(slack=v), [0.0], [-TINY, np.inf]),
    "joint iterations": (lambda v: joint(iterations=v), [1], [0]),
    "joint tolerance": (lambda v: joint(tolerance=v), [0.0], [-TINY]),
    "joint networks": (lambda v: interactions.joint_and_or(np.ones((v, 1, 4)), iterations=1), [2], [1]),
    "sparse variables": (lambda v: sparse(n=v), [1], [0]),
    "sparse order": (lambda v: sparse(max_order=v), [1, 8], [0, 9]),
    "sparse threshold": (lambda v: sparse(threshold=v), [1.0], [0.0, np.inf]),
    "sparse queries": (lambda v: sparse(max_queries=v), [1312], [1311]),
}


def sgd(**options: Any) -> Any:
    return interactions.and_or(V, method="sgd", tolerance=1e9, **{"iterations": 1, **options})


def joint(**options: Any) -> Any:
    return interactions.joint_and_or(RNG.standard_normal((2, 1, 4)), **{"iterations": 2, **options})


def sparse(n: int = 3, **options: Any) -> Any:
    return interactions.sparse_interactions(lambda masks: masks.sum(-1).astype(float), n, **options)


@pytest.mark.parametrize("what", CASES)
def test_an_argument_at_its_limits_is_taken_and_beyond_them_refused(what: str) -> None:
    check_limits(*CASES[what], ValueError)
