"""What a network computes besides its weights, as text: equal texts, as far as can be seen, are equal functions."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

PLAIN = (type(None), bool, int, float, complex, str, bytes)
OWN = frozenset(vars(nn.Module()))
"""Attributes of every module: its mode, which analyses set themselves, its parts, hooks and tensors."""

Seen: TypeAlias = dict[int, tuple[Any, str]]
"""Texts by the identity of what they describe, which is kept: else another could get its place in memory."""


def code_of(model: nn.Module) -> list[str]:
    """Return for each module its type, its code and its attributes: a changed line or constant is another network.

    Code is the byte code of its forward functions and of those of the same package that they call, with constants,
    defaults, and what they enclose. Tensors that are no parameters or buffers count by their values. What hooks do is
    not seen: analyses run without them.
    """
    found: list[str] = []
    seen: Seen = {}
    for name, part in model.named_modules():
        kind = type(part)
        is_torch = kind.__module__.startswith("torch.")  # whose private attributes follow from the others
        own = {k: v for k, v in vars(part).items() if k not in OWN and not (is_torch and k.startswith("_"))}
        buffers = {k: v for k, v in part._buffers.items() if k in part._non_persistent_buffers_set}
        text = [f"{name}:{kind.__module__}.{kind.__qualname__}", *_items(own | buffers, seen)]
        if not is_torch:
            methods = [v for base in kind.__mro__ for v in vars(base).values() if isinstance(v, FunctionType)]
            text += [_text(method, seen) for method in methods if _package(method) == _package(kind)]
        found.append(" ".join(text))
    return found


def text_of(value: Any) -> str:
    """Return the same of a function, or of a plain value."""
    return _text(value, {})


def _items(values: Mapping[str, Any], seen: Seen) -> Iterator[str]:
    for key in sorted(values):
        yield f"{key}={_text(values[key], seen)}"


def _text(value: Any, seen: Seen) -> str:
    """Return a value as text without addresses in memory."""
    if isinstance(value, PLAIN):
        return repr(value)
    if id(value) not in seen:
        seen[id(value)] = value, type(value).__qualname__  # for what refers to itself
        seen[id(value)] = value, _described(value, seen)
    return seen[id(value)][1]


def _described(value: Any, seen: Seen) -> str:
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(_text(v, seen) for v in value))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_text(v, seen) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_text(k, seen)}: {_text(v, seen)}' for k, v in value.items())}}}"
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and value.layout == torch.strided:
        content = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
        return f"{tuple(value.shape)} {value.dtype} {zlib.crc32(content):08x}"
    if isinstance(value, MethodType):
        return _text(value.__func__, seen)
    if isinstance(value, partial):
        return f"partial({_text([value.func, value.args, value.keywords], seen)})"
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {_text(value.co_consts, seen)}"
    if isinstance(value, FunctionType):
        names = {n: value.__globals__[n] for n in value.__code__.co_names if n in value.__globals__}
        used = {n: v for n, v in names.items() if isinstance(v, PLAIN) or _package(v) == _package(value)}
        enclosed = [_enclosed(cell) for cell in value.__closure__ or ()]
        parts = [value.__code__, value.__defaults__, value.__kwdefaults__, enclosed, used]
        return f"{value.__qualname__}{_text(parts, seen)}"
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _enclosed(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it has no value yet
        return None


def _package(value: Any) -> str | None:
    """Return the top package of what has code of its own."""
    return str(value.__module__).partition(".")[0] if isinstance(value, (FunctionType, type)) else None
