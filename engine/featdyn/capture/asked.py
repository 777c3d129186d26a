"""What a caller asks a recording for, in the form in which it is kept: patterns with axes, targets without padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from torch import Tensor

from featdyn.capture.axis import Axis, Pool
from featdyn.capture.probes import Probes
from featdyn.classes import IGNORED


def asked(layers: Any) -> tuple[tuple[str, ...] | None, dict[str, Axis]]:
    """Return the patterns of ``layers=``, None where there are none, and the axes that it gives them.

    Values of a mapping are an :class:`Axis`, a pool by its name, or None; as text an axis stands behind its pattern,
    ``"blocks.0.attn:sample=1:pool=mean"``. Raises TypeError or ValueError for anything else.
    """
    if isinstance(layers, str):
        layers = [layers]
    if isinstance(layers, list | tuple) and any(isinstance(each, str) and ":" in each for each in layers):
        layers = {pattern: Axis.said(words) for pattern, *words in (each.split(":") for each in layers)}
    if not isinstance(layers, Mapping):
        return (tuple(layers) if isinstance(layers, list | tuple) else None), {}
    axes = {}
    for pattern, value in layers.items():
        if isinstance(value, str) and value in get_args(Pool):
            axes[pattern] = Axis(pool=value)  # type: ignore[arg-type]
        elif isinstance(value, Axis) or value is None:
            axes[pattern] = value or Axis()
        else:
            pools = ", ".join(get_args(Pool))
            raise TypeError(f"layers: {pattern!r} takes an Axis(...), one of {pools}, or None, got {value!r}")
    return tuple(axes), axes


def token_targets(probes: Probes, outputs: tuple[int, ...]) -> Probes:
    """Return the probes with targets that do not count at padding, where outputs are ``(sample, position, class)``."""
    mask, labels = probes.mask, probes.labels
    if mask is None or not isinstance(labels, Tensor) or labels.shape != mask.shape:
        return probes
    return replace(probes, labels=labels.where(mask, IGNORED))
