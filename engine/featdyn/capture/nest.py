"""What a model takes, or a loss compares with: one tensor, or several in dicts and tuples, samples first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, Union

import numpy as np
import torch
from torch import Tensor

Nest: TypeAlias = Union[Tensor, "dict[str, Nest]", "tuple[Nest, ...]", None]


def nest(name: str, values: Any) -> Nest:
    """Return tensors on the host that require no gradient, in dicts and tuples as they were given.

    A mapping or a tuple holds several tensors, a list or an array is one. None stays where it is.
    """
    if values is None:
        return None
    if isinstance(values, Mapping):
        for key in values:
            if not isinstance(key, str):
                raise TypeError(f"{name} must have names for keys, got {key!r}")
        return {key: nest(f"{name}[{key!r}]", value) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(nest(f"{name}[{i}]", value) for i, value in enumerate(values))
    return _tensor(name, values)


def leaves(values: Nest, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors with their paths, such as ``input.input_ids``; of one tensor alone the path is ``path``."""
    if isinstance(values, Tensor):
        yield path, values
    elif values is not None:
        for key, value in _items(values):
            yield from leaves(value, f"{path}.{key}")


def mapped(function: Callable[[Tensor], Tensor], values: Nest) -> Any:
    """Return a nest of what a function returns of each tensor."""
    if isinstance(values, dict):
        return {key: mapped(function, value) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(mapped(function, value) for value in values)
    return values if values is None else function(values)


def structure(values: Nest, path: str) -> Any:
    """Return as JSON which path stands where; a tuple becomes a list."""
    if values is None or isinstance(values, Tensor):
        return None if values is None else path
    inner = {str(key): structure(value, f"{path}.{key}") for key, value in _items(values)}
    return inner if isinstance(values, dict) else list(inner.values())


def restored(said: Any, load: Callable[[str], Tensor]) -> Any:
    """Return the nest of such a :func:`structure`, of tensors that ``load`` returns for a path."""
    if isinstance(said, Mapping):
        return {key: restored(value, load) for key, value in said.items()}
    if isinstance(said, list):
        return tuple(restored(value, load) for value in said)
    return said if said is None else load(said)


def _items(values: dict[str, Nest] | tuple[Nest, ...]) -> Iterator[tuple[str | int, Nest]]:
    yield from values.items() if isinstance(values, dict) else enumerate(values)


def _tensor(name: str, values: Any) -> Tensor:
    """Return a tensor on the host that requires no gradient."""
    try:
        if isinstance(values, list) and values and isinstance(values[0], Tensor | np.ndarray):  # sample by sample
            values = torch.stack([_tensor(name, value) for value in values])
        if hasattr(values, "to_numpy"):  # a table of pandas, or what is like it
            values = values.to_numpy()
        if isinstance(values, np.ndarray):  # torch has no read-only or reversed arrays; others are not copied
            values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        found = torch.as_tensor(values, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values).__name__
        raise TypeError(
            f"{name} must be a tensor, array or list of numbers, samples first, or a dict or tuple of them, got {kind}"
        ) from error
    if found.layout != torch.strided or found.is_nested or found.is_quantized:
        kind = "nested" if found.is_nested else "quantized" if found.is_quantized else str(found.layout)
        raise TypeError(f"{name} must be a plain tensor, got one that is {kind}: give .to_dense(), or pad it")
    return found
