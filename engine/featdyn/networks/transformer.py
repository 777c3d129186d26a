"""A small transformer over the rows of an image, such as one-hot symbols."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featdyn.errors import NetworkError


class Embedding(nn.Module):
    """Rows to tokens, and where they stand."""

    def __init__(self, rows: int, values: int, width: int) -> None:
        super().__init__()
        self.row = nn.Linear(values, width, bias=False)
        self.place = nn.Parameter(0.02 * torch.randn(rows, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, H, width)."""
        tokens: Tensor = self.row(x.transpose(1, 2).flatten(2)) + self.place
        return tokens


class Block(nn.Module):
    """Attention of every token to all, and a layer of units, each behind a normalisation and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = self.down(F.relu(self.up(self.norm2(x))))
        return x + y


class Last(nn.Module):
    """The last token."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, tokens, width) to (N, width)."""
        return x[:, -1]


def transformer(
    classes: int, shape: tuple[int, int, int], *, depth: int = 2, heads: int = 4, width: int = 128
) -> nn.Module:
    """Make a transformer on the rows of an image: modules ``embed``, ``block1``, ..., ``last``, ``norm``, ``fc``.

    The last row, which stands for the question, is what the linear layer ``fc`` answers from.
    """
    if width % heads:
        raise NetworkError(f"transformer: heads={heads} does not divide width={width}")
    channels, rows, columns = shape
    parts: OrderedDict[str, nn.Module] = OrderedDict(embed=Embedding(rows, channels * columns, width))
    for number in range(1, depth + 1):
        parts[f"block{number}"] = Block(width, heads)
    parts |= OrderedDict(last=Last(), norm=nn.LayerNorm(width), fc=nn.Linear(width, classes))
    return nn.Sequential(parts)
