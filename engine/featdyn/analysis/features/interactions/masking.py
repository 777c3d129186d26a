"""What masking players makes of one probe's features: entries take another value, or components are taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from featdyn.analysis.features.interactions.regions import Places

Masking = Callable[[Places], Tensor]
"""From subsets of players that stay to the masked features ``(subset, ...)``."""


def present(subsets: Places, players: int) -> Tensor:
    """Return which players each subset keeps, ``(subset, player)``."""
    return torch.from_numpy(subsets[:, None] >> np.arange(players) & 1 == 1)


def entries(z: Tensor, of_entry: Places, chosen: Places, masked: Tensor) -> Masking:
    """Mask sets of entries of ``z``: those of ``of_entry``, which broadcasts to it, that are players.

    ``masked``, which broadcasts to ``z`` too, holds the values that masked entries take.
    """
    player = np.full(of_entry.max() + 1, len(chosen))
    player[chosen] = np.arange(len(chosen))
    index = torch.from_numpy(player[of_entry]).to(z.device)
    index = index.reshape(*[1] * (z.ndim - index.ndim), *index.shape)

    def kept(subsets: Places) -> Tensor:
        # A last column for entries of no player, which stay.
        return torch.nn.functional.pad(present(subsets, len(chosen)), (0, 1), value=True).to(z.device)[:, index]

    if z.ndim == 3 and len(index) == 1:
        return partial(_of_places, places(masked.expand_as(z)), places(z), kept, z.shape)
    return lambda subsets: torch.where(kept(subsets), z, masked)


def _of_places(masked: Tensor, z: Tensor, kept: Masking, shape: torch.Size, subsets: Places) -> Tensor:
    """Return maps whose places are masked whole, in the order of memory that convolutions take.

    Rows of channels are copied, seven times as fast as choosing entry by entry, and no order has to be changed later.
    """
    table, mine = torch.cat([masked, z]), kept(subsets).flatten(1)  # (subset, place)
    rows = mine.int().mul_(len(z)).add_(torch.arange(len(z), device=z.device)).flatten()
    return table.index_select(0, rows).reshape(len(mine), *shape[1:], shape[0]).permute(0, 3, 1, 2)


def places(z: Tensor) -> Tensor:
    """Return maps (channel, height, width) as ``(place, channel)``."""
    return z.flatten(1).T.contiguous()


def components(z: Tensor, moments: Moments, players: int) -> Masking:
    """Take principal components of the channels out of ``z``: at each place its deviation from the mean along them."""
    mean, axes = by_channel(moments.mean).mean(0), moments.axes[:, :players]
    flat = by_channel(z).double()  # (place, channel)
    along = (flat - mean) @ axes

    def rows(subsets: Places) -> Tensor:
        gone = (~present(subsets, players)).to(along)
        found = (flat - (gone[:, None, :] * along) @ axes.T).to(z.dtype)
        return (found.transpose(-1, -2) if z.ndim == 3 else found).reshape(len(found), *z.shape)

    return rows


def by_channel(z: Tensor) -> Tensor:
    """Return one probe's features as ``(place, channel)``: channels are the first axis of maps, the last of others."""
    return places(z) if z.ndim == 3 else z.reshape(-1, z.shape[-1])


@dataclass(frozen=True)
class Moments:
    """Mean of features over probes, and covariance of their channels over probes and places."""

    mean: Tensor  # of the features' shape, float64
    covariance: Tensor  # (channel, channel); empty where it was not asked for

    @classmethod
    def of(cls, batches: Iterable[Tensor], *, covariance: bool) -> Moments:
        """Return those of features ``(probe, ...)``, which come batch by batch."""
        number, total, second, shift = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
        for batch in batches:
            values = batch.double()
            total = total + values.sum(0)
            if covariance:
                rows = torch.cat([by_channel(z) for z in values])
                shift = shift if number else rows.mean(0)  # against cancellation
                second = second + (rows - shift).T @ (rows - shift) * (len(values) / len(rows))
            number += len(values)
        mean = total / number
        if not covariance:
            return cls(mean, torch.zeros(0))
        apart = by_channel(mean).mean(0) - shift
        return cls(mean, second / number - torch.outer(apart, apart))

    @property
    def channel_mean(self) -> Tensor:
        """The mean of each channel over probes and places, which broadcasts to features."""
        mean = by_channel(self.mean).mean(0)
        return mean[:, None, None] if self.mean.ndim == 3 else mean

    @cached_property
    def axes(self) -> Tensor:
        """The principal axes ``(channel, component)``, of largest variance first."""
        vectors: Tensor = torch.linalg.eigh(self.covariance).eigenvectors
        return vectors.flip(-1)
