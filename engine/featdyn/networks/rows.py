"""A few inputs to try a module on, made from one."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(example: Tensor) -> Tensor:
    """Return three inputs that differ: the first of ``example``, that turned round, and that moved by one.

    Their values are those of the first, so that they are tokens, pixels or whatever the module takes.
    """
    row = example[0]
    turned = row.flip(tuple(range(row.ndim)))
    return torch.stack([row, turned, turned.roll(1, -1) if row.ndim else turned])
