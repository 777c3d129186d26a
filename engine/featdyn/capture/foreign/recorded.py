"""What every format comes down to: one checkpoint of a recording, whose layers are read some samples at a time."""

from __future__ import annotations

import json
import pickle
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn.errors import DataError, FeatdynError

Rows: TypeAlias = Callable[[int, int], NDArray[Any]]
"""``(start, stop)`` to these samples, in their order."""
KINDS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Layer:
    """A layer at one checkpoint."""

    shape: tuple[int, ...]  # of one sample
    dtype: str  # in which all values of the source are kept to the bit
    read: Rows = field(compare=False, repr=False)
    axes: tuple[str, ...] = ()  # their names, where the source says them


@dataclass(frozen=True)
class Recorded:
    """One checkpoint of a foreign recording; to make one reads no more than headers."""

    layers: Mapping[str, Layer]  # in the order of the network, as far as the source tells it
    samples: int
    coords: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What is known of the samples, ``(sample,)`` each; ``sample`` are unique names."""
    tensors: Callable[[], Mapping[str, Mapping[str, Tensor]]] = field(default=dict, repr=False)
    """Kind (``model``) to tensors by name."""


def stored_dtype(path: Path, name: str, dtype: object) -> str:
    """Return in which type a source's values are kept: their own, of bfloat16 float32, which holds them all."""
    found = str(dtype).removeprefix("torch.").removeprefix("<").removeprefix(">")
    kept = {"bfloat16": "float32", "f2": "float16", "f4": "float32", "f8": "float64"}.get(found, found)
    if kept not in KINDS:
        raise DataError(f"{path}: {name} holds {found}, not real numbers of {', '.join(KINDS)} or bfloat16")
    return kept


def as_array(values: Tensor) -> NDArray[Any]:
    """Return a tensor's values; numpy has no bfloat16."""
    kept = values.detach().to(torch.float32) if values.dtype == torch.bfloat16 else values.detach()
    return kept.contiguous().numpy()


def load(path: Path) -> Any:
    """Return what ``torch.save`` wrote, tensors only and mapped, so that no more is read than is used."""
    with readable(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    with readable(path):
        return json.loads(path.read_text())


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a library raises of a file that is cut, or none of its own, into one line."""
    try:
        yield
    except FeatdynError:
        raise
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: holds more than tensors, which is not loaded") from error
    except Exception as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).strip()
        raise DataError(f"{path}: cannot be read: {(reason.splitlines() or [type(error).__name__])[0]}") from error


def one_layer(path: Path, layers: Sequence[Layer], lengths: Sequence[int]) -> Layer:
    """Return the layer whose samples lie in several files, so many in each, one file behind the other."""
    for layer in layers[1:]:
        if layer != layers[0]:
            raise DataError(
                f"{path}: its files do not go together: {layers[0].dtype} of shape {layers[0].shape} a sample in the "
                f"first, {layer.dtype} of {layer.shape} in another"
            )
    ends = list(accumulate(lengths))

    def read(start: int, stop: int) -> NDArray[Any]:
        found = []
        for i in range(bisect_right(ends, start), len(ends)):
            first = ends[i] - lengths[i]
            if first >= stop:
                break
            if lengths[i]:
                found.append(layers[i].read(max(start, first) - first, min(stop, ends[i]) - first))
        return found[0] if len(found) == 1 else np.concatenate(found)

    return Layer(layers[0].shape, layers[0].dtype, read, layers[0].axes)


def same_samples(path: Path, counts: Mapping[str, int]) -> int:
    """Return how many samples there are, the same in each layer."""
    (first, count), *others = counts.items()
    for name, other in others:
        if other != count:
            raise DataError(f"{path}: {first} has {count} samples, {name} {other}")
    return count
