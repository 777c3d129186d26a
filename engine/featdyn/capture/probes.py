"""The fixed samples that every checkpoint is asked about, as a model takes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Probes:
    """Fixed probe samples.

    Parameters
    ----------
    inputs
        ``(N, ...)`` what the model takes, normalised.
    labels
        ``(N,)`` int64, the labels in use.
    coords
        What is known of each sample: name to an ``(N,)`` array. ``sample`` holds unique ids and is made where it is
        missing.
    """

    inputs: Tensor
    labels: Tensor
    coords: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.inputs)
        if n == 0 or self.labels.shape != (n,):
            raise ValueError(f"labels must have shape ({n},) like inputs, got {tuple(self.labels.shape)}")
        self.coords.setdefault("sample", np.array([f"{i:06d}" for i in range(n)], dtype=object))
        self.coords.setdefault("label", self.labels.numpy().astype(np.int64))
        for name, values in self.coords.items():
            if len(values) != n:
                raise ValueError(f"coordinate {name} must have length {n} like inputs, got {len(values)}")
        if len(set(self.coords["sample"].tolist())) != n:
            raise ValueError("coordinate sample must hold unique ids")

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, start: int, stop: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the samples ``start:stop`` on the device, filled up to ``size`` rows so that the shape never changes.

        The same sample in batches of different shapes does not give the same bits.
        """
        return filled(self.inputs, start, stop, size).to(device), filled(self.labels, start, stop, size).to(device)


def filled(values: Tensor, start: int, stop: int, size: int) -> Tensor:
    """Return the rows ``start:stop``, the last one again until there are ``size``."""
    return values[torch.arange(start, start + size).clamp(max=stop - 1)]
