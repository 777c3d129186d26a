"""What outputs mean as classes: the one place that says so, for recordings, analyses and questions; without torch."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Values = TypeVar("Values")
IGNORED = -100
"""A target that counts nowhere, as in torch."""


def predicted_classes(logits: Values) -> Values:
    """Return the class, int64 (...), that each row of logits, (..., classes) or (..., 1), stands for.

    Arrays of numpy and tensors of torch alike. One logit is that of class 1 against class 0, as in binary
    cross-entropy: class 1 where it is above 0. Of several the largest decides, the first of equals. Where a logit is
    NaN there is no class: -1.
    """
    values: Any = logits
    found = values.argmax(-1) if values.shape[-1] != 1 else values[..., 0] > 0
    found = np.asarray(found).astype("int64") if isinstance(values, np.ndarray) else found.long()
    found[(values != values).any(-1)] = -1
    return cast(Values, found)


def class_logits(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return logits ``(..., class)`` of two classes at least: one logit z, of class 1 against class 0, is (0, z)."""
    return np.concatenate([np.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits


def confidence(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probability (...) of the predicted class by logits (..., classes) or (..., 1); NaN of others."""
    with np.errstate(invalid="ignore", over="ignore"):  # of logits that are not finite, it is missing
        wide = class_logits(logits.astype(np.float64))
        return np.asarray(1 / np.exp(wide - wide.max(-1, keepdims=True)).sum(-1))
