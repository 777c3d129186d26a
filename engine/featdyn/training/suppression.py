"""Training against interactions of many parts of an image, which are the ones that generalize less.

After arXiv 2505.06993, whose equations were not at hand: that it weighs two losses, and estimates interactions by the
difference below over random disjoint sets of parts, is what reviews say of it and of a sibling. What is masked, and
that the difference is taken of log-odds by its size, is **featdyn's own choice**.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GRID = 8
"""Parts on a side at most: our own choice."""


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``log(p / (1 - p))`` of the true class, ``(N,)``; one logit is that of class 1 against class 0."""
    if logits.shape[-1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], -1)
    own = logits.gather(-1, labels[:, None])
    others = logits.scatter(-1, labels[:, None], -torch.inf)
    return own[:, 0] - others.logsumexp(-1)


def parts(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Return which of four kinds each place of each image belongs to, ``(N, 1, H, W)``: S1, S2, S3 or none, 0 to 3.

    Patches of a grid are dealt to them at random.
    """
    n, _, height, width = inputs.shape
    rows, columns = (torch.arange(side) * min(side, GRID) // side for side in (height, width))
    dealt = torch.randint(0, 4, (n, int(rows[-1]) + 1, int(columns[-1]) + 1), generator=generator)
    return dealt[:, rows][:, :, columns][:, None].to(inputs.device)


def penalty(network: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mean of ``|v(S1 S2 S3) - v(S1 S3) - v(S2 S3) + v(S3)|`` over a batch.

    That is the sum of all interactions that have variables both in S1 and in S2 and none outside the three; masked
    places are 0. The four kinds of images pass the network together.
    """
    kind, n = parts(inputs, generator), len(inputs)
    kept = [(kind == 2) | sum((kind == k for k in of), torch.zeros_like(kind, dtype=torch.bool))
            for of in ((0, 1), (0,), (1,), ())]  # fmt: skip
    logits = network(torch.cat([torch.where(k, inputs, 0.0) for k in kept])).float()
    v = log_odds(logits, labels.repeat(4)).reshape(4, n)
    return (v[0] - v[1] - v[2] + v[3]).abs().mean()
