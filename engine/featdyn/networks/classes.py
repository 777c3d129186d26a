"""The loss of outputs that mean classes, as :mod:`featdyn.classes` says, and what has none."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from featdyn.classes import IGNORED


def class_loss(logits: Tensor, labels: Tensor, tokens: Literal["mean", "sum"] = "mean") -> Tensor:
    """Return each sample's loss where none is given: cross-entropy, binary cross-entropy for one logit.

    ``(N, classes)`` logits and ``(N,)`` int64 labels give ``(N,)``. Of ``(N, positions, classes)`` and
    ``(N, positions)`` it is the mean, or the sum, over a sample's positions whose target is not :data:`IGNORED`.
    """
    if logits.ndim == 3:
        total = token_loss(logits, labels).sum(1)
        return total if tokens == "sum" else total / (labels != IGNORED).sum(1)
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy at each position, ``(N, positions)``, 0 where the target is :data:`IGNORED`.

    The target at a position is what the logits there are for: nothing is shifted here.
    """
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED).view(
        labels.shape
    )


def check_classes(shape: tuple[int, ...], labels: Any) -> None:
    """Raise :class:`ValueError` where outputs of this shape and these labels have no cross-entropy."""
    own = "or give loss=, a function (outputs, labels) -> (sample,)"
    if not isinstance(labels, Tensor):
        raise ValueError(f"cross-entropy takes one tensor of labels, got {type(labels).__name__}: give one, {own}")
    if len(shape) not in (2, 3):
        raise ValueError(
            f"cross-entropy takes outputs (sample, class) or (sample, position, class), got {shape}: record another "
            f"output, {own}"
        )
    if tuple(labels.shape[1:]) != shape[1:-1]:
        needed = (len(labels), *shape[1:-1])
        write = _as_classes(labels) if len(shape) == 2 else ""
        raise ValueError(
            f"cross-entropy takes one class a {'sample' if len(shape) == 2 else 'position'}, labels of shape {needed}, "
            f"got {tuple(labels.shape)}: " + (f"{write}, {own}" if write else own.removeprefix("or "))
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"cross-entropy takes integer labels, got {labels.dtype}: round them, {own}")
    if len(shape) == 3 and shape[2] == 1:
        raise ValueError(f"cross-entropy at positions takes a logit for each class, got {shape}: {own[3:]}")
    # One logit tells two classes apart; at positions each class has its own.
    classes = max(2, shape[1]) if len(shape) == 2 else shape[2]
    counted = labels != IGNORED if len(shape) == 3 else labels == labels
    wrong = (((labels < 0) | (labels >= classes)) & counted).nonzero()
    if len(wrong):
        first = tuple(wrong[0].tolist())
        left_out = "leave such samples (as -100, left out in torch) out" if len(shape) == 2 else "mark others by -100"
        raise ValueError(
            f"labels must lie in 0..{classes - 1} for outputs of width {shape[-1]}, got {int(labels[first])} at probe "
            f"{first[0]} ({len(wrong)} of {labels.numel()}): {left_out}, {own}"
        )
    empty = (~counted).flatten(1).all(1).nonzero() if len(shape) == 3 else wrong
    if len(empty):
        raise ValueError(
            f"probe {int(empty[0])} has no target that counts (all are {IGNORED} or padding; {len(empty)} such): "
            "leave such samples out"
        )


def _as_classes(labels: Tensor) -> str:
    """Return what to write for labels of another shape that are classes all the same; else nothing."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "write labels[:, 0].long()" if labels.is_floating_point() else "write labels[:, 0]"
    if labels.ndim == 2 and bool(((labels != 0).sum(1) == 1).all() and (labels.sum(1) == 1).all()):
        return "they are one-hot: write labels.argmax(1)"
    return ""
