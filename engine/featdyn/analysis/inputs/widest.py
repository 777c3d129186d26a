"""How much a network holds between two of its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def widest(model: nn.Module, one: Tensor) -> int:
    """Return how many values the largest output of a layer has, for one sample ``(1, ...)``."""
    found = [one.numel()]

    def note(_: nn.Module, __: Any, out: Any) -> None:
        found.extend([out.numel()] if isinstance(out, Tensor) else [])

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    with torch.inference_mode():
        model(one)
    for hook in hooks:
        hook.remove()
    return max(found)
