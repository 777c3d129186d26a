"""A network's tensors in a file of any usual form, read one by one: of a network larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from featdyn.capture.checkpoint_files import quiet, read, state_in


@dataclass(frozen=True)
class Mapped:
    """One tensor, as the network has it."""

    dtype: str
    size: int  # number of values
    nbytes: int
    beside: int  # bytes of it in its file, which are mapped while it is read


class MappedCheckpoint:
    """A checkpoint whose files are mapped into memory while a tensor is read from them, and only then.

    Parameters and errors are those of :func:`featdyn.capture.checkpoint_files.state_in`.
    """

    def __init__(self, path: Path, model: nn.Module, prefix: str | None, extra: Callable[[list[str]], None]) -> None:
        with quiet():
            content = read(path, mapped=True)
        found = state_in(path, model, prefix, extra, content=content)
        where = {id(tensor): keys for keys, tensor in _tensors(content, ())}
        self._path, self._keys = path, {name: where[id(tensor)] for name, tensor in found.items()}
        self._own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        self.tensors = {
            name: Mapped(str(own.dtype).removeprefix("torch."), own.numel(), own.nbytes, found[name].nbytes)
            for name, own in self._own.items()
        }

    def read(self, name: str) -> Tensor:
        """Return one tensor in the network's type, in memory of its own."""
        with quiet():
            value = read(self._path, mapped=True)
        for key in self._keys[name]:
            value = value[key]
        found: Tensor = value.detach().to(self._own[name].dtype, copy=True).contiguous()
        return found


def _tensors(content: Any, keys: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Yield all tensors of nested dicts, with the keys that lead there."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, (*keys, key))
    elif isinstance(content, Tensor):
        yield keys, content
