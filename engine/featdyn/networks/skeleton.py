"""Networks whose parameters have shapes and types but no values: code and structure of those larger than memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from featdyn.errors import NetworkError

Made = TypeVar("Made")
_GUARD = threading.Lock()


def skeleton(make: Callable[[], Made]) -> Made:
    """Return what ``make`` returns, with every parameter that is registered meanwhile on torch's meta device.

    So at most one parameter at a time takes memory. Buffers and constants have their values, unlike under
    ``torch.device("meta")``: those that no checkpoint holds, such as a mask, are needed to run the network. Parameters
    of a class of their own stay as they are; tied ones stay tied.
    """
    own = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if type(param) is nn.Parameter and not param.is_meta:
            param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
        own(self, name, param)

    with _GUARD:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
        try:
            return make()
        finally:
            nn.Module.register_parameter = own  # type: ignore[method-assign]


def is_skeleton(module: nn.Module) -> bool:
    """Whether a network has parameters without values."""
    return any(parameter.is_meta for parameter in module.parameters())


def refuse_empty(part: nn.Module, state: set[str]) -> None:
    """Raise :class:`NetworkError` where a buffer that is not in the ``state`` of checkpoints has no values."""
    for name, buffer in part.named_buffers():
        if buffer.is_meta and name not in state:
            raise NetworkError(
                f"{name} has no values, and no checkpoint holds it: give a function that makes the network, or make it "
                "outside of torch.device('meta')"
            )
