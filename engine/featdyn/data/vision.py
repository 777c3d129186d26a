"""Data sets read through torchvision, an optional dependency."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from featdyn.data.images import Dataset, Images
from featdyn.errors import DataError
from featdyn.extras import install

_DIGITS = tuple("0123456789")
_CLASSES = {
    "MNIST": _DIGITS,
    "SVHN": _DIGITS,
    "STL10": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
}
READERS = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN", "stl10": "STL10"}


def load_torchvision(name: str, data_dir: Path | None, download: bool) -> Dataset:
    """Load one of `READERS` from `data_dir`, which is laid out as torchvision's `root`."""
    if data_dir is None:
        raise DataError(f"{name} is read from files: set data_dir to their folder (and download to fetch them)")
    datasets = _torchvision(name)
    reader = READERS[name]

    def read(split: str) -> tuple[Images, tuple[str, ...]]:
        which = {"split": split} if reader in ("SVHN", "STL10") else {"train": split == "train"}
        try:
            raw = getattr(datasets, reader)(root=data_dir, download=download, **which)
        except Exception as error:  # torchvision documents none, and raises many kinds for damaged files
            advice = "check the connection" if download else "set download to fetch it, or another data_dir"
            raise DataError(f"{name} cannot be read from {data_dir} ({_one_line(error)}): {advice}") from error
        return _images(raw, name, split), _CLASSES.get(reader) or tuple(raw.classes)

    train, classes = read("train")
    return Dataset(name, train, read("test")[0], classes)


def _images(raw: Any, name: str, split: str) -> Images:
    pixels = np.asarray(raw.data)
    if pixels.ndim == 3:  # MNIST: no channel axis
        pixels = pixels[:, None]
    elif pixels.shape[3] == 3:  # CIFAR: channels last
        pixels = pixels.transpose(0, 3, 1, 2)
    labels = raw.targets if hasattr(raw, "targets") else raw.labels
    return Images(np.ascontiguousarray(pixels), np.asarray(labels, np.int64), name, split)


def _torchvision(name: str) -> ModuleType:
    try:
        from torchvision import datasets
    except Exception as error:  # beside another torch than its own, torchvision fails with RuntimeError or OSError
        raise DataError(
            f"{name} is read through torchvision, which does not import ({_one_line(error)}): "
            f"{install('torchvision')}, or use digits or imagefolder:PATH"
        ) from error
    return datasets  # type: ignore[no-any-return]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
