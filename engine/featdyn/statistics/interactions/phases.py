"""Where phases of training begin and end, by a criterion, with how sure the samples make it.

arXiv 2505.06993 drew the boundaries of its three phases by eye. The criteria here are **featdyn's own**: phase 2
begins where the generalizable share H is largest (or the mean order smallest), phase 3 at the first checkpoint after
that from which the gap of test over train loss rises ``w`` times in a row. A boundary stands only if what defines it
also holds in bootstrap draws over samples: H must have risen before its maximum and fall after it, the gap must have
risen from the boundary to the end. Samples are one source of doubt; other runs are another, which several stores tell
(``featdyn compare``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics.interactions.ratio_of_sums import DRAWS
from featdyn.statistics.interactions.subsets import Values, apart
from featdyn.statistics.resampling import Interval, bootstrap_counts, bootstrap_limits, effective_groups

Verdict: TypeAlias = Literal["yes", "no", "cannot tell"]

_SURE = 0.95
"""Of draws of samples, what has to agree for a verdict: our own choice."""


@dataclass(frozen=True)
class Boundary:
    """A boundary between two phases.

    Attributes
    ----------
    step : the checkpoint's step by the criterion on all samples; NaN where the criterion is met nowhere
    low, high
        Steps between which 95 % of the draws that have a boundary put it, as far from the step as so few groups make
        it (:func:`~resampling.bootstrap_limits`); NaN where none has.
    support : share of draws in which the boundary exists
    verdict
        "yes" if it exists and what defines it holds in 95 % of draws (a maximum: in all but 5 % over the number of
        checkpoints, as one of many is large by chance), differences by the same limits; "no" if it does not and in 95 %
        of draws neither.
    reason : one line
    """

    step: float
    low: float
    high: float
    support: float
    verdict: Verdict
    reason: str


def peak(
    part: ArrayLike,
    whole: ArrayLike,
    steps: ArrayLike,
    *,
    lowest: bool = False,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Boundary:
    """Return where ``H = sum part / sum whole`` is largest: the boundary between phases 1 and 2.

    Parameters
    ----------
    part, whole : (checkpoint, sample)
        Strength of generalizable and of all salient interactions; or, with ``lowest``, ``sum k I^(k)`` and ``sum
        I^(k)``, whose ratio is the mean order, at its smallest there.
    steps : (checkpoint,)
        Ascending; at least 3.
    groups : (sample,), optional
        Samples that are drawn together.
    """
    above, below = _both(part, whole, steps)
    if above.shape[1] < 2:
        return _unknown("a single sample does not tell how others would vary")
    counts = _counts(above, groups, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        h, drawn = above.sum(1) / below.sum(1), (counts @ above.T) / (counts @ below.T)
    units = effective_groups(groups, above.shape[1])
    return peak_of(h, drawn, steps, units, lowest=lowest, what="the mean order" if lowest else "H")


def peak_of(
    curve: ArrayLike,
    drawn: ArrayLike,
    steps: ArrayLike,
    units: float,
    *,
    lowest: bool = False,
    what: str = "the curve",
) -> Boundary:
    """Return where any curve over checkpoints is largest, or ``lowest``, as :func:`peak` decides it of H.

    Parameters
    ----------
    curve : (checkpoint,)
    drawn : (draw, checkpoint)
        The curves of bootstrap draws; NaN where one is undefined.
    steps : (checkpoint,)
    units
        Of how many groups the draws are, see :func:`~resampling.effective_groups`.
    what
        Its name, for the reason.
    """
    at = _steps(steps)
    h, every = np.asarray(curve, np.float64), np.asarray(drawn, np.float64)
    if h.shape != at.shape or every.shape[1:] != at.shape:
        raise ValueError(f"curve {h.shape} and drawn {every.shape} must have {len(at)} checkpoints")
    if not np.isfinite(h).all():
        missing = ", ".join(f"{s:g}" for s in at[~np.isfinite(h)][:3])
        return _unknown(f"{what} is undefined at step {missing}: nothing is salient there")
    known = every[np.isfinite(every).all(1)]
    if len(known) < _SURE * max(1, len(every)):
        return _unknown("too few samples have salient interactions at all checkpoints")
    if lowest:
        h, known = -h, -known
    best, places = int(h.argmax()), known.argmax(1)
    inner = (places > 0) & (places < len(at) - 1)
    # At the boundary itself, not at each draw's own maximum, which noise alone makes a maximum.
    above = [_above(known[:, best] - known[:, end], h[best] - h[end], units, len(at))[0] for end in (0, -1)]
    exists = 0 < best < len(at) - 1
    up, down = ("falls", "rises") if lowest else ("rises", "falls")
    # The largest of many checkpoints is large by chance too: of that many comparisons each must hold.
    sure = exists and bool(min(above) > 0)
    edge = f"{what} only {down if best == 0 else up}"
    return _boundary(
        at, best if exists else -1, places[inner], float(inner.mean()), units, sure,
        f"{what} {up} before step {at[best]:g} and {down} after it" if exists else f"{edge}: no boundary between",
        f"{what} does not clearly {up[:-1]} before and {down[:-1]} after step {at[best]:g} in draws of the samples",
    )  # fmt: skip


def change(
    part: ArrayLike,
    whole: ArrayLike,
    steps: ArrayLike,
    first: float,
    last: float,
    *,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Interval:
    """Return how far ``sum part / sum whole`` changes from one step to another, with a 95 % bootstrap interval.

    Parameters are those of :func:`peak`; ``first`` and ``last`` are two of the steps. NaN where the ratio is undefined,
    limits also where draws tell no spread.
    """
    above, below = _both(part, whole, steps)
    at = [int(np.flatnonzero(_steps(steps) == s)[0]) for s in (first, last)]
    counts = _counts(above, groups, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        h, drawn = above[at].sum(1) / below[at].sum(1), (counts @ above[at].T) / (counts @ below[at].T)
    estimate, known = float(h[1] - h[0]), (drawn[:, 1] - drawn[:, 0])[np.isfinite(drawn).all(1)]
    nan = float("nan")
    if not np.isfinite(estimate) or len(known) < _SURE * len(drawn):
        return Interval(estimate if np.isfinite(estimate) else nan, nan, nan)
    low, high = bootstrap_limits(known, estimate, effective_groups(groups, above.shape[1]))
    return Interval(estimate, float(low), float(high)) if apart(low, high) else Interval(estimate, nan, nan)


def lasting_rise(
    train_loss: ArrayLike,
    test_loss: ArrayLike,
    steps: ArrayLike,
    *,
    after: float = -np.inf,
    in_a_row: int = 3,
    of: Literal["gap", "test"] = "gap",
    train_groups: ArrayLike | None = None,
    test_groups: ArrayLike | None = None,
    seed: int = 0,
) -> Boundary:
    """Return from which checkpoint on the loss gap rises ``in_a_row`` times: the boundary between phases 2 and 3.

    Parameters
    ----------
    train_loss, test_loss : (checkpoint, sample)
        Losses of training and of test samples, whose numbers may differ.
    steps : (checkpoint,)
        Ascending; at least 3.
    after
        The boundary lies at this step or later, such as that of :func:`peak`.
    in_a_row
        How many checkpoints in succession must rise.
    of
        ``"gap"``, test less train; or ``"test"``, the test loss alone.
    """
    train, test = _checked(train_loss, "train_loss", steps), _checked(test_loss, "test_loss", steps)
    at = np.asarray(steps, np.float64)
    if of not in ("gap", "test"):
        raise ValueError(f"of must be gap or test, got {of}")
    if not 1 <= in_a_row < len(at):
        raise ValueError(f"in_a_row must be between 1 and {len(at) - 1}, the rises there are, got {in_a_row}")
    if train.shape[1] < 2 or test.shape[1] < 2:
        return _unknown("a single sample does not tell how others would vary")
    seeds = np.random.default_rng(seed).integers(2**31, size=2)
    curve = test.mean(1) - (of == "gap") * train.mean(1)
    units = min(effective_groups(g, x.shape[1]) for x, g in ((train, train_groups), (test, test_groups)))
    means = []
    for x, g, s in ((train, train_groups, seeds[0]), (test, test_groups, seeds[1])):
        counts = _counts(x, g, int(s))
        means.append(counts @ x.T / counts.sum(1, keepdims=True))
    drawn = means[1] - (of == "gap") * means[0]
    first = _first_rise(curve[None], at, after, in_a_row)[0]
    places = _first_rise(drawn, at, after, in_a_row)
    found = places >= 0
    what = "the gap" if of == "gap" else "the test loss"
    exists = first >= 0
    least, most = _above(drawn[:, -1] - drawn[:, first], curve[-1] - curve[first], units)
    sure = exists and bool(least > 0 and found.mean() >= _SURE)
    if exists and most <= 0:
        nan, rises = float("nan"), f"{what} rises {in_a_row} times from step {at[first]:g} on"
        return Boundary(nan, nan, nan, float(found.mean()), "no", f"{rises}, but ends below where it was then")
    return _boundary(
        at, int(first), places[found], float(found.mean()), units, sure,
        f"{what} rises {in_a_row} times from step {at[first]:g} on, and to the end" if exists
        else f"{what} never rises {in_a_row} times in a row",
        f"in draws of the samples {what} does not clearly rise {in_a_row} times in a row and to the end",
    )  # fmt: skip


def _first_rise(curves: Values, steps: Values, after: float, in_a_row: int) -> NDArray[np.intp]:
    """Return the first place of each curve (draw, checkpoint) from which it rises so often, -1 for none."""
    rises = np.lib.stride_tricks.sliding_window_view(np.diff(curves, axis=1) > 0, in_a_row, axis=1).all(-1)
    rises = rises & (steps[: rises.shape[1]] >= after)
    return np.where(rises.any(1), rises.argmax(1), -1)


def _above(drawn: Values, found: float, units: float, comparisons: int = 1) -> tuple[Values, Values]:
    """Return the least and the largest difference that draws allow, at one of so many comparisons."""
    return bootstrap_limits(drawn, found, units, level=1 - 2 * (1 - _SURE) / comparisons)


def _boundary(
    steps: Values, place: int, places: NDArray[np.intp], support: float, units: float, sure: bool, found: str,
    doubtful: str,
) -> Boundary:  # fmt: skip
    low, high, step = np.nan, np.nan, steps[place] if place >= 0 else np.nan
    if len(places) and units > 1:
        middle = place if place >= 0 else np.median(places)
        ends = bootstrap_limits(places, middle, units, bounds=(0, len(steps) - 1))
        low, high = (steps[round(float(end))] for end in ends)
    verdict: Verdict = "cannot tell"
    if sure:
        verdict = "yes"
    elif np.isnan(step) and support <= 1 - _SURE:
        verdict = "no"
    reason = found if verdict != "cannot tell" else doubtful
    return Boundary(float(step), float(low), float(high), support, verdict, reason)


def _unknown(reason: str) -> Boundary:
    nan = float("nan")
    return Boundary(nan, nan, nan, nan, "cannot tell", reason)


def _counts(values: Values, groups: ArrayLike | None, seed: int) -> Values:
    return bootstrap_counts(values.shape[1], DRAWS, seed, groups).astype(np.float64)


def _both(part: ArrayLike, whole: ArrayLike, steps: ArrayLike) -> tuple[Values, Values]:
    above, below = _checked(part, "part", steps), _checked(whole, "whole", steps)
    if above.shape != below.shape:
        raise ValueError(f"part and whole must have one shape, got {above.shape} and {below.shape}")
    return above, below


def _steps(steps: ArrayLike) -> Values:
    at = np.asarray(steps, np.float64)
    if at.ndim != 1 or len(at) < 3 or not (np.diff(at) > 0).all():
        raise ValueError(f"steps must be at least 3 ascending numbers, got shape {at.shape}")
    return at


def _checked(values: ArrayLike, name: str, steps: ArrayLike) -> Values:
    x, at = np.asarray(values, np.float64), _steps(steps)
    if x.ndim != 2 or len(x) != len(at) or not x.shape[1]:
        raise ValueError(f"{name} must have shape (checkpoint, sample) with {len(at)} checkpoints, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} {x.shape} must be finite: a run that diverged has no phases")
    return x
