"""Margins of a linear probe on held-out probes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.features.drift.linear_probe import Probe, fit
from featdyn.analysis.status import FEW, NO_LABELS, NO_TRAINING_PROBES, ONE_CLASS
from featdyn.statistics.resampling import mean_interval

HELD_OUT = "training_probes_are_not_held_out"
UNSEEN = "no_label_that_the_training_probes_have"
WITHOUT_ROWS = "the_linear_probe_tells_nothing_apart"

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reader:
    """A linear probe of training features ``(n, p)``, in their own unit."""

    features: Values  # centred and scaled
    mean: Values
    unit: float
    probe: Probe
    labels: NDArray[np.int64]
    apart: Values  # (C, C), length of the difference of two classes' rows

    @classmethod
    def of(cls, x: Values, labels: NDArray[np.int64], origins: NDArray[np.int64]) -> Reader | str:
        """Return the probe of these features, or why there is none."""
        known = labels >= 0
        if not len(x):
            return NO_TRAINING_PROBES
        if not known.any():
            return NO_LABELS
        x, labels, origins = x[known], labels[known], origins[known]
        if len(np.unique(origins)) < 2:
            return FEW
        if len(np.unique(labels)) < 2:
            return ONE_CLASS
        mean = x.mean(0)
        unit = float(np.abs(x - mean).max()) or 1.0
        z = (x - mean) / unit
        gram = z @ z.T
        probe = fit(gram, labels, origins)
        rows = probe.weights.T @ gram @ probe.weights  # inner products of the rows
        size = rows.diagonal()
        return cls(z, mean, unit, probe, labels, np.sqrt(np.maximum(size[:, None] + size - 2 * rows, 0)))

    def margins(self, x: Values, labels: NDArray[np.int64], origins: NDArray[np.int64]) -> tuple[dict[str, float], str]:
        """Return mean margin with its interval and the share above zero, of probes with a label that was learned.

        A probe of an image that was learned from is judged by what is learned without it.
        """
        place = np.searchsorted(self.probe.classes, labels)
        place = np.where(place < len(self.probe.classes), place, 0)
        known = self.probe.classes[place] == labels
        for mine, _, _ in self.probe.without(origins):
            known[mine] &= np.isin(labels[mine], self.labels[self.probe.groups != origins[mine[0]]])
        if not known.any():
            return {}, UNSEEN if (labels >= 0).any() else NO_LABELS
        place, z = place[known], (x[known] - self.mean) / self.unit
        scores = self.probe.scores(z @ self.features.T, origins[known])
        largest = float(self.apart.max())
        if not largest > 1e-9:
            return {}, WITHOUT_ROWS
        own, others = scores[np.arange(len(z)), place], scores.copy()
        others[np.arange(len(z)), place] = -np.inf
        rival = others.argmax(1)
        length, rows = self.apart[place, rival], self.probe.vectors.T @ self.probe.weights
        for mine, change, _ in self.probe.without(origins[known]):
            apart = (rows + change)[:, place[mine]] - (rows + change)[:, rival[mine]]
            length[mine] = np.sqrt(self.probe.values @ apart**2)
        usable = length > 1e-9 * largest
        if not usable.any():
            return {}, WITHOUT_ROWS
        margin = (own - others.max(1))[usable] / length[usable] * self.unit
        found = mean_interval(margin, groups=origins[known][usable])
        return found.named("margin") | {"margin_positive": float((margin > 0).mean())}, ""
