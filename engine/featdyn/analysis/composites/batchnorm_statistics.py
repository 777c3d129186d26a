"""BatchNorm by the statistics of what is at hand: those of a batch, or of many batches together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from featdyn.functional import functional_call


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """Return a module's BatchNorm layers by name; those of a suffix are behind its cut."""
    return {name: inner for name, inner in module.named_modules() if isinstance(inner, _BatchNorm)}


def nearly_equal(samples: int, most: int) -> list[slice]:
    """Return slices of nearly one size, at most ``most``, that hold so many samples: none of several is small.

    A batch of one has no variance, so that BatchNorm cannot use it.
    """
    parts = -(-samples // most)
    ends = [samples * i // parts for i in range(parts + 1)]
    return [slice(*ends[i : i + 2]) for i in range(parts)]


class OneValue(ValueError):
    """A batch has one value per channel, which has no variance."""


@dataclass(frozen=True)
class Pooled:
    """Mean and variance of each channel over batches, float64, each value of a channel counted once."""

    count: int
    mean: Tensor  # (channel,)
    squares: Tensor  # (channel,), sum of squared differences from the mean

    def __add__(self, other: Pooled) -> Pooled:
        """Join two (Chan, Golub, LeVeque 1979): the law of total variance, by numbers of values."""
        count, apart = self.count + other.count, other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        return Pooled(count, self.mean + apart * (other.count / count), squares)

    @classmethod
    def of(cls, batch: Tensor) -> Pooled:
        """Return those of a batch ``(N, channel, ...)``."""
        channels = batch.detach().transpose(0, 1).flatten(1).double()
        variance, mean = torch.var_mean(channels, 1, correction=0)
        return cls(channels.shape[1], mean, variance * channels.shape[1])


@contextmanager
def by_batch(module: nn.Module, seen: Callable[[str, Tensor], None] | None = None) -> Iterator[None]:
    """Let the BatchNorm layers of a module in eval mode normalise by each batch; nothing of it is changed.

    ``seen`` is called with each layer's name and input. A batch of one value per channel raises :class:`OneValue`.
    """
    own: dict[str, dict[str, Tensor | None]] = {}

    def train(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def before(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            batch = next(value for value in (*given, *named.values()) if isinstance(value, Tensor))
            if batch.numel() == batch.shape[1]:
                raise OneValue(f"{name}: one value per channel has no variance")
            if seen is not None:
                seen(name, batch)
            # Its own forward function, which may do more than normalise, runs in training mode on statistics that go.
            own[name] = dict(layer._buffers)
            layer._buffers.update({key: None if kept is None else kept.clone() for key, kept in own[name].items()})
            layer.training = True

        return before

    def restore(name: str, layer: nn.Module) -> None:
        if name in own:
            layer.training = False
            layer._buffers.update(own.pop(name))

    layers = batch_norms(module)
    hooks = [layer.register_forward_pre_hook(train(name), with_kwargs=True) for name, layer in layers.items()]
    hooks += [layer.register_forward_hook(lambda m, *_, n=name: restore(n, m)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, layer in layers.items():
            restore(name, layer)


def reestimated(module: nn.Module, state: Mapping[str, Tensor], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return a state with the statistics that a module's BatchNorm layers meet on some batches, by numbers of values.

    ``running_mean``, the unbiased ``running_var`` and ``num_batches_tracked`` of each layer that keeps them are new, in
    their own precision; all else is as given, and the module, in eval mode, stays as it is. Each batch is normalised by
    its own statistics, as in training; none is read where there is no BatchNorm.

    Raises
    ------
    OneValue
        Of a batch.
    """
    layers, pooled, new, passes = batch_norms(module), dict[str, Pooled](), dict(state), 0
    if not layers:
        return new

    def add(name: str, batch: Tensor) -> None:
        mine = Pooled.of(batch)
        pooled[name] = pooled[name] + mine if name in pooled else mine

    with by_batch(module, add), torch.inference_mode():
        for batch in batches:
            functional_call(module, new, (batch,))
            passes += 1
    for name, found in pooled.items():
        values = {"running_mean": found.mean, "running_var": found.squares / (found.count - 1)}
        for key, value in (values | {"num_batches_tracked": torch.tensor(passes)}).items():
            path = f"{name}.{key}".lstrip(".")  # the module itself may be the layer
            if (own := state.get(path)) is not None:
                new[path] = torch.empty_like(own).copy_(value)
    return new
