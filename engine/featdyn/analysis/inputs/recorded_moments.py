"""Moments that a run keeps in place of features, for the measures that follow from moments alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featdyn.analysis.inputs.lacking import keeps_moments
from featdyn.analysis.inputs.layer_vectors import LOGITS, pieces
from featdyn.analysis.inputs.recorded_arrays import recorded
from featdyn.capture.kept_moments import KEPT, KIND, beside, of_layer
from featdyn.errors import FeatdynError
from featdyn.networks.layer_patterns import matching
from featdyn.store import ArraySpec, Run
from featdyn_kernels.moments import Moments, accumulate

NOT_KEPT = "features_were_not_kept"


def features_or_moments(run: Run, patterns: Sequence[str]) -> list[ArraySpec]:
    """Return the activations of the layers that match, or (set, feature) of those whose moments were kept."""
    if not keeps_moments(run):
        return recorded(run, patterns, "activation")
    chosen = {name for p in patterns for name in (run.layers if p == "all" else matching(p, run.layers))}
    if not chosen:
        raise FeatdynError(f"{run.path}: no layer {', '.join(patterns)} was recorded: {', '.join(run.layers)}")
    found = []
    for layer in (name for name in run.layers if name in chosen):
        means = [tensor for name, tensor in run.state(0, of_layer(layer)).items() if name.endswith("/mean")]
        found.append(ArraySpec(f"layers/{layer}/{KIND}", ("set", "feature"), (len(means), len(means[0])), "float32"))
    return found


def kept_moments(run: Run, spec: ArraySpec, t: int, name: str, member: NDArray[np.bool_]) -> Moments:
    """Return the moments of a layer and all probes ``member (probe,)`` of the set of this name.

    Beside the features there are outputs, and classes one-hot, as :func:`featdyn.capture.kept_moments.beside` has them.
    """
    state = run.state(t, of_layer(spec.path.split("/")[1]))
    given = run.values("label") if "label" in run.paths("sample") else None
    labels = given if given is not None and given.dtype.kind in "iu" else None
    found: Moments | None = None
    for block, mine, places in pieces(run, member):
        columns = beside(run.block(LOGITS, t, block)[mine], None if labels is None else labels[places])
        part = accumulate(columns)
        found = part if found is None else found + part
    assert found is not None
    mean, scatter, cross = (state[f"{name}/{kept}"].numpy() for kept in KEPT)
    return Moments(found.count, mean, scatter, found.mean, found.scatter, cross)
