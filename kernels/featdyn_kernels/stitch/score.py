"""From logits to predictions, margins and losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from featdyn_kernels._jit import njit

Reduce: TypeAlias = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From logits (sample, checkpoint, class) and labels to predictions and figures, as :class:`Scores` keeps them."""


class Scores:
    """Results of shape (checkpoint, sample), filled piece by piece.

    Parameters
    ----------
    checkpoints, samples
        Numbers of rows and columns.
    labels
        True classes, (samples,), int64; without them there is no loss and no margin.
    device
        Where results are kept, and labels go.
    reduce
        The kernel that reduces logits there.
    """

    def __init__(
        self, checkpoints: int, samples: int, labels: Tensor | None, device: torch.device, reduce: Reduce
    ) -> None:
        self.labels = None if labels is None else labels.to(device)
        self._highest = int(labels.max()) if labels is not None and len(labels) else -1
        self._reduce = reduce
        self.prediction = torch.empty((checkpoints, samples), dtype=torch.int64, device=device)
        self.figures = torch.empty((4, checkpoints, samples), device=device)
        self.gap, self.scale, self.loss, self.margin = self.figures.unbind()

    def check(self, classes: int) -> None:
        """Raise ``ValueError`` if these are no logits, or a label is not among the classes."""
        if classes < 2:
            raise ValueError(f"a suffix must return logits (N, classes) of two or more classes, got {classes}")
        if self._highest >= classes:
            raise ValueError(f"labels must be below {classes}, the number of classes, got {self._highest}")

    def put(self, logits: Tensor, checkpoint: int, samples: slice | Tensor) -> None:
        """Reduce logits (sample, checkpoint, class) of these samples and of the checkpoints from ``checkpoint`` on.

        Raises
        ------
        ValueError
            These are no logits, or a label is not among the classes.
        """
        self.check(logits.shape[-1])
        labels = None if self.labels is None else self.labels[samples]
        self.write(*self._reduce(logits, labels), slice(checkpoint, checkpoint + logits.shape[1]), samples)

    def write(self, prediction: Tensor, figures: Tensor, checkpoints: slice, samples: slice | Tensor) -> None:
        """Keep what was reduced: gap and scale and, if there are labels, loss and margin are the figures."""
        self.prediction[checkpoints, samples] = prediction
        self.figures[: len(figures), checkpoints, samples] = figures


def reduce(logits: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Reduce logits (sample, checkpoint, class) on the CPU."""
    given = np.empty(0, np.int64) if labels is None else labels.numpy()
    prediction, *figures = score(np.ascontiguousarray(logits.numpy()), given)
    return torch.from_numpy(prediction), torch.from_numpy(np.stack(figures[: 2 if labels is None else 4]))


@njit
def score(logits: Any, labels: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Reduce logits (sample, checkpoint, class) to arrays (checkpoint, sample).

    Parameters
    ----------
    logits
        float32 or float64; sums are float64.
    labels
        (sample,), or empty: loss and margin are then empty too.

    Returns
    -------
    prediction
        The first of the largest logits or, as in torch, the first NaN.
    gap
        Largest logit minus the second largest; NaN where any logit is.
    scale
        Largest magnitude of a logit.
    loss
        Cross-entropy.
    margin
        Logit of the label minus the largest of the others.
    """
    samples, checkpoints, classes = logits.shape
    labelled = checkpoints if len(labels) else 0
    prediction = np.empty((checkpoints, samples), np.int64)
    gap, scale = np.empty((checkpoints, samples), np.float32), np.empty((checkpoints, samples), np.float32)
    loss, margin = np.empty((labelled, samples), np.float32), np.empty((labelled, samples), np.float32)
    for t in range(checkpoints):
        for n in range(samples):
            best, first, second, largest, nan = 0, -np.inf, -np.inf, 0.0, -1
            for c in range(classes):
                z = float(logits[n, t, c])
                if math.isnan(z):
                    nan = c if nan < 0 else nan
                elif z > first:
                    best, first, second = c, z, first
                elif z > second:
                    second = z
                largest = max(largest, abs(z))
            prediction[t, n] = best if nan < 0 else nan
            gap[t, n] = first - second if nan < 0 else np.nan
            scale[t, n] = largest
            if labelled:
                own, total = float(logits[n, t, labels[n]]), 0.0
                for c in range(classes):
                    total += math.exp(float(logits[n, t, c]) - first)
                loss[t, n] = math.log(total) + first - own
                margin[t, n] = own - (second if best == labels[n] else first) if nan < 0 else np.nan
    return prediction, gap, scale, loss, margin
