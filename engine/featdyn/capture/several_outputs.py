"""A layer that returns several tensors, as an LSTM does: the one that is recorded, and the rest as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors(output: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Yield the tensors in tuples, lists and mappings, in order, with the places and keys that lead there."""
    if isinstance(output, Tensor):
        yield at, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors(value, (*at, key))
    elif isinstance(output, list | tuple):
        for place, value in enumerate(output):
            yield from tensors(value, (*at, place))


def one_of(output: Any, asked: str | None) -> tuple[str, tuple[Any, ...], Tensor]:
    """Return a tensor's name (as ``1.0``, or ``last_hidden_state``), its place and itself: the asked one, or the first.

    The first is that of real numbers. Raises LookupError with what there is, where there is none.
    """
    found = {".".join(map(str, at)): (at, tensor) for at, tensor in tensors(output)}
    for name, (at, tensor) in found.items():
        if tensor.is_floating_point() if asked is None else name == asked:
            return name, at, tensor
    raise LookupError(", ".join(found) or "no tensors")


def replaced(output: Any, at: tuple[Any, ...], value: Tensor) -> Any:
    """Return the same with another tensor at a place; what was given is left as it is."""
    if not at:
        return value
    first, *rest = at
    inner = replaced(output[first], tuple(rest), value)
    if isinstance(output, tuple):
        items = [inner if place == first else item for place, item in enumerate(output)]
        return type(output)(*items) if hasattr(output, "_make") else type(output)(items)  # a named tuple
    found = copy.copy(output)
    found[first] = inner
    return found
