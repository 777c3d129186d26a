"""Folders of images, PATH/{train,test}/<class>/<files>."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from featdyn.data.images import Dataset, Images
from featdyn.data.resize import fit
from featdyn.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_BLOCK = 256  # files per task: a task per file would cost more than decoding a small image

Pixels = npt.NDArray[np.uint8]


def load_imagefolder(path: Path, image_size: int | None) -> Dataset:
    """Load a folder of images; one channel if every image is grey, else three.

    Indices are stable: classes, and files within a class, are sorted by name. The data set is named after the folder
    alone ("imagefolder:cifar10" for .../cifar10), so that sample ids are the same on every machine.
    """
    files = {split: _files(path / split) for split in ("train", "test")}
    classes = tuple(files["train"])
    if classes != tuple(files["test"]):
        only = sorted(set(files["train"]) ^ set(files["test"]))
        raise DataError(
            f"{path}: train and test must have the same class folders, but only one of them has {_some(only)}"
        )

    decoded = {split: _decode([f for fs in files[split].values() for f in fs], image_size) for split in files}
    grey = all(image.ndim == 2 for images in decoded.values() for image in images)
    name = f"imagefolder:{path.resolve().name}"

    def images(split: str) -> Images:
        labels = np.repeat(np.arange(len(classes)), [len(fs) for fs in files[split].values()])
        return Images(_stack(decoded.pop(split), grey), labels, name, split)

    return Dataset(name, images("train"), images("test"), classes)


def _files(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: imagefolder:PATH needs PATH/train/<class>/ and PATH/test/<class>/")
    classes = sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))
    if not classes:
        raise DataError(
            f"{folder} has no class folders: imagefolder:PATH needs PATH/{folder.name}/<class>/<image files>"
        )
    files = {c.name: sorted(f for f in c.iterdir() if _is_image(f)) for c in classes}
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise DataError(f"{folder} has no images of {_some(empty)} (it looks for {' '.join(SUFFIXES)})")
    return files


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _decode(files: list[Path], image_size: int | None) -> list[Pixels]:
    first = _read(files[0], image_size).shape[:2]

    def block(start: int) -> list[Pixels]:
        images = []
        for file in files[start : start + _BLOCK]:
            image = _read(file, image_size)
            if image.shape[:2] != first:
                raise DataError(
                    f"images differ in size: {files[0]} is {first[0]}x{first[1]}, {file} is "
                    f"{image.shape[0]}x{image.shape[1]}: set image_size to resize them"
                )
            images.append(image)
        return images

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return [image for images in pool.map(block, range(0, len(files), _BLOCK)) for image in images]


def _read(file: Path, image_size: int | None) -> Pixels:
    """Return one image, (H, W) if it is grey, else (H, W, 3)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file} has more than 8 bits per channel: convert it to 8 bits")
            flat = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} cannot be read as an image: {error}") from error
    return np.asarray(flat if image_size is None else fit(flat, image_size, image_size))


def _stack(images: list[Pixels], grey: bool) -> Pixels:
    out = np.empty((len(images), 1 if grey else 3, *images[0].shape[:2]), np.uint8)
    for i, image in enumerate(images):
        out[i] = image if image.ndim == 2 else image.transpose(2, 0, 1)
    return out
