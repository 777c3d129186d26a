"""Sliced Wasserstein distance on the GPU: torch's sort is the whole cost, so no kernel of ours is in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from featdyn_kernels._tiles.gpu import scaled_pair

Array = np.ndarray[Any, Any]

_BLOCK = 64  # directions projected at once, so that memory stays linear in the samples


def powers(x: torch.Tensor, y: torch.Tensor, directions: Array, p: float) -> torch.Tensor:
    """See :func:`featdyn_kernels.pairwise.sliced.reference.powers`."""
    a, b = scaled_pair(x, y, np.ones(x.shape[1]), np.inf)
    costs = [
        _transport(_project(u, a).sort(1).values, _project(u, b).sort(1).values, p) for u in _blocks(directions, b)
    ]
    return torch.cat(costs).mean()


def labelled_powers(points: torch.Tensor, members: Array, directions: Array, p: float) -> torch.Tensor:
    """See :func:`featdyn_kernels.pairwise.sliced.reference.labelled_powers`."""
    a, _ = scaled_pair(points, points, np.ones(points.shape[1]), np.inf)
    labels = torch.from_numpy(members).to(a.device)
    costs = []
    for u in _blocks(directions, a):
        values, order = _project(u, a).sort(1)
        rows = []
        for label in labels:
            marked = label[order]  # every direction marks equally many, in its own order
            rows.append(_transport(values[marked].view(len(u), -1), values[~marked].view(len(u), -1), p))
        costs.append(torch.stack(rows))
    return torch.cat(costs, 1).mean(1)


def _blocks(directions: Array, like: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.from_numpy(directions).to(like).split(_BLOCK))


def _project(u: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (u.double() @ x.double().T).to(x.dtype)  # float64, because a GPU's float32 product may be TF32


def _transport(a: torch.Tensor, b: torch.Tensor, p: float) -> torch.Tensor:
    """Return ``W_p^p`` for each row of two sorted samples: the mean over levels of the distance between quantiles."""
    n, m = a.shape[1], b.shape[1]
    # Levels at which either quantile steps, in units of 1 / (n m), so that they are exact.
    steps = torch.cat([torch.arange(1, n + 1, device=a.device) * m, torch.arange(1, m + 1, device=a.device) * n])
    ends = steps.unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    gaps = (a[:, starts // m].double() - b[:, starts // n].double()).abs() ** p
    cost: torch.Tensor = gaps @ (ends - starts).double() / (n * m)
    return cost
