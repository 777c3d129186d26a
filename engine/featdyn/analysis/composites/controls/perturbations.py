"""Features moved as far as they drifted, in other directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def perturbed(
    old: Tensor, new: Tensor, labels: NDArray[np.integer[Any]], origins: NDArray[np.int64], seed: int
) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
    """Yield the features ``(n, ...)`` of each of the kinds, and which probes ``(n,)`` have such a control.

    The first are the old features themselves, those of t1, the others new ones, of t2, plus e. A probe has no control
    where there is nobody whose drift it could be given, or its own is not finite: it stays as it is at t2. One that
    does not drift has them all: e is zero. Drift that is not finite is nobody else's either, and none is given to
    copies of its own image, those of one of the ``origins (n,)``. The Gaussian's covariance is that of the drift over
    the probes of other images: a random combination of their centred drifts.
    """
    flat = (old - new).flatten(1)
    size = lengths(flat)[:, None]
    finite = size.isfinite()
    flat = torch.where(finite, flat, 0.0)
    random = torch.Generator().manual_seed(seed)
    n = len(flat)

    def placed(direction: Tensor) -> tuple[Tensor, NDArray[np.bool_]]:
        length = lengths(direction)[:, None]
        known = (length > 0) & finite
        e = torch.where(known, direction * (size / length), 0.0).to(new)
        return new + e.view_as(new), (known | (size == 0))[:, 0].cpu().numpy()

    yield old, np.ones(n, bool)
    yield placed(torch.randn(flat.shape, generator=random).to(flat))
    mixture = torch.randn(n, n, generator=random)
    mixture.masked_fill_(torch.from_numpy(origins[:, None] == origins), 0)
    yield placed(mixture.to(flat) @ torch.where(finite, flat - flat.sum(0) / finite.sum().clamp(min=1), 0.0))
    moves = ((size > 0) & finite)[:, 0].cpu().numpy()
    for same in (True, False):
        candidates = ((labels[:, None] == labels) == same) & moves & (origins[:, None] != origins)
        weights = torch.from_numpy(candidates).float()
        nobody = weights.sum(1) == 0
        other = torch.multinomial(weights + nobody[:, None], 1, generator=random)[:, 0]
        yield placed(torch.where(nobody[:, None].to(flat.device), 0.0, flat[other.to(flat.device)]))


def lengths(values: Tensor) -> Tensor:
    """Return the norms ``(n,)`` of ``(n, ...)``, float64."""
    found: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1, dtype=torch.float64)
    return found


def norm_error(moved: Tensor, new: Tensor, size: Tensor) -> float:
    """Return the largest relative difference between wanted norms ``size (n,)`` and those of ``moved - new``."""
    measured = lengths(moved - new)
    error = torch.where((size > 0) & size.isfinite() & (measured > 0), (measured / size - 1).abs(), 0.0)
    return float(error.max())
