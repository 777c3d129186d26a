"""One layer at one checkpoint: the measures of each set, and why some are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.features.representation import GROUPS, OF_DIMENSION, RepresentationOptions
from featdyn.analysis.features.representation.capacity import STATUSES as OF_CAPACITY
from featdyn.analysis.features.representation.capacity import capacity
from featdyn.analysis.features.representation.margin import HELD_OUT, Reader
from featdyn.analysis.inputs.class_labels import grouping_labels
from featdyn.analysis.inputs.layer_vectors import EPS, chosen_vectors
from featdyn.analysis.inputs.probe_sets import ProbeSets
from featdyn.analysis.inputs.rounded_away import vectors_rounded_away
from featdyn.analysis.status import ALIKE, DEAD, FEW, NO_LABELS, NO_TRAINING_PROBES, NOT_FINITE, ONE_CLASS, ZERO
from featdyn.statistics.alignment.spectrum import entropy_rank
from featdyn.statistics.representation import (
    class_manifolds,
    condition_number,
    gini,
    hoyer,
    local_pca,
    power_law,
    singular_values,
    two_nn,
)
from featdyn.statistics.representation.spectrum import TOLERANCE
from featdyn.statistics.resampling import effective_groups
from featdyn.statistics.rounding import noise_share, roundoff
from featdyn.store import ArraySpec, Run

DUPLICATES = "neighbours_are_copies"
POINTS = "a_class_is_one_point_or_its_mean_is_the_centre"
FEW_IN_CLASS = "a_class_has_too_few_probes"
BY_CLASS = ("manifold_status", "manifold_dimension_status")
ONE_FEATURE = "one_feature"
FEW_DIRECTIONS, EQUAL = "too_few_directions", "variances_are_equal"
MARGINS = ("margin_status", "margin_interval_status")
LEAST = 8
"""Probes, without copies, that an intrinsic dimension needs: our own choice."""
PARTS = {"two_nn": 1, "two_nn_half": 2, "two_nn_quarter": 4}
Values = NDArray[np.float64]
Found = tuple[dict[str, Any], dict[str, str]]


@dataclass(frozen=True, eq=False)
class State:
    """What every task needs."""

    run: Run
    specs: list[ArraySpec]
    kept: list[NDArray[np.intp]]  # chosen probes of each set
    labels: NDArray[np.int64]  # (probe,), -1 where there is none
    origins: NDArray[np.int64]
    train: int | None  # the set that linear probes learn from
    options: RepresentationOptions

    @property
    def units(self) -> list[float]:
        """By what share the stored numbers of each layer are rounded."""
        return [roundoff(spec.dtype) for spec in self.specs]

    @classmethod
    def of(
        cls,
        run: Run,
        specs: list[ArraySpec],
        sets: ProbeSets,
        kept: list[NDArray[np.intp]],
        options: RepresentationOptions,
    ) -> State:
        """Return it; labels are the true ones, where labels in use are noisy."""
        name = next((name for name in ("true_label", "label") if name in run.paths("sample")), "")
        return cls(run, specs, kept, grouping_labels(run, name), sets.origins, sets.index(options.train), options)


def cell(state: State, item: tuple[int, int]) -> list[Found]:
    """Return for each set its values by variable, and the reasons of what is missing by status variable."""
    c, t = item
    each = [chosen_vectors(state.run, state.specs[c].path, t, places) for places in state.kept]
    flaws = [_flaw_of(state.specs[c], x) for x in each]
    reader: Reader | str = NO_TRAINING_PROBES
    if state.train is not None:
        mine = state.kept[state.train]
        reader = flaws[state.train] or Reader.of(each[state.train], state.labels[mine], state.origins[mine])
    return [_of_set(state, c, s, x, flaws[s], reader) for s, x in enumerate(each)]


def _of_set(state: State, c: int, s: int, x: Values, flawed: str, reader: Reader | str) -> Found:
    places = state.kept[s]
    labels = state.labels[places]
    if flawed in (NOT_FINITE, ZERO):
        return {}, dict.fromkeys([*GROUPS, *MARGINS, *_of_capacity(state.options)], flawed)
    values, reasons = _sparsity(x)
    if isinstance(reader, str):
        reasons |= dict.fromkeys(MARGINS, reader)
    elif s == state.train:
        reasons |= dict.fromkeys(MARGINS, HELD_OUT)
    else:
        found, why_not = reader.margins(x, labels, state.origins[places])
        values |= found
        alike = FEW if effective_groups(state.origins[places], len(places)) <= 1 else ALIKE
        alike = "" if np.isfinite(found.get("margin_low", np.nan)) else alike
        reasons |= {"margin_status": why_not, "margin_interval_status": why_not or alike}
    if flawed:
        of_variation = [name for name in GROUPS if name != "sparsity_status"]
        return values, dict.fromkeys([*of_variation, *_of_capacity(state.options)], flawed) | reasons
    size = float(np.square(x / np.abs(x).max()).mean())
    x = (x - x.mean(0)) / np.abs(x).max()
    for more, why in (
        _spectrum(x, size, state.units[c], state.options.power_first),
        _dimension(x, state.options.seed),
        _manifolds(x, labels),
        _capacity(x, labels, state.origins[places], state.options),
    ):
        values |= more
        reasons |= why
    return values, reasons


def _of_capacity(options: RepresentationOptions) -> tuple[str, ...]:
    """Return the status variables of capacity, where it is asked for."""
    return OF_CAPACITY if options.capacity_draws else ()


def _flaw_of(spec: ArraySpec, x: Values) -> str:
    """Return why the features of a set have no measure, or ""."""
    return vectors_rounded_away(spec, x, averaged=True) or _flaw(x)


def _flaw(x: Values) -> str:
    """Return why features have no measure, or ""; what float32 has rounded away does not count as variation."""
    if not np.isfinite(x).all():
        return NOT_FINITE
    largest = float(np.abs(x).max(initial=0))
    if largest == 0:
        return ZERO
    if len(x) < 2:
        return FEW
    return "" if (np.ptp(x, axis=0) > EPS * np.abs(x).max(0)).any() else DEAD


def _sparsity(x: Values) -> Found:
    """Leave out probes whose features are all zero, which have no sparsity; a single feature has no Hoyer's."""
    some = x[np.abs(x).max(1) > 0]
    if x.shape[1] < 2:
        return {}, {"sparsity_status": ONE_FEATURE}
    return {"gini": float(gini(some).mean()), "hoyer": float(hoyer(some).mean())}, {}


def _spectrum(x: Values, size: float, unit: float, first: int) -> Found:
    """Count no rounding to the stored type for the rank; ``size`` is the mean square before x was centred."""
    s = singular_values(x)
    tolerance = max(TOLERANCE, noise_share(unit, size, x.shape, float(s[0])))
    condition, rank = condition_number(s, tolerance=tolerance)
    variances = (s / s[0]) ** 2
    effective = entropy_rank(s)
    values = {
        "effective_rank": effective,
        "effective_rank_variance": entropy_rank(variances),
        "participation_ratio": variances.sum() ** 2 / (variances**2).sum(),
        "stable_rank": variances.sum(),
        "proportional_effective_rank": effective / len(s),
        "rank": rank,
        "condition_number": condition,
    }
    law = power_law(variances, first=first, tolerance=tolerance)
    if np.isnan(law.exponent):
        return values, {"power_status": FEW_DIRECTIONS}
    if np.isnan(law.fit):
        return values, {"power_status": EQUAL}
    return values | {"power_law_exponent": law.exponent, "power_law_fit": law.fit}, {}


def _dimension(x: Values, seed: int) -> Found:
    values, reasons = dict[str, Any](), {}
    order = np.random.default_rng(seed).permutation(len(x))
    for name, part in PARTS.items():
        some = x[np.sort(order[: len(x) // part])]
        if len(some) < LEAST:
            reasons[f"{name}_status"] = FEW
            continue
        found = two_nn(some)
        if name == "two_nn":
            values["duplicates"] = found.duplicates
        if np.isnan(found.dimension) or found.samples < LEAST:
            reasons[f"{name}_status"] = DUPLICATES
        else:
            values[name] = found.dimension
    local = local_pca(x)
    if np.isnan(local):
        reasons["local_dimension_status"] = FEW
    else:
        values["local_dimension"] = local
    return values, reasons


def _capacity(
    x: Values, labels: NDArray[np.int64], origins: NDArray[np.int64], options: RepresentationOptions
) -> Found:
    draws = options.capacity_draws
    return capacity(x, labels, origins, draws, options.seed) if draws else ({}, {})


def _manifolds(x: Values, labels: NDArray[np.int64]) -> Found:
    known = labels >= 0
    if not known.any():
        return {}, dict.fromkeys(BY_CLASS, NO_LABELS)
    names, counts = np.unique(labels[known], return_counts=True)
    if len(names) < 2:
        return {}, dict.fromkeys(BY_CLASS, ONE_CLASS)
    if (counts > 1).sum() < 2:
        return {}, dict.fromkeys(BY_CLASS, FEW)
    found = class_manifolds(x[known], labels[known])
    means = {
        "manifold_radius": found.radius,
        "manifold_dimension": found.dimension,
        "manifold_capacity": found.capacity,
        "signal_to_noise": found.signal_to_noise[~np.eye(len(found.classes), dtype=bool)],
        "centre_correlation": np.array([found.centre_correlation]),
    }
    values = {name: float(each.mean()) for name, each in means.items()}
    missing = {name for name, value in values.items() if not np.isfinite(value)}
    if missing - OF_DIMENSION.keys():
        return {}, dict.fromkeys(BY_CLASS, POINTS)
    return {n: v for n, v in values.items() if n not in missing}, (
        {"manifold_dimension_status": FEW_IN_CLASS} if missing else {}
    )
