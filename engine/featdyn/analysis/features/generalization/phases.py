"""Where phases begin, for each criterion: labels of baselines, the decay's share, the mean order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.features.generalization import DECAY, ORDER, GeneralizationOptions
from featdyn.analysis.features.generalization.labels import FEW_ORDERS, NO_CUT
from featdyn.analysis.features.interactions import NO_SPREAD
from featdyn.statistics.interactions.decay_spindle import decay_shares
from featdyn.statistics.interactions.phases import Boundary, change, lasting_rise, peak, peak_of
from featdyn.statistics.interactions.ratio_of_sums import drawn
from featdyn.statistics.resampling import Interval

ENDS = ("", "_low", "_high")
FEW_STEPS = "too_few_checkpoints"
FEW_PROBES = "fewer_than_2_probes_are_finite_at_all_checkpoints"
NO_BOUNDARY = "there_is_no_such_step"
NO_LOSSES = "train_or_test_probes_are_missing"
NUMBERS = (
    *(f"{n}{end}" for n in ("second_phase", "third_phase", "order_before", "order_after") for end in ENDS),
    "second_phase_support",
    "third_phase_support",
)
STATUSES = ("second_phase_status", "third_phase_status", "change_status")
WORDS = tuple(f"{phase}_{name}" for phase in ("second_phase", "third_phase") for name in ("verdict", "reason"))


@dataclass(frozen=True)
class Curves:
    """What phases of one cut are told from: of each checkpoint and probe, all finite."""

    steps: NDArray[np.float64]
    strength: NDArray[np.float64]  # (t, probe, order), of the set
    generalizable: dict[str, NDArray[np.float64]]  # by reference, (t, probe, order)
    origins: NDArray[np.int64]
    losses: tuple[NDArray[np.float64], NDArray[np.float64]]  # (t, probe) of train and of test
    loss_origins: tuple[NDArray[np.int64], NDArray[np.int64]]


def phases(curves: Curves, criterion: str, options: GeneralizationOptions) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the cell of one criterion, and the reasons of what is missing in it."""
    steps, seed = curves.steps, options.seed
    if len(steps) < 3:
        return {}, dict.fromkeys(STATUSES, FEW_STEPS)
    if curves.strength.shape[1] < 2:
        return {}, dict.fromkeys(STATUSES, FEW_PROBES)
    whole = curves.strength.sum(-1)
    orders = curves.strength @ np.arange(1, curves.strength.shape[-1] + 1)
    shared: Any = {"groups": curves.origins, "seed": seed}
    if criterion == ORDER:
        second = peak(orders, whole, steps, lowest=True, **shared)
    elif criterion == DECAY:
        if curves.strength.shape[-1] < 4:
            return {}, dict.fromkeys(STATUSES, FEW_ORDERS)
        draws = drawn(whole.shape[1], **shared)
        assert draws is not None  # there are at least two probes
        second = peak_of(*decay_shares(curves.strength, draws.counts), steps, draws.units, what="the decay's share")
    elif criterion in curves.generalizable:
        second = peak(curves.generalizable[criterion].sum(-1), whole, steps, **shared)
    else:
        return {}, dict.fromkeys(STATUSES, NO_CUT)
    values = _named("second_phase", second)
    reasons = {"second_phase_status": _reason(second)}
    if np.isnan(second.step):
        reasons["change_status"] = NO_BOUNDARY
    else:
        ends = {"order_before": (steps[0], second.step), "order_after": (second.step, steps[-1])}
        for name, (first, last) in ends.items():
            moved = change(orders, whole, steps, first, last, **shared)
            values |= moved.named(name)
            if np.isnan(moved.low):
                reasons["change_status"] = NO_SPREAD
    train, test = curves.losses
    if min(train.shape[1], test.shape[1]) < 2:
        return values, {**reasons, "third_phase_status": NO_LOSSES}
    if options.in_a_row >= len(steps):
        return values, {**reasons, "third_phase_status": FEW_STEPS}
    third = lasting_rise(
        train, test, steps, after=-np.inf if np.isnan(second.step) else second.step, in_a_row=options.in_a_row,
        train_groups=curves.loss_origins[0], test_groups=curves.loss_origins[1], seed=seed,
    )  # fmt: skip
    reasons["third_phase_status"] = _reason(third)
    return values | _named("third_phase", third), reasons


def _reason(found: Boundary) -> str:
    return NO_BOUNDARY if np.isnan(found.step) else NO_SPREAD if np.isnan(found.low) else ""


def _named(name: str, found: Boundary) -> dict[str, Any]:
    values: dict[str, Any] = Interval(found.step, found.low, found.high).named(name)
    return values | {f"{name}_{key}": getattr(found, key) for key in ("support", "verdict", "reason")}
