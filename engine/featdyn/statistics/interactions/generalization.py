"""Generalization power: which interactions baseline networks encode too, and how much of all strength they are.

The seed paper (arXiv 2505.06993) was known through its abstract and reviews only: its labels G and its ratio H as
computed here are **featdyn's own reading**, each way that siblings decide it an option. They speak about the samples
given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featdyn.statistics import checks
from featdyn.statistics.dealing import exchanged
from featdyn.statistics.interactions.extraction import AndOr
from featdyn.statistics.interactions.ratio_of_sums import drawn, ratio_of_sums
from featdyn.statistics.interactions.strength import Chosen, salient, strength_by_order
from featdyn.statistics.interactions.subsets import Values, by_order
from featdyn.statistics.resampling import Interval

Need: TypeAlias = Literal["one", "majority", "all"]

_SHIFTS = 8
"""Other groups of samples that each is paired with for the chance level: our own choice."""


@dataclass(frozen=True)
class Power:
    """How much of the salient interactions generalizes: 95 % intervals by bootstrap over samples, NaN where they tell
    no spread.

    Attributes
    ----------
    ratio : ``(...)``, H: strength of generalizable ones over strength of all
    by_order : ``(..., n)``, the same for each order
    count_ratio : ``(...)``, the same of their numbers
    chance : ``(...)``
        H against the baselines' interactions **on samples of other groups**: what overlap of dense sets alone gives
        (featdyn's own).
    beyond_chance : ``(...)``, H less chance, of the same draws
    """

    ratio: Interval
    by_order: Interval
    count_ratio: Interval
    chance: Interval
    beyond_chance: Interval


def generalizable(
    model: AndOr,
    baselines: Sequence[AndOr],
    *,
    chosen: Sequence[Chosen] | None = None,
    need: Need = "one",
    same_sign: bool = True,
    amount: Literal["whole", "shared"] = "whole",
) -> Values:
    """Return which share of each interaction the baselines encode too, ``(..., sample, 2, 2**n)``.

    Parameters
    ----------
    model : AndOr
        The analysed network, ``(..., sample, 2**n)``.
    baselines : sequence of AndOr
        Networks on the same samples and players, of shapes that broadcast to the model's: trained on test samples (the
        seed paper), or another architecture trained on the same data (arXiv 2609.06483).
    chosen : sequence of (..., sample, 2, 2**n), optional
        What counts as encoded by each baseline, such as :func:`~strength.top` or :func:`~strength.salient` under a
        common threshold; by default salient under its own.
    need
        How many baselines have to encode it: ``"one"``, ``"majority"`` (more than half) or ``"all"``.
    same_sign
        Whether both must have one sign.
    amount
        ``"whole"`` gives labels 0 and 1; ``"shared"`` gives ``min(|I|, |I_b|) / |I|`` in place of 1 (arXiv 2409.08712).

    Returns
    -------
    (..., sample, 2, 2**n)
        In [0, 1]; 0 where the model's interaction is 0.
    """
    if not baselines:
        raise ValueError("baselines must name at least one network")
    if need not in ("one", "majority", "all"):
        raise ValueError(f"need must be one, majority or all, got {need}")
    if amount not in ("whole", "shared"):
        raise ValueError(f"amount must be whole or shared, got {amount}")
    sets = [salient(b) for b in baselines] if chosen is None else list(chosen)
    if len(sets) != len(baselines):
        raise ValueError(f"chosen must hold one set for each of {len(baselines)} baselines, got {len(sets)}")
    own = model.both
    shares = np.stack([_share(own, b, c, same_sign, amount) for b, c in zip(baselines, sets, strict=True)])
    needed = {"one": 1, "majority": len(sets) // 2 + 1, "all": len(sets)}[need]
    return np.asarray(np.sort(shares, axis=0)[len(sets) - needed])


def _share(own: Values, baseline: AndOr, chosen: Chosen, same_sign: bool, amount: str) -> Values:
    try:
        theirs = np.broadcast_to(baseline.both, own.shape)
        found = np.broadcast_to(np.asarray(chosen, bool), own.shape) & (own != 0)
    except ValueError:
        raise ValueError(
            f"baselines must be on the model's samples and variables, {own.shape[:-2]} and {own.shape[-1]} subsets, "
            f"got {baseline.i_and.shape}"
        ) from None
    if same_sign:
        found = found & (np.sign(own) == np.sign(theirs))
    if amount == "whole":
        return np.asarray(found, np.float64)
    size = np.abs(own)
    return np.asarray(np.divide(np.minimum(size, np.abs(theirs)), size, out=np.zeros(own.shape), where=found))


def generalization_power(
    model: AndOr,
    labels: ArrayLike,
    *,
    chosen: Chosen | None = None,
    chance_labels: Sequence[ArrayLike] | None = None,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Power:
    """Return H, by order and by number, with intervals.

    Parameters
    ----------
    model : AndOr, (..., sample, 2**n)
    labels : (..., sample, 2, 2**n)
        Of :func:`generalizable`.
    chosen : (..., sample, 2, 2**n), optional
        The model's interactions that count; salient ones by default.
    chance_labels : sequence of (..., sample, 2, 2**n), optional
        Labels against baselines on other samples, of :func:`chance_labels`; without them chance is NaN.
    groups : (sample,), optional
        Samples that are drawn together.
    """
    kept = salient(model) if chosen is None else np.asarray(chosen, bool)
    weights = np.asarray(labels, np.float64)
    samples = model.span.shape[-1]
    counts = drawn(samples, groups, seed)
    total, part = strength_by_order(model, kept), strength_by_order(model, kept * weights)
    number, among = by_order(kept.sum(-2).astype(np.float64)), by_order((kept * weights).sum(-2))
    whole = total.sum(-1, keepdims=True)
    mixed = [
        strength_by_order(model, kept * np.asarray(c, np.float64)).sum(-1, keepdims=True) for c in chance_labels or ()
    ]
    by_chance = np.mean(mixed, axis=0) if mixed else np.full(whole.shape, np.nan)
    share = part.sum(-1, keepdims=True)
    return Power(
        ratio=_first(ratio_of_sums(share, whole, counts)),
        by_order=ratio_of_sums(part, total, counts),
        count_ratio=_first(ratio_of_sums(among.sum(-1, keepdims=True), number.sum(-1, keepdims=True), counts)),
        chance=_first(ratio_of_sums(by_chance, whole, counts)),
        beyond_chance=_first(ratio_of_sums(share - by_chance, whole, counts, bounds=(-1, 1))),
    )


def chance_labels(
    model: AndOr,
    baselines: Sequence[AndOr],
    *,
    chosen: Sequence[Chosen] | None = None,
    groups: ArrayLike | None = None,
    **options: object,
) -> list[Values]:
    """Return labels against the baselines' interactions on samples of other groups, for up to 8 shifts of the groups.

    Parameters are those of :func:`generalizable`, and the groups ``(sample,)``, such as copies of an image; each sample
    is its own by default. At least two are needed.
    """
    sets = [salient(b) for b in baselines] if chosen is None else chosen
    member = checks.groups(groups, model.span.shape[-1])
    units = int(member.max()) + 1
    if units < 2:
        raise ValueError("the chance level pairs each sample with others: at least 2 samples are needed")
    shifts = np.linspace(1, units - 1, min(_SHIFTS, units - 1)).astype(int)
    orders = [exchanged(member, np.roll(np.arange(units), k)) for k in shifts]
    return [
        generalizable(
            model,
            [_reordered(b, order) for b in baselines],
            chosen=[np.take(c, order, axis=-3) for c in sets],
            **options,  # type: ignore[arg-type]
        )
        for order in orders
    ]


def _reordered(model: AndOr, order: NDArray[np.intp]) -> AndOr:
    def moved(values: Values, axis: int) -> NDArray[np.float64]:
        return np.take(values, order, axis=axis)

    rows = {name: moved(getattr(model, name), -2) for name in ("i_and", "i_or", "q")}
    rows |= {name: moved(getattr(model, name), -1) for name in ("bias", "span", "l1", "gap")}
    return AndOr(**rows, method=model.method)


def _first(found: Interval) -> Interval:
    return Interval(*(part[..., 0] for part in (found.estimate, found.low, found.high)))
