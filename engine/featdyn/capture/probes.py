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

    What is given is left as it is: tensors that require a gradient, or lie on a GPU, are kept without and on the host,
    and integer labels as int64.

    Parameters
    ----------
    inputs
        ``(N, ...)`` tensor, array or list: what the model takes, normalised.
    labels
        ``(N,)`` tensor, array or list: the labels in use, integers for classes, or real numbers for another loss.
    coords
        What is known of each sample: name to an ``(N,)`` array of numbers or text. ``sample`` holds unique ids and is
        made where it is missing, and so is ``label`` of integer labels. ``origin`` says which image, document, ... a
        probe was made from: probes of one origin (an image and its corrupted copies) are no independent samples, so
        the origin is the unit of resampling. Without it each probe counts as its own.

    Raises
    ------
    TypeError, ValueError
        What cannot be taken as such, in one line.
    """

    inputs: Tensor
    labels: Tensor
    coords: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs, labels = _tensor("inputs", self.inputs), _tensor("labels", self.labels)
        n = len(inputs) if inputs.ndim else 0
        if n == 0 or labels.shape != (n,):
            raise ValueError(f"labels must have shape ({n},) like inputs, got {tuple(labels.shape)}")
        coords = {name: _coordinate(name, values) for name, values in self.coords.items()}
        coords.setdefault("sample", np.array([f"{i:06d}" for i in range(n)], dtype=object))
        if not labels.is_floating_point():
            labels = labels.to(torch.int64)
            coords.setdefault("label", labels.numpy().copy())
        for name, values in coords.items():
            if values.shape != (n,):
                raise ValueError(f"coordinate {name} must have length {n} like inputs, got shape {values.shape}")
        if len(set(coords["sample"].tolist())) != n:
            raise ValueError("coordinate sample must hold unique ids")
        for name, value in (("inputs", inputs), ("labels", labels), ("coords", coords)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, start: int, stop: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the samples ``start:stop`` on the device, filled up to ``size`` rows so that the shape never changes.

        The same sample in batches of different shapes does not give the same bits.
        """
        return filled(self.inputs, start, stop, size).to(device), filled(self.labels, start, stop, size).to(device)

    def few(self, device: torch.device, most: int = 4) -> tuple[Tensor, Tensor]:
        """Return some samples from all over them, to try a network on."""
        places = torch.linspace(0, len(self) - 1, min(len(self), most), device="cpu").long()
        return self.inputs[places].to(device), self.labels[places].to(device)


def filled(values: Tensor, start: int, stop: int, size: int) -> Tensor:
    """Return the rows ``start:stop``, the last one again until there are ``size``."""
    return values[torch.arange(start, start + size, device=values.device).clamp(max=stop - 1)]


def _tensor(name: str, values: Any) -> Tensor:
    """Return a tensor on the host that requires no gradient."""
    try:
        if isinstance(values, np.ndarray):  # torch has no read-only or reversed arrays; others are not copied
            values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        return torch.as_tensor(values, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values).__name__
        raise TypeError(f"{name} must be one tensor, array or list of numbers, samples first, got {kind}") from error


def _coordinate(name: str, values: Any) -> np.ndarray[Any, Any]:
    """Return numbers or text as they will be stored."""
    found = np.array(values.detach().cpu() if isinstance(values, Tensor) else values)
    if found.dtype.kind == "T":  # numpy's own strings of any length
        found = found.astype(object)
    odd = [v for v in found.ravel().tolist() if not isinstance(v, str)] if found.dtype == object else []
    if odd or found.dtype.kind not in "biufUO":
        got = repr(odd[0]) if odd else str(found.dtype)
        raise TypeError(f"coordinate {name} must hold numbers or text, got {got}: write '' where nothing is known")
    return found
