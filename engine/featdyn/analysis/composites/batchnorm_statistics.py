"""BatchNorm's running statistics, estimated anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm


def norms(module: nn.Module) -> list[_BatchNorm]:
    """Return a module's BatchNorm layers."""
    return [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]


@contextmanager
def by_batch(module: nn.Module, momentum: float | None = 0.0) -> Iterator[None]:
    """Let BatchNorm layers use the statistics of each batch; running ones move by ``momentum``.

    With None they are the plain average over the batches since they were reset.
    """
    found = norms(module)
    saved = [norm.momentum for norm in found]
    try:
        for norm in found:
            norm.train()
            norm.momentum = momentum
        yield
    finally:
        for norm, own in zip(found, saved, strict=True):
            norm.eval()
            norm.momentum = own


def reestimated(module: nn.Module, state: Mapping[str, Tensor], blocks: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return a state with the statistics that a module's BatchNorm layers meet on some batches: their plain average.

    Parameters
    ----------
    module
        In eval mode; all but its BatchNorm layers stays so.
    state
        Of the module; it is left as it is.
    blocks
        Inputs. They are not read where there is no BatchNorm.
    """
    new = dict(state)
    if not norms(module):
        return new
    for name, tensor in state.items():
        if name.endswith(("running_mean", "num_batches_tracked")):
            new[name] = torch.zeros_like(tensor)
        elif name.endswith("running_var"):
            new[name] = torch.ones_like(tensor)
    with by_batch(module, None), torch.inference_mode():
        for block in blocks:
            functional_call(module, new, (block,))
    return new
