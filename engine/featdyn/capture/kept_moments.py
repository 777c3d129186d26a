"""Moments of features with outputs and classes, which a recording may keep in place of the features.

They follow from one pass over the probes, block by block, so that probes may be as many as there is time for: what is
kept of a layer grows with its width alone. Positions of maps and tokens are averaged before, as in the analyses.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn.capture.layout import Layout
from featdyn.capture.probes import Probes
from featdyn.capture.tap import LayerError
from featdyn_kernels.moments import Moments, accumulate

KIND = "moments"
"""What ``record`` calls them."""
KEPT = ("mean", "scatter", "cross_scatter")
WIDEST = 4096
"""Features of a layer whose moments are kept; more take gigabytes. Our own choice."""


def of_layer(name: str) -> str:
    """Return what the tensors of a layer are called among those of a checkpoint."""
    return f"{KIND}.{name}"


def beside(logits: NDArray[np.floating], labels: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Return what is accumulated beside the features of each probe: its outputs, and its class one-hot.

    Classes are those of outputs ``(probe, C)``, two for one output; a label that is none of them has zeros.
    """
    outputs = logits.reshape(len(logits), -1).astype(np.float64)
    classes = np.arange(max(2, outputs.shape[1]))
    known = np.zeros((len(outputs), len(classes))) if labels is None else labels[:, None] == classes
    return np.hstack([outputs, known.astype(np.float64)])


class KeptMoments:
    """The moments of one checkpoint, of each layer and each set of probes (``split``, else all are one)."""

    def __init__(self, probes: Probes, layers: Mapping[str, tuple[int, ...]]) -> None:
        n, labels = len(probes), probes.coords.get("label")  # as analyses read them
        split = [str(name) for name in probes.coords.get("split", np.full(n, "probes", dtype=object)).tolist()]
        self._sets = {name: np.array(split, dtype=object) == name for name in dict.fromkeys(split)}
        self._labels = labels if labels is not None and labels.dtype.kind in "iu" else None
        self._found: dict[tuple[str, str], Moments] = {}
        self._widths = {name: shape[0] for name, shape in layers.items()}

    def nbytes(self, outputs: int) -> int:
        """Return the bytes of a checkpoint, of so many numbers of an output."""
        columns = outputs + max(2, outputs)
        return sum(8 * len(self._sets) * width * (1 + width + columns) for width in self._widths.values())

    def add(self, layers: Mapping[str, Tensor], logits: Tensor, samples: slice) -> None:
        """Take a block of samples into account: features ``(rows, width)`` of each layer, and their outputs."""
        labels = None if self._labels is None else self._labels[samples]
        others = beside(logits.numpy(), labels)
        for of_set, member in self._sets.items():
            mine = member[samples]
            for name, features in layers.items() if mine.any() else ():
                part = accumulate(features.numpy()[mine].astype(np.float64), others[mine])
                key = name, of_set
                self._found[key] = self._found[key] + part if key in self._found else part

    def take(self) -> dict[str, dict[str, Tensor]]:
        """Return for each layer its moments by ``<set>/<name>``, float64, and begin with the next checkpoint."""
        found, self._found = self._found, {}
        states: dict[str, dict[str, Tensor]] = {}
        for (layer, of_set), moments in found.items():
            for name in KEPT:
                values = np.ascontiguousarray(getattr(moments, name))
                states.setdefault(of_layer(layer), {})[f"{of_set}/{name}"] = torch.from_numpy(values)
        return states


def check(layouts: Mapping[str, Layout], outputs: tuple[int, ...]) -> None:
    """Raise :class:`LayerError` or ValueError where a recording is not one of which moments are kept."""
    if len(outputs) != 1:
        raise ValueError(f"record='moments' is of one vector of outputs for each sample, these are {outputs}")
    for name, layer in layouts.items():
        if len(layer.shape) != 1 or layer.shape[0] > WIDEST:
            what = f"at most {WIDEST:,} features" if len(layer.shape) == 1 else "vectors and maps"
            raise LayerError(f"layer {name} gives a sample {layer.shape}: moments are kept of {what}", name)
