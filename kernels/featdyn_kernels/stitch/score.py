"""From logits to predictions, margins and losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from featdyn_kernels._jit import njit

Reduce: TypeAlias = Callable[[Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor]]
"""From logits (sample, checkpoint, class), labels (sample,) and own logits (checkpoint, sample, class) to predictions
and (6, checkpoint, sample): gap, scale, loss, margin, log-odds and divergence, NaN where labels or own logits lack."""


class Scores:
    """Results of shape (checkpoint, sample), filled piece by piece, kept on ``device``, where labels and logits go too.

    ``labels`` are true classes, (samples,), int64; without them there is no loss, margin or log-odds. ``own`` are
    logits (checkpoints, samples, classes), float32, to diverge from; without them there is no divergence. ``reduce`` is
    the kernel that reduces logits there.
    """

    def __init__(
        self,
        checkpoints: int,
        samples: int,
        labels: Tensor | None,
        own: Tensor | None,
        device: torch.device,
        reduce: Reduce,
    ) -> None:
        self.labels, self.own = (None if given is None else given.to(device) for given in (labels, own))
        self._highest = int(labels.max()) if labels is not None and len(labels) else -1
        self._reduce, self.classes = reduce, 0
        self.prediction = torch.empty((checkpoints, samples), dtype=torch.int64, device=device)
        self._figures = torch.empty((6, checkpoints, samples), device=device)
        self.gap, self.scale, self.loss, self.margin, self.log_odds, self.divergence = self._figures.unbind()

    def check(self, classes: int) -> None:
        """Raise ``ValueError`` if these are no logits, or labels or own logits are of other classes."""
        self.classes = classes
        if classes < 1:
            raise ValueError(f"a suffix must return logits (N, classes), got {classes} classes")
        if self._highest >= max(2, classes):
            raise ValueError(f"labels must be below {max(2, classes)}, the number of classes, got {self._highest}")
        if self.own is not None and self.own.shape[-1] != classes:
            raise ValueError(f"own: the suffix returns {classes} classes, got logits of {self.own.shape[-1]}")

    def put(self, logits: Tensor, checkpoint: int, samples: slice | Tensor) -> None:
        """Reduce logits (sample, checkpoint, class) of these samples and of the checkpoints from ``checkpoint`` on.

        Raises ValueError where these are no logits, or labels or own logits are of other classes.
        """
        self.check(logits.shape[-1])
        rows = slice(checkpoint, checkpoint + logits.shape[1])
        labels = None if self.labels is None else self.labels[samples]
        own = None if self.own is None else self.own[rows, samples]
        self.write(*self._reduce(of_classes(logits), labels, None if own is None else of_classes(own)), rows, samples)

    def write(self, prediction: Tensor, figures: Tensor, checkpoints: slice, samples: slice | Tensor) -> None:
        """Keep what was reduced."""
        self.prediction[checkpoints, samples] = prediction
        self._figures[:, checkpoints, samples] = figures


def of_classes(logits: Tensor) -> Tensor:
    """Return logits (..., class) of two classes at least: one logit z is that of class 1 against class 0, (0, z)."""
    return nn.functional.pad(logits, (1, 0)) if logits.shape[-1] == 1 else logits


def reduce(logits: Tensor, labels: Tensor | None, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """Reduce logits (sample, checkpoint, class) on the CPU."""
    given = np.ascontiguousarray(logits.numpy())
    prediction, *found = score(given, np.empty(0, np.int64) if labels is None else labels.numpy())
    figures = torch.full((6, *prediction.shape), torch.nan)
    for figure, array in zip(figures, found, strict=False):
        if array.size:
            figure[:] = torch.from_numpy(array)
    if own is not None:
        figures[5] = torch.from_numpy(divergence(given, np.ascontiguousarray(own.numpy())))
    return torch.from_numpy(prediction), figures


@njit
def score(logits: Any, labels: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Reduce logits (sample, checkpoint, class), float32 or float64, to arrays (checkpoint, sample); sums are float64.

    ``labels`` are (sample,), or empty: loss, margin and log-odds are then empty too. What is returned: the prediction,
    the first of the largest logits, -1 where any is NaN, of which no class follows; the gap, the largest logit minus
    the second largest, NaN where any logit is; the scale, the largest magnitude of a logit; the cross-entropy; the
    margin, the logit of the label minus the largest of the others; and the log-odds log(p / (1 - p)) of the label, its
    logit minus the log of the sum of the others' exponentials, which keeps its digits where p is almost 1.
    """
    samples, checkpoints, classes = logits.shape
    labelled = checkpoints if len(labels) else 0
    prediction = np.empty((checkpoints, samples), np.int64)
    gap, scale = np.empty((checkpoints, samples), np.float32), np.empty((checkpoints, samples), np.float32)
    loss, margin = np.empty((labelled, samples), np.float32), np.empty((labelled, samples), np.float32)
    log_odds = np.empty((labelled, samples), np.float32)
    for t in range(checkpoints):
        for n in range(samples):
            best, first, second, largest, nan = 0, -np.inf, -np.inf, 0.0, False
            for c in range(classes):
                z = float(logits[n, t, c])
                if math.isnan(z):
                    nan = True
                elif z > first:
                    best, first, second = c, z, first
                elif z > second:
                    second = z
                largest = max(largest, abs(z))
            prediction[t, n] = -1 if nan else best
            gap[t, n] = np.nan if nan else first - second
            scale[t, n] = largest
            if labelled:
                own, others = float(logits[n, t, labels[n]]), 0.0
                top = second if best == labels[n] and second > -np.inf else first  # of the others: no sum underflows
                for c in range(classes):
                    if c != labels[n]:
                        others += math.exp(float(logits[n, t, c]) - top)
                loss[t, n] = math.log(others * math.exp(top - first) + math.exp(own - first)) + first - own
                log_odds[t, n] = own - top - math.log(others)
                margin[t, n] = np.nan if nan else own - (second if best == labels[n] else first)
    return prediction, gap, scale, loss, margin, log_odds


@njit
def divergence(logits: Any, own: Any) -> Any:
    """Return KL(softmax(own) || softmax(logits)) as float32 (checkpoint, sample), summed in float64.

    ``logits`` are (sample, checkpoint, class), ``own`` (checkpoint, sample, class).
    """
    samples, checkpoints, classes = logits.shape
    found = np.empty((checkpoints, samples), np.float32)
    for t in range(checkpoints):
        for n in range(samples):
            top_p, top_q = float(own[t, n, 0]), float(logits[n, t, 0])
            for c in range(1, classes):
                top_p, top_q = max(top_p, float(own[t, n, c])), max(top_q, float(logits[n, t, c]))
            total_p, total_q, sum_ = 0.0, 0.0, 0.0
            for c in range(classes):
                p, q = float(own[t, n, c]) - top_p, float(logits[n, t, c]) - top_q
                total_p += math.exp(p)
                total_q += math.exp(q)
                if p > -700.0:  # beyond, the probability is 0 and so is its term, whatever q
                    sum_ += math.exp(p) * (p - q)
            # Rounding may leave a tiny negative number where the two are equal; NaN stays NaN.
            value = sum_ / total_p + math.log(total_q) - math.log(total_p)
            found[t, n] = 0.0 if value < 0.0 else value
    return found
