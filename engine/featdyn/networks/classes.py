"""What outputs mean as classes: the one place that says so, for recordings and analyses alike."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch.nn.functional as F
from torch import Tensor

Values = TypeVar("Values")


def predicted_classes(logits: Values) -> Values:
    """Return the class, int64 (...), that each row of logits, (..., classes) or (..., 1), stands for.

    One logit is that of class 1 against class 0, as in binary cross-entropy: class 1 where it is above 0. Of several
    the largest decides, the first of equals. Where a logit is NaN there is no class: -1.
    """
    values: Any = logits
    found = values.argmax(-1) if values.shape[-1] != 1 else values[..., 0] > 0
    found = found.long() if isinstance(found, Tensor) else found.astype("int64")
    found[(values != values).any(-1)] = -1
    return cast(Values, found)


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each sample's loss where none is given: cross-entropy, binary cross-entropy for one logit.

    ``(N, classes)`` logits and ``(N,)`` int64 labels give ``(N,)``.
    """
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def check_classes(shape: tuple[int, ...], labels: Any) -> None:
    """Raise :class:`ValueError` where outputs of this shape and these labels have no cross-entropy."""
    own = "or give loss=, a function (outputs, labels) -> (sample,)"
    if len(shape) != 2:
        raise ValueError(f"cross-entropy takes outputs (sample, class), got {shape}: record another output, {own}")
    if not isinstance(labels, Tensor):
        raise ValueError(f"cross-entropy takes one tensor of labels, got {type(labels).__name__}: give one, {own}")
    if labels.ndim != 1:
        write = _as_classes(labels)
        raise ValueError(
            f"cross-entropy takes one class a sample, labels of shape ({len(labels)},), got {tuple(labels.shape)}: "
            + (f"{write}, {own}" if write else own.removeprefix("or "))
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"cross-entropy takes integer labels, got {labels.dtype}: round them, {own}")
    classes = max(2, shape[1])  # one logit tells two classes apart
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(
            f"labels must lie in 0..{classes - 1} for outputs of width {shape[1]}, got {int(labels[first])} at probe "
            f"{first} ({len(wrong)} of {len(labels)}): leave such samples (as -100, left out in torch) out, {own}"
        )


def _as_classes(labels: Tensor) -> str:
    """Return what to write for labels of another shape that are classes all the same; else nothing."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "write labels[:, 0].long()" if labels.is_floating_point() else "write labels[:, 0]"
    if labels.ndim == 2 and bool(((labels != 0).sum(1) == 1).all() and (labels.sum(1) == 1).all()):
        return "they are one-hot: write labels.argmax(1)"
    return ""
