"""Adaptive group testing for AND terms.

Let r be what the terms found so far leave of the function; it is 0 on the empty set. Where ``|r(T)|`` exceeds a
threshold some term lies within T. Variables are put in a random order; halving finds the shortest prefix on which r
exceeds it, and the last variable of that prefix belongs to a term together with others before it. It is set aside and
the rest searched again, until those set aside exceed the threshold alone: a term of d variables among n costs about ``d
log2(n)`` queries. All subsets of what was found are then asked, and each that smaller ones do not explain is a term.

Several searches run side by side, so that the function is called on a batch. Thresholds fall by 4, so that the largest
terms come first.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from featdyn.statistics.interactions.recovery.model import Terms
from featdyn.statistics.interactions.recovery.queries import Masks, Queries
from featdyn.statistics.interactions.subsets import Values

_WIDTH = 8
"""Searches side by side: our own choice."""
_LOOKED = 64
"""Random masks that must show nothing before a threshold is left: our own choice."""
_FAILURES = 3
"""Rounds of searches in a row that found no term: our own choice."""
_MOST = 2000
"""Terms, from which on a function is not sparse: our own choice."""
_FALL = 4.0
"""Of the threshold: our own choice."""

Narrowing = Generator[Masks, bool, Masks | None]


@dataclass
class Search:
    """A search for terms of at least ``floor`` and up to ``max_order`` variables.

    ``times`` is how often a mask is asked in searching, ``local_times`` in telling which subset of a few variables it
    is: a term that is overlooked there would be seen again in each superset.
    """

    queries: Queries
    terms: Terms
    floor: float
    max_order: int
    times: int
    local_times: int
    rng: np.random.Generator
    _fits: int = -1
    _counted: int = 0
    _outputs: Values = field(default_factory=lambda: np.empty(0))
    _variances: Values = field(default_factory=lambda: np.empty(0))

    def single_variables(self) -> None:
        """Find the terms of one variable."""
        self._explain(np.eye(self.queries.masks.shape[1], dtype=bool))

    def run(self) -> bool:
        """Find terms until nothing random exceeds the floor; return whether that was reached."""
        self._look()
        threshold = max(self.floor, float(np.abs(self._stored()[0]).max()) / _FALL)
        while True:
            clear = self._at(threshold)
            if threshold <= self.floor:
                return clear
            threshold = max(self.floor, threshold / _FALL)

    def _at(self, threshold: float) -> bool:
        failures, queries = 0, self.queries
        while failures < _FAILURES and len(self.terms.masks) <= _MOST:
            left, by_chance = self._stored()
            over = np.flatnonzero(np.abs(left) > np.maximum(threshold, by_chance))
            if not len(over):
                if not self._look(threshold):
                    return True
                continue
            # In small masks searches are short; from one mask several orders find several terms.
            sizes = queries.masks[over].sum(1) + self.rng.uniform(0, queries.masks.shape[1], len(over))
            starts = np.resize(over[np.argsort(sizes)[:_WIDTH]], _WIDTH)
            before = len(self.terms.masks)
            for mask in self._side_by_side([self._narrowed(queries.masks[k]) for k in starts], threshold):
                self._explain(_subsets(mask))
            failures = failures + 1 if len(self.terms.masks) == before else 0
        return False

    def _look(self, threshold: float = np.inf) -> bool:
        """Ask random masks and all variables together; return whether one exceeds the threshold."""
        n = self.queries.masks.shape[1]
        masks = np.concatenate([random_masks(_LOOKED, n, self.rng), np.ones((1, n), bool)])
        return bool(self._exceeds(masks, *self.queries.ask(masks, self.times), threshold).any())

    def _exceeds(self, masks: Masks, values: Values, times: Values, threshold: float) -> Masks:
        left, by_chance = self.terms.left(masks, values, times)
        return np.asarray(np.abs(left) > np.maximum(threshold, by_chance))

    def _stored(self) -> tuple[Values, Values]:
        """Return what the terms leave of all answers so far, computed anew only where answers or terms are."""
        masks, terms = self.queries.masks, self.terms
        if self._fits != terms.fits:
            self._outputs, self._variances, self._counted, self._fits = np.empty(0), np.empty(0), 0, terms.fits
        old = len(self._outputs)
        more, fresh = terms.predicted(masks[:old], self._counted), terms.predicted(masks[old:])
        self._outputs = np.r_[self._outputs + more[0], fresh[0]]
        self._variances = np.r_[self._variances + more[1], fresh[1]]
        self._counted = len(terms.masks)
        return terms.left(masks, self.queries.values, self.queries.times, (self._outputs, self._variances))

    def _narrowed(self, start: Masks) -> Narrowing:
        """Yield masks to be told whether they exceed the threshold; return one of few variables that does, or None."""
        rest: NDArray[np.intp] = self.rng.permutation(np.flatnonzero(start))
        aside = np.zeros(len(start), bool)
        while len(rest):
            low, high = 0, len(rest)
            while high - low > 1:
                middle = (low + high) // 2
                mask = aside.copy()
                mask[rest[:middle]] = True
                if (yield mask):
                    high = middle
                else:
                    low = middle
            aside[rest[high - 1]] = True
            rest = rest[: high - 1]
            if (yield aside.copy()):
                return aside
            if aside.sum() >= self.max_order:
                break
        return None

    def _side_by_side(self, narrowings: list[Narrowing], threshold: float) -> list[Masks]:
        """Run narrowings step by step, all their masks in one call; return what they found, each once."""
        found: dict[bytes, Masks] = {}
        answers: list[tuple[Narrowing, bool | None]] = [(one, None) for one in narrowings]
        while answers:
            waiting: list[tuple[Narrowing, Masks]] = []
            for one, answer in answers:
                try:
                    waiting.append((one, next(one) if answer is None else one.send(answer)))
                except StopIteration as end:
                    if end.value is not None:
                        found[end.value.tobytes()] = end.value
            if not waiting:
                break
            masks = np.stack([mask for _, mask in waiting])
            exceeds = self._exceeds(masks, *self.queries.ask(masks, self.times), threshold)
            answers = [(one, bool(answer)) for (one, _), answer in zip(waiting, exceeds, strict=True)]
        return list(found.values())

    def _explain(self, masks: Masks) -> None:
        """Add each of these masks, smaller ones first, that differs from what the terms within it give."""
        values, times = self.queries.ask(masks, self.local_times)
        sizes = masks.sum(1)
        for size in np.unique(sizes):
            here = sizes == size
            self.terms.add(masks[here], values[here], times[here], self.floor)


def _subsets(mask: Masks) -> Masks:
    """Return all nonempty subsets of a mask, ``(2**size - 1, n)``."""
    members = np.flatnonzero(mask)
    chosen = [c for size in range(1, len(members) + 1) for c in combinations(members, size)]
    found = np.zeros((len(chosen), len(mask)), bool)
    for row, subset in zip(found, chosen, strict=True):
        row[list(subset)] = True
    return found


def random_masks(count: int, n: int, rng: np.random.Generator) -> Masks:
    """Return masks ``(count, n)``, each of a density drawn from 0 to 1, so that terms of any order are met."""
    return np.asarray(rng.random((count, n)) < rng.random((count, 1)))
