"""The tensors of one file of weights, read one by one: so that a network need not fit into memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from featdyn.errors import StoreError
from featdyn.store.place import Place
from featdyn.store.record import FileRecord

if TYPE_CHECKING:
    import torch

PIECE = 2**24
"""Bytes that are read at once: beside a tensor no second one of its size is held."""
CHECKING = 2**23
"""Bytes that are held while a whole file is checked: two parts of it, which the allocator may keep."""
_LENGTH = 8
"""Bytes that say how long the header is."""
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
"""What safetensors calls the types of torch."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file."""

    dtype: str  # as torch calls it
    shape: tuple[int, ...]
    start: int  # of its bytes in the file
    nbytes: int

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def beside(self) -> int:
        """Bytes that are held beside it while it is read."""
        return min(PIECE, self.nbytes)


class StateFile:
    """What a safetensors file holds, as its header says; :meth:`read` reads one tensor.

    The whole file is checked once, piece by piece, with nothing kept: a flipped bit would be taken for a weight.

    Raises :class:`StoreError` where it is not as it was written.
    """

    def __init__(self, place: Place, record: FileRecord, *, checked: bool) -> None:
        self._place, self._path = place, record.path
        if wrong := place.check(record, content=checked):
            raise StoreError(f"{place}: {wrong}")
        first = _LENGTH + int.from_bytes(bytes(place.part(record.path, 0, _LENGTH)), "little")
        header = json.loads(bytes(place.part(record.path, _LENGTH, first - _LENGTH)))
        self.tensors: dict[str, Stored] = {}
        """By name."""
        for name, said in header.items():
            if name == "__metadata__":
                continue
            if said["dtype"] not in _TYPES:
                raise StoreError(f"{place}: {record.path}: {name} is of the type {said['dtype']}, which is not read")
            start, stop = said["data_offsets"]
            self.tensors[name] = Stored(_TYPES[said["dtype"]], tuple(said["shape"]), first + start, stop - start)

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor, in memory of its own."""
        held = self.tensors[name]
        return self.part(name, 0, held.size).view(held.shape)

    def part(self, name: str, first: int, stop: int) -> torch.Tensor:
        """Return the values ``first:stop`` of one tensor in a row, in memory of its own."""
        import torch

        held = self.tensors[name]
        found = torch.empty(max(0, min(stop, held.size) - first), dtype=getattr(torch, held.dtype))
        room, begin = found.view(torch.uint8).numpy().data, held.start + first * found.itemsize
        for start in range(0, found.nbytes, PIECE):
            length = min(PIECE, found.nbytes - start)
            content = self._place.part(self._path, begin + start, length)
            if len(content) != length:
                raise StoreError(f"{self._place}: {self._path}: ends before {name}")
            room[start : start + length] = content
        return found
