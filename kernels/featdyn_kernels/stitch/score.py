"""From logits to predictions, margins and losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn_kernels._jit import njit


class Scores:
    """Results of shape (checkpoint, sample), filled piece by piece.

    Parameters
    ----------
    checkpoints, samples
        Numbers of rows and columns.
    labels
        True classes, (samples,); without them there is no loss and no margin.
    own
        Logits (checkpoints, samples, classes) to diverge from; without them there is no divergence.
    """

    def __init__(
        self,
        checkpoints: int,
        samples: int,
        labels: NDArray[np.int64] | None,
        own: NDArray[np.float32] | None = None,
    ) -> None:
        shape = checkpoints, samples
        self.labels, self.own = labels, own
        self.divergence = np.empty(shape, np.float32)
        self.prediction = np.empty(shape, np.int64)
        self.gap = np.empty(shape, np.float32)
        self.scale = np.empty(shape, np.float32)
        self.loss = np.empty(shape, np.float32)
        self.margin = np.empty(shape, np.float32)

    def put(self, logits: NDArray[Any], checkpoint: int, samples: slice | NDArray[np.intp]) -> None:
        """Reduce logits (sample, checkpoint, class) of these samples and of the checkpoints from ``checkpoint`` on.

        Raises
        ------
        ValueError
            These are no logits, or a label is not among the classes.
        """
        classes = logits.shape[-1]
        if classes < 2:
            raise ValueError(f"a suffix must return logits (N, classes) of two or more classes, got {classes}")
        labels = np.empty(0, np.int64) if self.labels is None else self.labels[samples]
        if len(labels) and int(labels.max()) >= classes:
            raise ValueError(f"labels must be below {classes}, the number of classes, got {int(labels.max())}")
        rows = slice(checkpoint, checkpoint + logits.shape[1])
        prediction, gap, scale, loss, margin = score(np.ascontiguousarray(logits), labels)
        self.prediction[rows, samples], self.gap[rows, samples], self.scale[rows, samples] = prediction, gap, scale
        if self.labels is not None:
            self.loss[rows, samples], self.margin[rows, samples] = loss, margin
        if self.own is not None:
            own = self.own[rows, samples]
            if own.shape[-1] != classes:
                raise ValueError(f"own: the suffix returns {classes} classes, got logits of {own.shape[-1]}")
            self.divergence[rows, samples] = divergence(np.ascontiguousarray(logits), np.ascontiguousarray(own))


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


@njit
def divergence(logits: Any, own: Any) -> Any:
    """Return KL(softmax(own) || softmax(logits)) as float32 (checkpoint, sample), summed in float64.

    Parameters
    ----------
    logits
        (sample, checkpoint, class).
    own
        (checkpoint, sample, class).
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
