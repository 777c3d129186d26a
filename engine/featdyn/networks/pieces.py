"""A recorded network as pieces in a row, of which one is in memory at a time, with the weights of one checkpoint.

Networks and runs that are larger than memory pass so: features go from piece to piece, and whoever has many of them
takes them all through a piece while it is there. Pieces are what lies between neighbouring places at which the network
comes apart, blocks or less in most; inside of one all is held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from featdyn.networks import Cut, segments
from featdyn.networks.skeleton import refuse_empty
from featdyn.store import Run
from featdyn.store.state_file import PIECE, StateFile
from featdyn_kernels.stitch.twin import twin

Piece: TypeAlias = Callable[[Tensor], Tensor]


class Pieces:
    """The pieces of a network between its ``places``, in order; one more than there are places.

    Raises :class:`featdyn.errors.NetworkError` where a buffer that no checkpoint holds has no values.
    """

    def __init__(self, run: Run, places: Sequence[Cut], device: torch.device) -> None:
        self.places, self._run, self._device = list(places), run, device
        self._parts = segments(places)
        self._names = [list(nn.Module.state_dict(part)) for part in self._parts]
        for part, names in zip(self._parts, self._names, strict=True):
            refuse_empty(part, set(names))
            part._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))  # type: ignore[no-untyped-call]
        self._own = [nn.Module.state_dict(part) for part in self._parts]
        self._files: dict[int, StateFile] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def after(self, cut: Cut) -> int:
        """Return the number of the piece that takes the features at a cut."""
        return 1 + next(i for i, place in enumerate(self.places) if place._place is cut._place)

    def stored_bytes(self, start: int = 0, stop: int | None = None) -> int:
        """Return the bytes of one checkpoint's weights of some pieces, as they are stored."""
        header = self._run.state_file(0, checked=False).tensors
        return sum(header[name].nbytes for names in self._names[start:stop] for name in names)

    @property
    def held_bytes(self) -> int:
        """Bytes of the largest piece, as float32 or as it is stored, and of a part of its file that is being read."""
        header = self._run.state_file(0, checked=False).tensors
        sizes = [sum(max(4 * header[n].size, header[n].nbytes) for n in names) for names in self._names]
        largest = max(header[name].nbytes for names in self._names for name in names)
        rounded = any(header[n].dtype in ("float16", "bfloat16", "float64") for names in self._names for n in names)
        return max(sizes) + (largest if rounded else min(PIECE, largest))

    @property
    def widest(self) -> int:
        """Number of values of one sample's features at the widest place."""
        return max(prod(place.shape) for place in self.places)

    @contextmanager
    def piece(self, number: int, checkpoint: int, dtype: torch.dtype | None = None) -> Iterator[Piece]:
        """Give one piece with the weights of a checkpoint, which are let go at the end.

        With ``dtype`` it computes in that, as suffixes do, and may be called from several threads; else as recorded.
        """
        part, state = self._parts[number], OrderedDict[str, Tensor]()
        for name in self._names[number]:
            found, own = self._file(checkpoint).read(name), self._own[number][name]
            if found.stride() != own.stride():  # in the order in which the network has it
                found = torch.empty_strided(own.shape, own.stride(), dtype=found.dtype).copy_(found)
            state[name] = found.to(self._device, dtype if found.is_floating_point() else None)
        held: list[Piece] = [partial(_asked, part, state) if dtype is None else twin(part, state, dtype, self._device)]
        try:
            yield lambda features: held[0](features)
        finally:  # whoever still has what was given has no weights
            held.clear()
            state.clear()

    def outputs(self, checkpoint: int, inputs: Tensor) -> Tensor:
        """Return what the network of a checkpoint gives."""
        found = inputs.clone()  # into which it may write
        for number in range(len(self)):
            with torch.inference_mode(), self.piece(number, checkpoint) as run:
                found = run(found)
        return found

    def _file(self, checkpoint: int) -> StateFile:
        if checkpoint not in self._files:
            self._files[checkpoint] = self._run.state_file(checkpoint)
        return self._files[checkpoint]


def _asked(part: nn.Module, state: dict[str, Tensor], features: Tensor) -> Tensor:
    found: Tensor = functional_call(part, state, (features,))
    return found
