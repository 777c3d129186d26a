"""What a run records: its arrays, how they are cut into shards, and what they will cost."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from featdyn.errors import StoreError

Codec: TypeAlias = Literal["none", "zstd"]

INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
DTYPES = ("bool", *INTEGERS, "float16", "float32", "float64")

CHUNK_BYTES = 2**18  # an inner chunk: what a reader of a few samples has to read, and at most the padding of a shard
SHARD_BYTES = 2**25  # a shard: what one writer holds in memory, for each array, twice
GATHERED_BYTES = 2**16  # a chunk of several checkpoints, which each commit writes anew: what that costs, for each array
SHARD_SAMPLES = 1024  # at most this many samples in a shard, so that runs of small layers still split over ranks

_NAME = re.compile(r"(?!\.|__)[\w.\- ]+")  # Zarr v3 reserves a leading "__"
NAME_BYTES = 200  # in UTF-8; file systems allow 255


def check_name(name: str, what: str) -> str:
    """Return ``name`` when it can be a node of the store; raise :class:`StoreError` when it could lead elsewhere."""
    if not _NAME.fullmatch(name) or ".." in name or name == "zarr.json" or len(name.encode()) > NAME_BYTES:
        raise StoreError(
            f"{what} {name!r} cannot be stored: use letters, digits, '.', '_', '-' and spaces, no leading '.' or '__', "
            f"no '..', at most {NAME_BYTES} bytes"
        )
    return name


@dataclass(frozen=True)
class ArraySpec:
    """One array with a checkpoint axis."""

    path: str  # where it lies in the store, such as layers/s1b1/activation
    dims: tuple[str, ...]  # its axes after checkpoint; one is sample unless the array holds one value per checkpoint
    shape: tuple[int, ...]  # their lengths
    dtype: str  # a numpy dtype name
    attrs: dict[str, Any] = field(default_factory=dict)
    """What it means, in the words of a reader, such as long_name and units."""
    # Samples in an inner chunk: None in a new run, which chooses; of a stored array what its metadata say.
    chunk: int | None = field(default=None, compare=False, repr=False)
    # Checkpoints in a chunk: more than one where the array is small, and gathered (SPEC.md).
    span: int = field(default=1, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.path}: dtype must be one of {', '.join(DTYPES)}, got {self.dtype}")
        if len(self.dims) != len(self.shape) or len(set(self.dims)) != len(self.dims) or "checkpoint" in self.dims:
            raise ValueError(f"{self.path}: dims {self.dims} must be distinct, without checkpoint, one for each length")
        if any(length < 1 for length in self.shape):
            raise ValueError(f"{self.path}: each length must be at least 1, got shape {self.shape}")

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

    def __post_init__(self) -> None:
        if self.codec not in get_args(Codec):
            raise ValueError(f"codec must be none or zstd, got {self.codec}")
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.shard_samples < 1 or self.shard_samples & (self.shard_samples - 1):
            raise ValueError(f"shard_samples must be a power of two, got {self.shard_samples}")
        for array in self.arrays:
            if array.sample_axis is not None and array.shape[array.sample_axis] != self.samples:
                raise ValueError(f"{array.path}: shape {array.shape} does not have the {self.samples} samples")

    @classmethod
    def build(cls, arrays: Iterable[ArraySpec], samples: int, codec: Codec = "none") -> Schema:
        """Choose the block, a power of two, at most 32 MiB of the largest layer, and what is gathered."""
        found = tuple(arrays)
        widest = max((a.sample_bytes for a in found if a.sample_axis is not None), default=1)
        fits = max(1, SHARD_BYTES // max(1, widest))
        block = 1 << (min(fits, SHARD_SAMPLES).bit_length() - 1)
        return cls(found, samples, min(block, 1 << (max(1, samples) - 1).bit_length()), codec).gathered()

    def gathered(self) -> Schema:
        """Return the schema with as many checkpoints in a chunk of each array as 64 KiB hold, a power of two."""
        fits = {spec.path: max(1, GATHERED_BYTES // self.row_bytes(spec)) for spec in self.arrays}
        return replace(self, arrays=tuple(replace(s, span=1 << (fits[s.path].bit_length() - 1)) for s in self.arrays))

    def row_bytes(self, array: ArraySpec) -> int:
        """Return the bytes of one checkpoint and block, padded to the block's full length."""
        return array.sample_bytes * (self.shard_samples if array.sample_axis is not None else 1)

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
        if array.chunk is not None:
            return array.chunk
        fits = max(1, CHUNK_BYTES // max(1, array.sample_bytes))
        return min(1 << (fits.bit_length() - 1), self.shard_samples)

    def __getitem__(self, path: str) -> ArraySpec:
        for array in self.arrays:
            if array.path == path:
                return array
        raise KeyError(path)
