"""In torch's own operations: memory-bound, and no value leaves the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rounded(values: Tensor, out: Tensor) -> Tensor:
    """See :func:`featdyn_kernels.summaries.rounded`; rows are (N, F)."""
    out.copy_(values)
    if not values.shape[1]:
        return values.new_zeros(len(values), dtype=torch.float64)
    sizes = values.abs()
    # Without asking whether any is infinite, which would wait for the device.
    return sizes.masked_fill_(sizes.isinf(), 0).amax(1).double()


def summarise(stored: Tensor, before: Tensor | None, slots: Any, width: int) -> tuple[Tensor | None, ...]:
    """See :func:`featdyn_kernels.summaries.summarise`; rows are (N, F)."""
    x = stored.double()
    product = before_squares = sketch = None
    if before is not None:
        y = before.double()
        product, before_squares = (x * y).sum(1), (y * y).sum(1)
    if slots is not None:
        places = torch.from_numpy(slots.astype("int64")).to(x.device)
        signed = x.new_zeros(len(x), 2 * width).index_add_(1, places, x)
        sketch = signed[:, :width] - signed[:, width:]
    return x.sum(1), (x * x).sum(1), (x != 0).sum(1).double(), product, before_squares, sketch
