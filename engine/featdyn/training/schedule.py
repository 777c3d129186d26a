"""What happens at which step: learning rate and checkpoints, as functions of the step alone."""

from __future__ import annotations

import math

from featdyn.capture.cadence import Cadence
from featdyn.training.options import CheckpointOptions, TrainingOptions


def learning_rate(step: int, steps: int, options: TrainingOptions) -> float:
    """Return the learning rate of step ``step`` (from 0) out of ``steps``."""
    rate = options.learning_rate
    if options.schedule == "steps":
        rate *= 0.1 ** sum(step >= m * steps for m in options.milestones)
    elif options.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    if step < options.warmup:
        rate *= (step + 1) / options.warmup
    return rate


def checkpoint_steps(steps_per_epoch: int, epochs: int, options: CheckpointOptions) -> list[int]:
    """Return the numbers of steps after which a checkpoint is recorded.

    0, log-spaced in epoch 1, then epoch ends; or 0 and what a cadence of steps says; and always the last.
    """
    if isinstance(options.every, str):
        cadence = Cadence(options.every)
        return sorted({0, *filter(cadence.due, range(epochs * steps_per_epoch)), epochs * steps_per_epoch})
    n = options.first_epoch
    early = {round(steps_per_epoch ** ((i + 1) / (n + 1))) for i in range(n)}
    late = {epoch * steps_per_epoch for epoch in range(1, epochs + 1) if epoch % options.every == 0}
    return sorted({0, *early, *late, epochs * steps_per_epoch})
