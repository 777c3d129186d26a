"""Values of a suffix for many checkpoints at once.

A value is stacked, (T, N, ...), or (1, N, ...) where all checkpoints share it; or it is a list with what each
checkpoint has, where that is no tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Padded(NamedTuple):
    """Images with channels of zeros around their own, which are not laid out: (T or 1, N, C, height, width)."""

    images: Tensor
    before: int
    after: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape with the zeros."""
        t, n, channels, *size = self.images.shape
        return (t, n, channels + self.before + self.after, *size)

    def laid_out(self) -> Tensor:
        """Return the images with their zeros."""
        return F.pad(self.images, (0, 0, 0, 0, self.before, self.after))


class Values:
    """What steps have computed so far for ``count`` checkpoints; what they share has, as in torch, no axis of them."""

    def __init__(self, shared: Mapping[str, Any], count: int) -> None:
        self._shared, self._count = shared, count
        self._own: dict[str, Any] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        self._own[name] = value

    def __delitem__(self, name: str) -> None:
        self._own.pop(name, None)

    def stacked(self, name: str) -> Tensor | Padded | None:
        """Return a value (T or 1, ...), or None if it is no tensor."""
        value = self._own[name] if name in self._own else self._shared[name]
        if not isinstance(value, Tensor | Padded):
            return None
        return value if name in self._own or isinstance(value, Padded) else value[None]

    def together(self, function: Callable[[dict[str, Any]], Any], names: Sequence[str]) -> Tensor | None:
        """Return a function of one checkpoint's values for all at once, or None where torch cannot do that."""
        own = {name: _laid_out(self._own[name]) for name in names if name in self._own}
        if not all(isinstance(value, Tensor) for value in own.values()):
            return None
        fixed = {name: self._alone(name, 0) for name in names if name not in own}

        def of_one(*parts: Tensor) -> Any:
            return function(fixed | dict(zip(own, parts, strict=True)))

        try:
            found = torch.vmap(of_one)(*own.values())
        except Exception:  # what has no rule for batches raises what it pleases; one by one it says what is wrong
            return None
        return found if isinstance(found, Tensor) else None

    def one_by_one(self, function: Callable[[int, dict[str, Any]], Any], names: Sequence[str]) -> Any:
        """Return a function of a checkpoint and its values, stacked if it returns tensors of one shape.

        It gets float32, the type of the weights that modules hold.
        """
        found = [function(t, {name: _single(self._alone(name, t)) for name in names}) for t in range(self._count)]
        alike = all(isinstance(value, Tensor) and value.shape == found[0].shape for value in found)
        return torch.stack(found) if alike else found

    def nbytes(self) -> int:
        """Bytes of memory that own values hold."""
        tensors = [value.images if isinstance(value, Padded) else value for value in self._own.values()]
        held = [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, Tensor)]
        return sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())

    def _alone(self, name: str, t: int) -> Any:
        if name in self._own:
            return _laid_out(self._own[name])[t]
        value = self._shared[name]
        return value.laid_out()[0] if isinstance(value, Padded) else value


def _single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _laid_out(value: Any) -> Any:
    return value.laid_out() if isinstance(value, Padded) else value
