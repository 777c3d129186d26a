"""What a caller gives with a checkpoint, as it is stored; or one line about what it should be."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, SupportsFloat, TypeAlias

if TYPE_CHECKING:  # recipes read cadences with what is below, and list themselves without torch
    from torch import Tensor

Number: TypeAlias = "SupportsFloat | Tensor"
_LENGTH = 8
"""Bytes that say how long the header of a safetensors file is; it is filled up to a multiple of that."""


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the content of a safetensors file; tied tensors are written once for each name."""
    from safetensors.torch import save
    from torch import Tensor

    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"state must hold tensors by name, got {type(value).__name__} for {name!r}: of an optimizer, "
                "featdyn.training.state.optimizer_tensors(model, optimizer) makes such"
            )
    held, seen = dict[str, Tensor](), set[int]()
    for name, value in tensors.items():
        dense = value.detach().cpu().contiguous()
        storage = dense.untyped_storage().data_ptr()
        held[name] = dense.clone() if storage in seen else dense  # safetensors takes no memory twice
        seen.add(storage)
    content: bytes = save(held)
    return content


def tensors_in_parts(own: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> Iterator[bytes]:
    """Yield what :func:`tensors_to_bytes` gives, of tensors that are read one by one.

    ``own`` are tensors of their shapes and types by name, whose values do not count.
    """
    import torch
    from safetensors.torch import save

    small = save({name: torch.zeros(1, dtype=tensor.dtype) for name, tensor in own.items()})
    said = json.loads(small[_LENGTH : _LENGTH + int.from_bytes(small[:_LENGTH], "little")])  # in their order
    start = 0
    for name, entry in said.items():
        stop = start + own[name].nbytes
        entry |= {"shape": list(own[name].shape), "data_offsets": [start, stop]}
        start = stop
    header = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % _LENGTH)
    yield len(header).to_bytes(_LENGTH, "little") + header
    for name in said:
        yield read(name).contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def number(name: str, value: Number) -> float:
    """Return a coordinate's value as a number, also of a tensor of one that requires a gradient."""
    from torch import Tensor

    if isinstance(value, Tensor):
        value = value.detach()
    shape = getattr(value, "shape", ())
    if len(shape):
        raise ValueError(f"{name} must be one number, got shape {tuple(shape)}: take its mean, or .item()")
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from error


def whole(name: str, value: int, least: int = 0) -> int:
    """Return an option that must be a whole number of at least so much, and of 64 bits at most."""
    try:
        found = operator.index(value)
    except TypeError:
        found = least - 1
    if not least <= found < 2**63:
        raise ValueError(f"{name} must be a whole number of at least {least} and below 2**63, got {value!r}")
    return found
