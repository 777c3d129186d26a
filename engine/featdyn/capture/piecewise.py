"""A network larger than memory as a recorder asks it: batches pass piece by piece, and layers hand out what they give.

Before the recorder goes through its batches they pass together, each piece read once for all of them; what layers and
the output give lies on disk until a batch is asked for. Any other batch passes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from featdyn.errors import NetworkError
from featdyn.networks import asked_layers, cuts, default_cuts
from featdyn.networks.kept_features import KeptFeatures
from featdyn.networks.packed import with_forward
from featdyn.networks.pieces import Pieces, Stored, Weights

OUTPUT = -1
"""Stands for the network's output among its places."""


class Opened(Weights, Protocol):
    """The tensors of one checkpoint, and what is said of them."""

    @property
    def tensors(self) -> Mapping[str, Stored]:
        """By name."""


class Piecewise:
    """A network without weights, ``model``, with those of one checkpoint at a time.

    Parameters
    ----------
    inputs
        A few samples, ``(N, ...)``.
    weights
        Those that it has at first.
    device
        Where it runs.

    Raises
    ------
    NetworkError
        It does not come apart without its weights, or a buffer that no checkpoint holds has no values.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, weights: Opened, device: torch.device) -> None:
        self.places = cuts(model, inputs, every=True)  # each is a layer that may be asked for
        self._inputs = inputs
        self._model, self._weights, self._turn = model, weights, 0
        self.pieces = Pieces(self.places, device, weights.tensors, lambda turn: self._weights)
        self._ready: list[Callable[[], Tensor]] = []
        self._kept = KeptFeatures(disk=True)
        self._next = 0
        self.network = with_forward(model, lambda _, given: self._passed(given))
        """What gives the model's output, and calls the hooks of its layers."""

    def layers(self, patterns: Sequence[str]) -> list[str]:
        """Return the names of layers that match, all of which separate the network and are modules.

        Raises :class:`NetworkError` where one does not.
        """
        known, found = self._modules(), list[str]()
        for pattern in patterns:
            if pattern in ("default", "all"):
                worthy = [cut for cut in cuts(self._model, self._inputs) if cut.module]
                names = default_cuts(worthy) if pattern == "default" else [cut.name for cut in worthy]
            else:
                names = asked_layers(self._model, pattern)
            if missing := [name for name in names if name not in known]:
                raise NetworkError(
                    f"layer {missing[0]}: of a network larger than memory layers are recorded that separate it in two "
                    f"and are modules: there are {', '.join(known)}"
                )
            if not names:
                raise NetworkError(f"no layer {pattern!r}; there are {', '.join(known)}")
            found += names
        return list(dict.fromkeys(found))

    @property
    def weights(self) -> Opened:
        """Those that it has now."""
        return self._weights

    @contextmanager
    def holding(self, weights: Opened) -> Iterator[None]:
        """Let the network have other weights for a while."""
        before, self._weights = self._weights, weights
        self._turn += 1
        try:
            yield
        finally:
            self._weights = before
            self._turn += 1

    @contextmanager
    def ready(self, layers: Sequence[str], batches: Sequence[Callable[[], Tensor]], chunk: int) -> Iterator[None]:
        """Let batches pass before they are asked for, in this order; ``layers`` will be looked at.

        So many pass together, as :meth:`featdyn.networks.pieces.Pieces.features` takes them.
        """
        known, last = self._modules(), len(self.pieces) - 1
        ends = {known[name]: known[name] for name in layers} | {OUTPUT: last}
        try:
            self.pieces.features(
                self._turn, range(len(batches)), lambda i: batches[i](), ends,
                lambda place, i, z: self._kept.put((place, i), z), chunk,
            )  # fmt: skip
            self._ready, self._next = list(batches), 0
            yield
        finally:
            self._kept.clear()
            self._ready = []

    def _modules(self) -> dict[str, int]:
        """Return the place of each module whose output separates the network."""
        found = dict[str, int]()
        for i, cut in enumerate(self.places):
            found |= dict.fromkeys([name for name in (*cut.also, cut.module) if name], i)
        return found

    def _passed(self, inputs: Tensor) -> Tensor:
        """Return the output, as it was made before where this is the next batch, and call hooks on the way."""
        layers = ((place, self._model.get_submodule(name)) for name, place in self._modules().items())
        hooked = [(place, module) for place, module in layers if module._forward_hooks]
        if self._next < len(self._ready) and torch.equal(self._ready[self._next](), inputs):
            i, kept = self._next, self._kept
            self._next += 1
        else:
            i, kept = 0, KeptFeatures(disk=False)
            ends = {place: place for place, _ in hooked} | {OUTPUT: len(self.pieces) - 1}
            self.pieces.features(
                self._turn, range(1), lambda _: inputs, ends, lambda place, i, z: kept.put((place, i), z), 1
            )
        for place, module in hooked:
            _hand_out(module, kept.get((place, i)).clone())
        return kept.get((OUTPUT, i)).clone()


def _hand_out(module: nn.Module, features: Tensor) -> None:
    """Call a module's hooks as if it had just returned some features."""
    own = vars(module).get("forward")
    object.__setattr__(module, "forward", lambda: features)
    try:
        module()
    finally:
        if own is None:
            object.__delattr__(module, "forward")
        else:
            object.__setattr__(module, "forward", own)
