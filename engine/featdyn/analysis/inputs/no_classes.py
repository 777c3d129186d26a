"""Whether recorded integers are classes: people train on counts, ranks, and -1 and 1, with losses of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featdyn.classes import IGNORED
from featdyn.store import Run

_CLOSE = 1e-3
"""Of probabilities: float32 through an exponential and back, with room. Our own choice."""


def not_classes(run: Run, classes: int) -> str:
    """Return why labels are no classes that outputs ``(sample, class)`` are logits of; "" where they may be.

    With a loss of their own people train on integers that are counts, or -1 and 1, and on outputs that are values or
    probabilities. What they recorded tells (our own choice): a label that is no class has no loss; one logit has binary
    cross-entropy, up to a weight of each class; of several outputs not all are positive and sum to 1.
    """
    if "label" not in run.paths("sample"):
        return "its probes have no integer labels, which are classes"
    given = run.values("label")
    if given.dtype.kind not in "iu":
        return f"its labels are {given.dtype}, no classes"
    if (stray := stray_label(run, classes)) is not None:
        return f"its loss counts labels such as {stray}, which is none of {classes} classes"
    if not tells_loss(run):
        return ""
    if outputs_are_probabilities(run):
        return "its outputs are probabilities, not logits (return logits, and leave the softmax to the loss)"
    if run.schema["outputs/logits"].shape[-1] > 1:
        return ""
    logits, loss = first(run, "outputs/logits")[:, 0], first(run, "outputs/loss")
    for label in (0, 1):
        mine = (given == label) & np.isfinite(logits) & np.isfinite(loss)
        entropy = np.logaddexp(0.0, logits[mine] if label == 0 else -logits[mine])
        weight = loss[mine] / np.maximum(entropy, np.finfo(np.float64).tiny)
        if mine.any() and not np.allclose(weight, np.median(weight), rtol=_CLOSE, atol=1e-6):
            return "its one output is no logit, as its loss is not the binary cross-entropy with it"
    return ""


def outputs_are_probabilities(run: Run) -> bool:
    """Whether all outputs ``(sample, class)`` of the first checkpoint are positive and sum to 1."""
    if not tells_loss(run) or run.schema["outputs/logits"].shape[-1] < 2:
        return False
    return all(_are_probabilities(run.block("outputs/logits", 0, block)) for block in range(run.schema.blocks))


def _are_probabilities(outputs: NDArray[np.floating]) -> bool:
    return bool((outputs >= 0).all() and (np.abs(outputs.sum(1, dtype=np.float64) - 1) < _CLOSE).all())


def stray_label(run: Run, classes: int) -> int | None:
    """Return a label that is none of so many classes and has a loss all the same; None where there is none.

    Then labels are no classes but counts, ranks, or -1 and 1. What losses leave out, as -100, has no loss.
    """
    given = run.values("label")
    outside = ((given < 0) | (given >= classes)) & (given != IGNORED)
    if not outside.any() or not tells_loss(run):
        return None
    strays = given[outside & (np.abs(first(run, "outputs/loss")) > 0)]
    return int(strays[0]) if len(strays) else None


def tells_loss(run: Run) -> bool:
    """Whether a loss of the user's own may have been recorded; what featdyn trains has classes."""
    return run.recipe is None and "outputs/loss" in run.nodes and run.checkpoints > 0


def first(run: Run, path: str) -> NDArray[np.float64]:
    """Return what was recorded at the first checkpoint, ``(sample, ...)``."""
    return np.concatenate([run.block(path, 0, block) for block in range(run.schema.blocks)]).astype(np.float64)
