"""What a run records: its arrays, how they are cut into shards, and what they will cost."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from featdyn.errors import StoreError

Codec: TypeAlias = Literal["none", "zstd"]

CHUNK_BYTES = 2**18  # an inner chunk: what a reader of a few samples has to read, and at most the padding of a shard
SHARD_BYTES = 2**25  # a shard: what one writer holds in memory, for each array, twice
SHARD_SAMPLES = 1024  # at most this many samples in a shard, so that runs of small layers still split over ranks

_NAME = re.compile(r"^(?![._])[\w.\- ]+$")


def check_name(name: str, what: str) -> str:
    """Return ``name`` when it can be a node of the store; raise :class:`StoreError` when it could lead elsewhere."""
    if not _NAME.match(name) or ".." in name or name == "zarr.json":
        raise StoreError(f"{what} {name!r} cannot be stored: use letters, digits, '.', '_', '-' and no leading dot")
    return name


@dataclass(frozen=True)
class ArraySpec:
    """One array with a checkpoint axis.

    Parameters
    ----------
    path
        Where it lies in the store, such as ``layers/s1b1/activation``.
    dims
        Its axes after ``checkpoint``; one of them is ``sample`` unless the array holds one value per checkpoint.
    shape
        Their lengths.
    dtype
        A numpy dtype name.
    attrs
        What it means, in the words of a reader: ``long_name``, ``units``, ...
    """

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of one checkpoint, uncompressed."""
        return math.prod(self.shape) * self.itemsize

    @property
    def sample_axis(self) -> int | None:
        """The position of ``sample`` among ``dims``."""
        return self.dims.index("sample") if "sample" in self.dims else None

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample at one checkpoint."""
        axis = self.sample_axis
        return self.nbytes // max(1, self.shape[axis]) if axis is not None else self.nbytes


@dataclass(frozen=True)
class Schema:
    """All arrays of a run that grow with its checkpoints, and the block of samples that one shard holds.

    Every array is cut at the same samples, so that a block of samples belongs to one writer in every layer.
    """

    arrays: tuple[ArraySpec, ...]
    samples: int
    shard_samples: int
    codec: Codec = "none"

    @classmethod
    def build(cls, arrays: Iterable[ArraySpec], samples: int, codec: Codec = "none") -> Schema:
        """Choose the block: a power of two, at most 32 MiB of the largest layer."""
        found = tuple(arrays)
        widest = max((a.sample_bytes for a in found if a.sample_axis is not None), default=1)
        fits = max(1, SHARD_BYTES // max(1, widest))
        block = 1 << (min(fits, SHARD_SAMPLES).bit_length() - 1)
        return cls(found, samples, min(block, 1 << (max(1, samples) - 1).bit_length()), codec)

    @property
    def blocks(self) -> int:
        """Shards along the sample axis."""
        return -(-self.samples // self.shard_samples)

    def block_slice(self, block: int) -> slice:
        """Return the samples of one block."""
        start = block * self.shard_samples
        return slice(start, min(start + self.shard_samples, self.samples))

    def chunk_samples(self, array: ArraySpec) -> int:
        """Return how many samples an inner chunk holds: a power of two that divides the block."""
        fits = max(1, CHUNK_BYTES // max(1, array.sample_bytes))
        return min(1 << (fits.bit_length() - 1), self.shard_samples)

    def __getitem__(self, path: str) -> ArraySpec:
        for array in self.arrays:
            if array.path == path:
                return array
        raise KeyError(path)

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes that one checkpoint adds, uncompressed, without weights."""
        return sum(a.nbytes for a in self.arrays)
