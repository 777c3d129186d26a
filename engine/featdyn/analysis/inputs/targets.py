"""What a network is to say of each probe, as numbers: one-hot labels, several labels at once, or a regression's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.layer_vectors import outputs
from featdyn.analysis.inputs.no_classes import stray_label
from featdyn.store import Run

GIVEN = "inputs/target"
NO_TARGETS, UNKNOWN = "no_targets_that_can_be_used", "some_probes_have_no_target"


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets ``(probe, K)``, 0 for probes that have none; K is 0 where the run says nothing that can be used."""

    values: NDArray[np.float64]
    known: NDArray[np.bool_]  # (probe,)
    classes: NDArray[np.int64] | None  # (probe,), -1 where there is none; None where targets are no classes

    def flaw(self, probes: NDArray[Any]) -> str:
        """Return why there are no targets of some probes, a mask or places; "" where there are."""
        if not self.values.shape[1]:
            return NO_TARGETS
        return "" if self.known[probes].all() else UNKNOWN


def targets(run: Run) -> Targets:
    """Return the targets of a run: its integer labels, else what was given as targets in the shape of the outputs."""
    width, samples = outputs(run), run.schema.samples
    given = run.values("label") if "label" in run.paths("sample") else None
    kinds = "fb"
    if given is not None and given.dtype.kind in "iu":
        count = max(2, width)  # one logit tells two classes apart
        known = np.asarray((given >= 0) & (given < count))
        if stray_label(run, count) is not None:
            kinds += "iu"  # counts, as of a regression
        elif known.any():
            classes = np.where(known, given, -1).astype(np.int64)
            count = int(classes.max()) + 1
            return Targets((classes[:, None] == np.arange(count)).astype(np.float64), known, classes)
    values = run.values(GIVEN) if GIVEN in run.nodes else np.zeros((samples, 0))
    if values.dtype.kind in kinds and len(values) == samples and values[:1].size == width:
        values = values.reshape(samples, width).astype(np.float64)
        known = np.asarray(np.isfinite(values).all(1))
        return Targets(np.where(known[:, None], values, 0.0), known, None)
    return Targets(np.zeros((samples, 0)), np.zeros(samples, bool), None)
