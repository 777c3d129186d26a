"""What makes the models of several ranks one network: equal parameters, and the buffers of rank 0.

Under DistributedDataParallel all ranks have the same parameters, but each counts the batch statistics of its own
samples. What is recorded is one network, rank 0's: it is the one whose ``state_dict`` is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from featdyn.errors import NetworkError

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_whole(model: nn.Module) -> None:
    """Raise :class:`NetworkError` for a parameter that is sharded over ranks: a probe pass would need all of them."""
    from torch.distributed.tensor import DTensor

    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            raise NetworkError(
                f"parameter {name} is sharded over ranks: record a network that each rank has as a whole"
            )


def checksums(model: nn.Module) -> dict[str, int]:
    """Return for each parameter the sum of its values' bits taken as integers.

    Exact in any order, computed where the parameter is, and only one number leaves the device. Values that differ have
    equal sums by a chance of about one in 2^32, or by being the same values in another order.
    """
    return {name: _checksum(parameter) for name, parameter in model.named_parameters()}


def _checksum(values: Tensor) -> int:
    values = values.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    return int(values.view(_INTEGERS[values.element_size()]).sum(dtype=torch.int64))


def buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a model's buffers on the host, also of those that its ``state_dict`` leaves out."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.named_buffers(remove_duplicate=False)}


@contextmanager
def with_tensors(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a model use other parameters and buffers for a while.

    Its own tensors are put aside, not written to: a graph that autograd has saved them for stays valid.
    """
    own: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for path, value in values.items():
            owner, _, name = path.rpartition(".")
            module = model.get_submodule(owner)
            held: dict[str, Any] = module._buffers if name in module._buffers else module._parameters
            own.append((held, name, held[name]))
            held[name] = value.to(held[name].device)
        yield
    finally:
        for held, name, mine in own:
            held[name] = mine


def with_state(model: nn.Module, state: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    """Let a model use the tensors of a checkpoint for a while, by all of their names."""
    own = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return with_tensors(model, {name: state[name] for name, _ in own if name in state})


def holds(state: Mapping[str, Tensor], model: nn.Module) -> bool:
    """Whether a network's parameters and buffers are, bit for bit, those of a checkpoint."""
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return own.keys() == state.keys() and all(_same(state[name], value) for name, value in own.items())


def _same(one: Tensor, other: Tensor) -> bool:
    bits = [t.detach().cpu().contiguous().view(-1).view(torch.uint8) for t in (one, other)]
    return (one.shape, one.dtype) == (other.shape, other.dtype) and torch.equal(*bits)
