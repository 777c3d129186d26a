"""What a recipe minimises, sample by sample: the same function trains, tests and is recorded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor

from featdyn.networks import class_loss
from featdyn.training.options import TrainingOptions

SampleLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(N, classes)`` outputs and ``(N,)`` int64 labels to ``(N,)``."""


def loss_of(options: TrainingOptions) -> SampleLoss:
    """Return the loss of each sample that a recipe asks for."""
    if options.loss == "squared_error":
        return partial(squared_error, scale=options.target_scale)
    return class_loss


def squared_error(outputs: Tensor, labels: Tensor, scale: float = 1.0) -> Tensor:
    """Return half the squared distance of each sample's outputs from ``scale`` times its one-hot label, ``(N,)``.

    The half, and that classes are summed, is our own choice: the gradient by the outputs is their distance.
    """
    targets = scale * F.one_hot(labels, outputs.shape[-1]).to(outputs.dtype)
    return 0.5 * (outputs - targets).square().sum(-1)
