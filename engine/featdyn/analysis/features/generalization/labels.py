"""What one checkpoint's interactions show beside those of baselines: labels, shares, and losses without some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.features.generalization import GeneralizationOptions
from featdyn.analysis.features.generalization.joined import Joined
from featdyn.analysis.features.interactions import NO_SPREAD, NONE_SALIENT
from featdyn.statistics.interactions import (
    AndOr,
    and_or,
    chance_labels,
    cohens_kappa,
    cross_entropy,
    fit_decay_spindle,
    generalizable,
    generalization_power,
    loss_gap,
    salient,
    signed_strength_by_order,
    strength_by_order,
    threshold_of_largest,
    threshold_of_span,
    top,
)
from featdyn.statistics.interactions.agreement import order_correlation
from featdyn.statistics.interactions.strength import Chosen

NO_PROBE = "no_probe_is_compared"
NO_CUT = "no_baseline_has_this_cut"
FEW_ORDERS = "fewer_than_4_players"
SHARES_ONLY = "shared_amounts_are_no_labels"
Values = dict[str, Any]
Named = dict[str, tuple[Values, str]]
"""Of each reference, or pair of them: numbers, and why some are missing."""


@dataclass
class Seen:
    """A set's interactions, which count, and how they are labelled beside each reference."""

    model: AndOr
    chosen: Chosen
    labels: dict[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass
class OfSet:
    """Cells of one set at one checkpoint, and what each of its probes has, for phases."""

    values: Values
    reason: str = ""
    decay_reason: str = ""
    references: Named = field(default_factory=dict)
    pairs: Named = field(default_factory=dict)


@dataclass
class OfCheckpoint:
    """All that a task returns: of sets, of losses, and of probes (NaN where one's table is not finite)."""

    sets: dict[str, OfSet]
    losses: tuple[Values, Named]  # of the network, and of each reference
    strength: NDArray[np.float64]  # (probe, order)
    generalizable: dict[str, NDArray[np.float64]]  # (probe, order)
    loss: NDArray[np.float64]  # (probe,)


class Labels:
    """What tasks need: tables of every cut, and the interactions of its baselines."""

    def __init__(self, cuts: Sequence[Joined], sets: Sequence[str], options: GeneralizationOptions) -> None:
        self._cuts, self._sets, self._options = cuts, sets, options
        self.names = list(dict.fromkeys(name for cut in cuts for name in cut.baselines))
        self._baselines = [
            {name: [self._interactions(v) for v in tables] for name, tables in cut.baselines.items()} for cut in cuts
        ]

    def at(self, item: tuple[int, int]) -> OfCheckpoint:
        """Return what is seen at (cut, checkpoint)."""
        c, t = item
        cut, options = self._cuts[c], self._options
        v = cut.v[t]
        known = np.isfinite(v).all(-1)
        n = v.shape[-1].bit_length() - 1
        strength = np.full((len(v), n), np.nan)
        found: dict[str, OfSet] = {}
        labelled: dict[str, Seen] = {}
        by_name = {name: np.full((len(v), n), np.nan) for name in cut.baselines}
        loss = np.full(len(v), np.nan)
        every = self._interactions(v[known]) if known.any() else None
        for name in self._sets:
            mine = known & (cut.splits == name)
            if every is None or not mine.any():
                found[name] = OfSet({}, NO_PROBE)
                continue
            model = every.of(mine[known])
            baselines = {key: [b.of(mine) for b in models] for key, models in self._baselines[c].items()}
            seen = labelled[name] = Seen(model, self._chosen(model, model))
            found[name] = self._of_set(seen, baselines, cut.origins[mine])
            strength[mine] = strength_by_order(model, seen.chosen)
            for key, labels in seen.labels.items():
                by_name[key][mine] = strength_by_order(model, seen.chosen * labels)
            loss[mine] = cross_entropy(model.full)
        groups = tuple(cut.origins[known & (cut.splits == s)] for s in (options.train, options.test))
        losses = self._losses(labelled.get(options.train), labelled.get(options.test), groups)
        return OfCheckpoint(found, losses, strength, by_name, loss)

    def _interactions(self, v: NDArray[np.float32]) -> AndOr:
        return and_or(v.astype(np.float64), slack=self._options.slack)

    def _chosen(self, model: AndOr, own: AndOr) -> Chosen:
        """Return which interactions of a network count, beside ``own``, the analysed one's."""
        options = self._options
        if options.salient == "top":
            return top(model, min(options.top, 2 * model.i_and.shape[-1]))
        if options.salient == "largest":
            return salient(model, threshold_of_largest(model, options.share))
        return salient(model, threshold_of_span(own if options.salient == "common" else model, options.share))

    def _of_set(self, seen: Seen, baselines: dict[str, list[AndOr]], origins: NDArray[np.int64]) -> OfSet:
        """Return the cells of a set, and label what was seen of it."""
        options, seed, model, chosen = self._options, self._options.seed, seen.model, seen.chosen
        signed = signed_strength_by_order(model, chosen)
        total = np.abs(signed).sum(-2)
        found = OfSet(_signed("strength", signed))
        if total.shape[1] < 4 or not total.any():
            found.decay_reason = NONE_SALIENT if total.shape[1] >= 4 else FEW_ORDERS
        else:
            fit = fit_decay_spindle(total, groups=origins, seed=seed)
            found.values |= fit.share.named("decay_share")
            found.values |= {"decay_by_order": fit.by_order, "decay_r2": fit.r2}
            found.decay_reason = "" if np.isfinite(fit.share.low) else NO_SPREAD
        how: Any = {"need": options.need, "same_sign": options.sign, "amount": options.amount}
        for name in self.names:
            if name not in baselines:
                found.references[name] = {}, NO_CUT
                continue
            sets = [self._chosen(b, model) for b in baselines[name]]
            labels = seen.labels[name] = generalizable(model, baselines[name], chosen=sets, **how)
            mixed = None
            if len(np.unique(origins)) > 1:
                mixed = chance_labels(model, baselines[name], chosen=sets, groups=origins, **how)
            power = generalization_power(model, labels, chosen=chosen, chance_labels=mixed, groups=origins, seed=seed)
            values = _signed("generalizable", signed_strength_by_order(model, chosen * labels))
            values |= power.ratio.named("power") | power.by_order.named("power_by_order")
            values |= power.count_ratio.named("count_share") | power.beyond_chance.named("beyond_chance")
            values |= {"chance": float(power.chance.estimate)}
            if not found.decay_reason or "decay_by_order" in found.values:
                values["decay_correlation"] = order_correlation(power.by_order.estimate, found.values["decay_by_order"])
            reason = NONE_SALIENT if not total.any() else NO_SPREAD if np.isnan(power.ratio.low) else ""
            found.references[name] = values, reason
        for one, other in combinations(self.names, 2):
            if one not in seen.labels or other not in seen.labels:
                found.pairs[f"{one} | {other}"] = {}, NO_CUT
            elif options.amount == "shared":
                found.pairs[f"{one} | {other}"] = {}, SHARES_ONLY
            else:
                kappa = cohens_kappa(seen.labels[one], seen.labels[other], chosen, groups=origins, seed=seed)
                values = {"kappa": kappa.kappa, "kappa_low": kappa.low, "kappa_high": kappa.high}
                found.pairs[f"{one} | {other}"] = values, kappa.reason.replace(" ", "_")
        return found

    def _losses(self, train: Seen | None, test: Seen | None, groups: Any) -> tuple[Values, Named]:
        """Return what the loss gap is, and what it is without what does not generalize."""
        if train is None or test is None:
            return {}, {}
        network: Values = {}
        of: Named = {}
        none = [np.ones_like(s.model.both) for s in (train, test)]
        for name in [None, *(n for n in self.names if n in train.labels and n in test.labels)]:
            labels = none if name is None else [train.labels[name], test.labels[name]]
            gap = loss_gap(
                train.model, labels[0], test.model, labels[1], chosen=(train.chosen, test.chosen), groups=groups,
                seed=self._options.seed,
            )  # fmt: skip
            if name is None:
                network = {"loss": gap.loss} | gap.gap.named("gap")
            else:
                of[name] = (
                    {"loss_without": gap.loss_without}
                    | gap.gap_without.named("gap_without")
                    | gap.explained.named("explained")
                    | gap.by_order.named("explained_by_order"),
                    "",
                )
        return network, of


def _signed(name: str, signed: NDArray[np.float64]) -> Values:
    mean = signed.mean(0)  # (sign, order)
    return {f"{name}_positive": mean[0], f"{name}_negative": mean[1]}
