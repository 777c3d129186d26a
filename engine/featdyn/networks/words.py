"""A small classifier of texts: embedded words, their mean, one hidden layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from featdyn.errors import NetworkError


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, feature)`` of ``(N, position, feature)``."""
        return x.mean(1)


def words(
    classes: int, shape: tuple[int, ...], *, vocabulary: int = 1000, width: int = 32, hidden: int = 64
) -> nn.Module:
    """Make the classifier: modules ``embed``, ``mean``, ``hidden``, ``fc``.

    It takes numbers of words ``(N, position)``, below ``vocabulary``; ``width`` are the embedding's features,
    ``hidden`` the units that make words tell more together than each alone.
    """
    if len(shape) != 1:
        raise NetworkError(f"words takes texts (position,), not inputs {tuple(shape)}")
    parts: OrderedDict[str, nn.Module] = OrderedDict(embed=nn.Embedding(vocabulary, width), mean=Mean())
    parts["hidden"] = nn.Sequential(OrderedDict(linear=nn.Linear(width, hidden), relu=nn.ReLU()))
    parts["fc"] = nn.Linear(hidden, classes)
    return nn.Sequential(parts)
