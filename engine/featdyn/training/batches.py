"""Training batches, as a function of the step alone: a resumed run sees what it would have seen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featdyn.data import Dataset
from featdyn.errors import DataError
from featdyn.training.options import TrainingOptions


class Batches:
    """The batches of one run: the images that it is trained on with the ``(N,)`` labels in use, which may be noisy."""

    def __init__(
        self, dataset: Dataset, labels: NDArray[np.int64], options: TrainingOptions, device: torch.device
    ) -> None:
        if len(labels) < options.batch_size:
            raise DataError(f"batch_size {options.batch_size} is more than the {len(labels)} training images")
        if dataset.texts and (options.augment or options.suppress):
            raise DataError(f"{dataset.name}: training.augment and training.suppress are of images")
        self._dataset = dataset
        self._pixels = torch.from_numpy(dataset.images(options.split).pixels)
        self._labels = torch.from_numpy(labels)
        self._options = options
        self._device = device
        self.per_epoch = len(labels) // options.batch_size
        self.samples = len(labels)
        self._order: tuple[int, Tensor] | None = None

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the (inputs, labels) of one step, on the device."""
        return self.inputs(step), self.labels(step)

    def index(self, step: int) -> Tensor:
        """Return which samples a step sees."""
        epoch, position = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(mixed_seed(self._options.seed, 1, epoch))
            self._order = epoch, torch.randperm(self.samples, generator=generator)
        size = self._options.batch_size
        return self._order[1][position * size : (position + 1) * size]

    def labels(self, step: int) -> Tensor:
        """Return the labels of one step."""
        return self._labels[self.index(step)].to(self._device)

    def inputs(self, step: int) -> Tensor:
        """Return the inputs of one step, augmented where the recipe says so."""
        return self._seen(self.index(step), mixed_seed(self._options.seed, 2, step))

    def of(self, index: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return inputs, augmented where the recipe says so, and labels of any samples."""
        return self._seen(index, seed), self._labels[index].to(self._device)

    def plain(self, index: Tensor) -> Tensor:
        """Return the inputs of samples, never augmented."""
        return self._normalised(self._pixels[index])

    def to_device(self, values: Tensor) -> Tensor:
        """Return inputs or features where the network takes them, in its memory format."""
        values = values.to(self._device)
        if self._options.channels_last and values.ndim == 4:
            values = values.to(memory_format=torch.channels_last)
        return values

    def _seen(self, index: Tensor, seed: int) -> Tensor:
        if not self._options.augment:
            return self.plain(index)
        random = torch.Generator().manual_seed(seed)
        return self._normalised(augment(self._pixels[index], self._options.mirror, random))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return self.to_device(self._dataset.inputs(pixels))


def augment(pixels: Tensor, mirror: bool, generator: torch.Generator) -> Tensor:
    """Shift each image at random within a zero border of an eighth of its width, and mirror half of them.

    For 32 x 32 images this is the usual crop after padding by 4. ``(N, C, H, W)`` in and out.
    """
    n, channels, height, width = pixels.shape
    pad = max(1, width // 8)
    padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
    shift = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator)
    rows = torch.arange(height) + shift[0]
    columns = torch.arange(width) + shift[1]
    if mirror:
        flip = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(flip, columns.flip(1), columns)
    index = torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None]
    return padded[(*index, rows[:, None, :, None], columns[:, None, None, :])]


@contextlib.contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Let torch's own random numbers (dropout, initialisation) follow from a seed for a while, here and on GPUs."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(parts[0] if len(parts) == 1 else mixed_seed(*parts))
        yield


def mixed_seed(*parts: int) -> int:
    """Return one seed from several numbers, independent of each other for any two that differ."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
