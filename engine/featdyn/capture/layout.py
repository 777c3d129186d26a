"""From what a layer returns to what is recorded of it: samples first, positions second or pooled, no padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from featdyn.capture.axis import Axis, Pool, pooled
from featdyn.capture.tap import LayerError


@dataclass(frozen=True)
class Layout:
    """One layer of a recording."""

    axis: Axis
    shape: tuple[int, ...]  # of one sample, as it is recorded
    positions: bool  # whether its first axis is that of the positions
    unsure: bool = False  # whether that may be its channels, see :mod:`featdyn.capture.channels`
    picked: bool = False  # whether it is the first of several tensors, as nobody asked for another
    averaged: bool = False  # whether of maps the mean over their places is recorded

    @property
    def attrs(self) -> dict[str, Any]:
        """What a store says of it, where it is not what a layer returns as it is."""
        found: dict[str, Any] = {"sample_axis": self.axis.sample} if self.axis.sample else {}
        if self.axis.position is not None:
            found["position_axis"] = self.axis.position
        found |= {"output": self.axis.output} if self.axis.output is not None else {}
        found |= {"pool": self.axis.pool} if self.axis.pool not in (None, "none") else {}
        return found | ({"mask": f"input.{self.axis.mask}"} if self.axis.mask is not None else {})

    @property
    def known(self) -> bool | None:
        """Whether its first axis is that of the positions; None where it is as networks have it."""
        return False if self.axis.pool not in (None, "none") else self.positions or None

    def as_vector(self) -> Layout:
        """Return how one vector of it is recorded: of maps, whose channels come first, the mean over their places."""
        maps = len(self.shape) == 3 and not self.positions
        return replace(self, shape=self.shape[:1], averaged=True) if maps else self

    def recorded(self, name: str, values: Tensor, real: Tensor | None, *, gradient: bool = False) -> Tensor:
        """Return what is recorded of a batch that a layer returns, ``(rows, *shape)``; at padding it is 0.

        ``real (rows, position)`` says what is no padding; None where nothing is known of it. Raises
        :class:`LayerError` where the batch has other rows than the samples, or another shape than at first.
        """
        if values.ndim <= max(self.axis.sample, self.axis.position or 0):
            raise LayerError(f"layer {name} has {values.ndim} axes in a batch, fewer than at first", name)
        turned = self.axis.turned(values)
        if self.averaged:
            return turned.float().flatten(2).mean(2)
        position = self.axis.place(values.ndim)
        if position is None or (real is None and self.axis.pool in (None, "none")):
            return turned
        there = torch.ones(turned.shape[:2], dtype=torch.bool, device=turned.device) if real is None else real
        if there.shape != turned.shape[:2]:
            raise LayerError(
                f"layer {name} gives {tuple(turned.shape[:2])} rows and positions in a batch, not {tuple(there.shape)}",
                name,
            )
        return pooled(turned, there, self.axis.pool or "none", gradient=gradient)


def layout(name: str, turned: tuple[int, ...], axis: Axis, pool: Pool, mask: int | None) -> Layout:
    """Return how a layer is recorded, of whose output one sample has the shape ``turned``, positions first.

    ``axis`` is what was asked for, ``pool`` that of the recording, ``mask`` the number of positions of the probes'
    mask. Raises :class:`LayerError` where there are no positions to pool, or the mask does not say which are padding.
    """
    position = axis.place(len(turned) + 1)
    if position is None and axis.pool not in (None, "none"):
        raise LayerError(
            f"layer {name} gives a sample {turned}, which has no known positions to pool: "
            f'write layers={{"{name}": Axis(position=...)}} with their axis',
            name,
        )
    if mask is not None and len(turned) > 1 and position is None:
        raise LayerError(
            f"layer {name} gives a sample {turned}, where the mask of the probes does not say what is padding: "
            f'write layers={{"{name}": Axis(position=...)}} with the axis of the positions, or leave it out',
            name,
        )
    if mask is not None and position is not None and turned[0] != mask:
        raise LayerError(
            f"layer {name} has {turned[0]} positions, the mask of the probes {mask}: leave it out, or record a layer "
            "with the positions of the mask",
            name,
        )
    kept: Pool = "none" if position is None else axis.pool or pool
    own = replace(axis, pool=kept)
    return Layout(
        own, turned if position is None or kept == "none" else turned[1:], position is not None and kept == "none"
    )


def unsure_positions(layouts: Mapping[str, Layout]) -> str:
    """Return what to say of layers whose channels may have been taken for positions, or nothing."""
    names = [name for name, layer in layouts.items() if layer.unsure and (layer.positions or layer.axis.pool != "none")]
    if not names:
        return ""
    return (
        f"the second axis of {', '.join(names)} is taken for positions: where it is channels, as behind Conv1d, write "
        f'layers={{"{names[0]}": Axis(position=2)}}'
    )


def picked_outputs(layouts: Mapping[str, Layout]) -> str:
    """Return what to say of layers of whose several tensors the first is recorded, or nothing."""
    names = [name for name, layer in layouts.items() if layer.picked]
    if not names:
        return ""
    taken = ", ".join(f"{name} {layouts[name].axis.output}" for name in names)
    return (
        f"of layers that return several tensors the first of real numbers is recorded ({taken}): for another write "
        f'layers={{"{names[0]}": Axis(output=...)}}'
    )
