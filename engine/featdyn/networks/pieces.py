"""A network as pieces in a row, of which one is in memory at a time, with the weights of one checkpoint.

Networks and runs that are larger than memory pass so: features go from piece to piece, and whoever has many of them
takes them all through a piece while it is there. Pieces are what lies between neighbouring places at which the network
comes apart, blocks or less in most; inside of one all is held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from featdyn.functional import functional_call
from featdyn.networks.cut import Cut, segments
from featdyn.networks.kept_features import KeptFeatures
from featdyn.networks.skeleton import refuse_empty
from featdyn_kernels.stitch.twin import twin

Piece: TypeAlias = Callable[[Tensor], Tensor]
Value = TypeVar("Value")
ROUNDED = ("float16", "bfloat16", "float64")
"""Types that are read into another one."""


class Stored(Protocol):
    """A tensor of a file, as its header says."""

    @property
    def dtype(self) -> str:
        """As torch calls it."""

    @property
    def size(self) -> int:
        """Number of values."""

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""

    @property
    def beside(self) -> int:
        """Bytes that are held beside it while it is read."""


class Weights(Protocol):
    """The tensors of one checkpoint, read one by one."""

    def read(self, name: str) -> Tensor:
        """Return one, in memory of its own."""


class Pieces:
    """The pieces of a network between its ``places``, in order; one more than there are places.

    ``stored`` are the tensors of a checkpoint by name, ``weights`` opens those of any, which holds ``opening`` bytes.

    Raises :class:`featdyn.errors.NetworkError` where a buffer that no checkpoint holds has no values.
    """

    def __init__(
        self,
        places: Sequence[Cut],
        device: torch.device,
        stored: Mapping[str, Stored],
        weights: Callable[[int], Weights],
        opening: int = 0,
    ) -> None:
        self.places, self._device, self._stored, self._weights = list(places), device, stored, weights
        self._opening = opening
        self._parts = segments(places)
        self._names = [list(nn.Module.state_dict(part)) for part in self._parts]
        for part, names in zip(self._parts, self._names, strict=True):
            refuse_empty(part, set(names))
            part._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))  # type: ignore[no-untyped-call]
        self._own = [nn.Module.state_dict(part) for part in self._parts]
        self._open: dict[int, Weights] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def after(self, cut: Cut) -> int:
        """Return the number of the piece that takes the features at a cut."""
        return 1 + next(i for i, place in enumerate(self.places) if place._place is cut._place)

    def stored_bytes(self, start: int = 0, stop: int | None = None) -> int:
        """Return the bytes of one checkpoint's weights of some pieces, as they are stored."""
        return sum(self._stored[name].nbytes for names in self._names[start:stop] for name in names)

    @property
    def held_bytes(self) -> int:
        """Bytes of the largest piece, as float32 or as it is stored, and what opening and reading its file holds."""
        each = [[self._stored[name] for name in names] for names in self._names]
        sizes = [sum(max(4 * held.size, held.nbytes) for held in piece) for piece in each]
        every = [held for piece in each for held in piece]
        rounded = any(held.dtype in ROUNDED for held in every)
        return self._opening + max(sizes) + max((held.nbytes if rounded else held.beside for held in every), default=0)

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
            found, own = self._of(checkpoint).read(name), self._own[number][name]
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

    def features(
        self,
        checkpoint: int,
        at: Sequence[int],
        inputs: Callable[[int], Tensor],
        ends: Mapping[int, int],
        keep: Callable[[int, int, Tensor], None],
        chunk: int,
        start: int = 0,
    ) -> None:
        """Make the features at some cuts of the network of a checkpoint, for many batches.

        A piece is read once for every so many batches and takes them all, one after the other.

        Parameters
        ----------
        at, inputs
            Batches, and what gives what one enters with: it is asked when they pass the first piece.
        ends
            Cut, by whatever number, to the piece in front of it: ``len(pieces) - 1`` for the network's output.
        keep
            Given a cut, a batch and the features ``(N, ...)``, which nobody else has.
        chunk
            So many batches pass together; 0: all, and between pieces their features lie on disk.
        start
            The first piece: 0, into which inputs go, or one behind a cut.
        """
        last = max(ends.values(), default=-1)
        for some in chunks(at, chunk):
            going = KeptFeatures(disk=not chunk)
            for number in range(start, last + 1):
                with torch.inference_mode(), self.piece(number, checkpoint) as piece:
                    for i in some:
                        z = piece(going.take(i) if number > start else inputs(i).clone())  # into which it may write
                        for cut, end in ends.items():
                            if end == number:
                                keep(cut, i, z if number == last else z.clone())
                        if number < last:
                            going.put(i, z)

    def _of(self, checkpoint: int) -> Weights:
        if checkpoint not in self._open:
            self._open[checkpoint] = self._weights(checkpoint)
        return self._open[checkpoint]


def chunk_sizes(batches: int) -> list[int]:
    """Return how many batches may pass together: 0 (all, on disk between pieces), powers of two, or all."""
    return sorted({0, *powers(batches), batches})


def powers(limit: int) -> Iterator[int]:
    """Yield the powers of two below a limit."""
    value = 1
    while value < limit:
        yield value
        value *= 2


def moved_bytes(weights: int, pieces: int, batches: int, unit: int, chunk: int) -> int:
    """Return the bytes that are read of ``weights``, and written and read between pieces, as batches pass them once.

    ``unit`` are the bytes of a batch where features are widest, ``chunk`` is as :meth:`Pieces.features` takes it.
    """
    if chunk:
        return weights * -(-batches // chunk)
    return weights + 2 * (pieces - 1) * batches * unit


def chunks(values: Sequence[Value], size: int) -> Iterator[Sequence[Value]]:
    """Yield runs of so many, or all at once for 0."""
    size = size or len(values)
    return (values[start : start + size] for start in range(0, len(values), size or 1))


def _asked(part: nn.Module, state: dict[str, Tensor], features: Tensor) -> Tensor:
    found: Tensor = functional_call(part, state, (features,))
    return found
