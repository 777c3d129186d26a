"""What a data set is to featdyn: two arrays of 8-bit images, or of texts as numbers of words, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featdyn.errors import DataError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Images:
    """One split of a data set; texts are those with two axes."""

    pixels: npt.NDArray[Any]  # uint8 (N, C, H, W); of texts int64 (N, position), the number of each word
    labels: npt.NDArray[np.int64]  # (N,)
    name: str  # the data set's, such as "cifar10"
    split: str  # "train" or "test"
    numbers: npt.NDArray[np.int64] | None = None
    """Each image's position in the whole split, where only some of its images are here."""

    def __post_init__(self) -> None:
        fits = self.pixels.dtype == (np.int64 if self.pixels.ndim == 2 else np.uint8) and self.pixels.ndim in (2, 4)
        if not fits or self.pixels.size == 0:
            raise ValueError(f"pixels: needs non-empty uint8 (N, C, H, W), got {self.pixels.dtype} {self.pixels.shape}")
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.pixels),):
            raise ValueError(f"labels: needs int64 ({len(self.pixels)},), got {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.pixels)

    def part(self, indices: npt.NDArray[np.int64]) -> Images:
        """Return these images alone; they keep their numbers."""
        numbers = self.numbered(indices)
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices], numbers=numbers)

    def numbered(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the positions of these images in the whole split, which name them in every run."""
        return indices if self.numbers is None else self.numbers[indices]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images of the same shape and classes."""

    name: str
    train: Images
    test: Images
    classes: tuple[str, ...]  # the name of each label
    symbols: bool = False
    """Whether rows are one-hot symbols: they reach the network as 0 and 1, and nothing resizes or corrupts them."""

    def __post_init__(self) -> None:
        if self.train.pixels.shape[1:] != self.test.pixels.shape[1:]:
            raise DataError(
                f"{self.name}: train images are {self.train.pixels.shape[1:]} and test images "
                f"{self.test.pixels.shape[1:]} (channels, height, width): make them equal or set image_size"
            )
        for images in (self.train, self.test):
            if images.labels.min() < 0 or images.labels.max() >= len(self.classes):
                raise DataError(f"{self.name}: {images.split} has labels outside 0..{len(self.classes) - 1}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of every image; of texts the number of words."""
        return tuple(self.train.pixels.shape[1:])

    @property
    def texts(self) -> bool:
        """Whether it holds texts."""
        return len(self.shape) == 1

    def inputs(self, values: npt.NDArray[Any] | torch.Tensor) -> torch.Tensor:
        """Return what a network takes: images normalised by the training images, texts as they are."""
        import torch

        return torch.as_tensor(values) if self.texts else normalise(values, self.mean, self.std)

    def images(self, split: str) -> Images:
        """Return the "train" or the "test" images."""
        return self.test if split == "test" else self.train

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the training pixels / 255, per channel; 0 of symbols."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Population standard deviation of the training pixels / 255, per channel; 1 if constant, and of symbols."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.symbols:
            return (0.0,) * self.shape[0], (1.0,) * self.shape[0]
        # Counts of the 256 values are exact integers, so the result does not depend on any order of summation.
        counts = np.zeros((self.shape[0], 256), np.int64)
        for start in range(0, len(self.train), 1024):
            block = self.train.pixels[start : start + 1024]
            for channel in range(self.shape[0]):
                counts[channel] += np.bincount(block[:, channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        weights = counts / counts.sum(axis=1, keepdims=True)
        mean = weights @ values
        std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
        std[(counts > 0).sum(axis=1) == 1] = 1
        return tuple(mean.tolist()), tuple(std.tolist())


def normalise(
    pixels: npt.NDArray[np.uint8] | torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Turn 8-bit pixels (N, C, H, W) into a network's input, `(pixels / 255 - mean) / std`, float32 on their device.

    Training and probes both come through here. Each step is rounded once per element, so a sample's bits do not depend
    on the batch around it. `mean` and `std` are C numbers each. Raises ValueError for another dtype or shape.
    """
    import torch

    if isinstance(pixels, np.ndarray):
        # Torch has no read-only or reversed arrays; others are not copied.
        pixels = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        raise ValueError(f"pixels: needs uint8 (N, C, H, W), got {pixels.dtype} {tuple(pixels.shape)}")
    if len(mean) != pixels.shape[1] or len(std) != pixels.shape[1]:
        raise ValueError(f"mean, std: need {pixels.shape[1]} numbers each, got {len(mean)} and {len(std)}")

    def per_channel(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=pixels.device)[:, None, None]

    return pixels.float().div_(255).sub_(per_channel(mean)).div_(per_channel(std))
