"""Taps: the tensors at cuts as a live model has them, also where no module returns them, such as a pooled vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from featdyn.networks.choose import resolve
from featdyn.networks.cut import Cut, segments
from featdyn.networks.unwrap import unwrap
from featdyn.networks.ways import cuts


@dataclass(frozen=True)
class Taps:
    """The tensors at some cuts of a model, each under the one name that it has everywhere."""

    cuts: list[Cut]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample's tensor at each cut, by name, in the order of the network."""
        return {cut.name: cut.shape for cut in self.cuts}

    def __call__(
        self, inputs: Tensor, seen: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Run the model on inputs ``(N, ...)`` in eval mode; return tensors ``(N, *shape)`` by name, and the output.

        Parameters and buffers are the model's own, as they are now, where it is trained in place. ``seen`` is given
        each tensor on its way, and what it returns goes on (such as one that asks for a gradient).
        """
        found, value = dict[str, Tensor](), inputs
        for piece, cut in zip(self._pieces, [*self.cuts, None], strict=True):
            value = piece(value)
            if cut is not None:
                found[cut.name] = seen(cut.name, value)
                value = cut.handed(found[cut.name], lambda: inputs)
        return found, value

    @cached_property
    def _pieces(self) -> list[nn.Module]:
        return segments(self.cuts)


def taps(model: nn.Module, inputs: Tensor, patterns: Sequence[str] = ("default",)) -> Taps:
    """Return the taps of a model's cuts of these names or patterns, its default cuts where none are given.

    ``inputs`` are a few probes, (N, ...), as the model takes them. Raises :class:`NetworkError` where the model has no
    such cut.
    """
    return Taps(resolve(cuts(unwrap(model), inputs), patterns))
