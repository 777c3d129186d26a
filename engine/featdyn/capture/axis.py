"""Where samples and positions lie in what a layer returns, and what is recorded of the positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

Pool: TypeAlias = Literal["none", "mean", "last", "cls"]


@dataclass(frozen=True)
class Axis:
    """How one layer's output is to be read, in ``layers={"blocks.0.attn": Axis(sample=1)}``.

    What is recorded has the sample first and the position second, whatever the layer returns.

    Parameters
    ----------
    sample
        The axis of the samples in what the layer returns, counted from 0.
    position
        The axis of the positions (tokens, patches). None takes the first other one of outputs with three axes (the last
        one of ``Conv1d`` and of what has its channels first too: norms, pools, a ``Sequential`` of them), and none of
        others.
    pool
        What is recorded of the positions: all ("none"), their mean, the last or the first one (where a CLS token
        stands), counted over those that are no padding. None is as the option ``pool`` of the recording says.
    mask
        Which of the inputs says what is no padding, where it is not the mask of the probes: its key, as
        ``"decoder_attention_mask"`` (``"0.mask"`` in a tuple).
    output
        Which tensor, of a layer that returns several: its place or key (``1``, ``"last_hidden_state"``; ``"1.0"`` for
        the first state of an LSTM). None is the first one of real numbers.

    Raises
    ------
    ValueError
        An axis that is no number from 0 on, one for both, another pool, or a mask or output that is no name.

    Examples
    --------
    >>> Axis(sample=1, pool="mean")
    Axis(sample=1, position=None, pool='mean', mask=None, output=None)
    """

    sample: int = 0
    position: int | None = None
    pool: Pool | None = None
    mask: str | None = None
    output: str | int | None = None

    @classmethod
    def said(cls, words: Sequence[str]) -> Axis:
        """Return what words such as ``sample=1`` and ``pool=mean`` say; ValueError where they say none."""
        found: dict[str, Any] = {}
        for word in words:
            name, _, value = word.partition("=")
            if name not in cls.__dataclass_fields__ or not value or name in found:
                raise ValueError(
                    f"{word!r} says no axis: write sample=1, position=2, pool=mean, mask=KEY or output=PLACE, each once"
                )
            found[name] = int(value) if value.isdecimal() and name in ("sample", "position") else value
        return cls(**found)

    def __post_init__(self) -> None:
        for name, value in (("sample", self.sample), ("position", self.position)):
            if not (value is None and name == "position") and (type(value) is not int or value < 0):
                raise ValueError(f"Axis: {name} must be a whole number of at least 0, got {value!r}")
        if self.position == self.sample:
            raise ValueError(f"Axis: sample and position are both {self.sample}: they are two axes")
        if self.pool is not None and self.pool not in get_args(Pool):
            raise ValueError(f"Axis: pool must be one of {', '.join(get_args(Pool))}, got {self.pool!r}")
        if self.mask is not None and (type(self.mask) is not str or not self.mask):
            raise ValueError(f"Axis: mask must be the key of an input, got {self.mask!r}")
        if self.output is not None:
            if type(self.output) not in (int, str) or str(self.output)[:1] in ("", "-"):
                raise ValueError(f"Axis: output must be a place from 0 on or a key, got {self.output!r}")
            object.__setattr__(self, "output", str(self.output))

    def place(self, ndim: int) -> int | None:
        """Return the axis of the positions in an output of so many axes."""
        if self.position is not None or ndim != 3:
            return self.position
        return 1 if self.sample == 0 else 0

    def turned(self, values: Tensor) -> Tensor:
        """Return an output with samples first, and positions second where there are any; its memory is shared."""
        position = self.place(values.ndim)
        found = [self.sample] if position is None else [self.sample, position]
        return values.movedim(found, list(range(len(found))))


def pooled(values: Tensor, real: Tensor, pool: Pool, *, gradient: bool = False) -> Tensor:
    """Return ``(sample, ...)`` of ``(sample, position, ...)``; with "none" all positions, and 0 at padding.

    ``real (sample, position)`` says what is no padding, at least one position of each sample. The gradient with respect
    to a mean is that of a step which all its positions take together: their sum.
    """
    if pool in ("last", "cls"):
        count = torch.arange(real.shape[1], device=real.device)
        place = torch.where(real, count, -1).amax(1) if pool == "last" else real.long().argmax(1)
        return values[torch.arange(len(values), device=values.device), place]
    there = real.view(*real.shape, *(1,) * (values.ndim - 2))
    kept = torch.where(there, values, values.new_zeros(()))
    if pool == "none":
        return kept
    kept = kept.to(torch.promote_types(kept.dtype, torch.float32)).sum(1)
    return kept if gradient else kept / real.sum(1).view(-1, *(1,) * (kept.ndim - 1))
