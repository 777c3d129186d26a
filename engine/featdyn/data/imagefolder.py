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

    decoded = {split: _decode([f for found in files[split].values() for f in found], image_size) for split in files}
    channels = 1 if all(block.ndim == 3 for blocks in decoded.values() for block in blocks) else 3
    name = f"imagefolder:{path.resolve().name}"

    def images(split: str) -> Images:
        labels = np.repeat(np.arange(len(classes)), [len(found) for found in files[split].values()])
        return Images(_joined(decoded.pop(split), len(labels), channels), labels, name, split)

    return Dataset(name, images("train"), images("test"), classes)


def _files(folder: Path) -> dict[str, list[str]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: imagefolder:PATH needs PATH/train/<class>/ and PATH/test/<class>/")
    classes = sorted(d.name for d in os.scandir(folder) if d.is_dir() and not d.name.startswith("."))
    if not classes:
        raise DataError(f"{folder} has no class folders: imagefolder:PATH needs PATH/{folder.name}/<class>/<files>")
    files = {name: sorted(f.path for f in os.scandir(folder / name) if _is_image(f.name)) for name in classes}
    empty = [name for name, found in files.items() if not found]
    if empty:
        raise DataError(f"{folder} has no images of {_some(empty)} (it looks for {' '.join(SUFFIXES)})")
    return files


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _decode(files: list[str], image_size: int | None) -> list[Pixels]:
    """Return blocks of images in order, (n, H, W) where all of a block are grey, else (n, H, W, 3)."""
    height, width = _read(files[0], image_size).shape[:2]

    def block(start: int) -> Pixels:
        images = []
        for file in files[start : start + _BLOCK]:
            image = _read(file, image_size)
            if image.shape[:2] != (height, width):
                raise DataError(
                    f"images differ in size: {files[0]} is {height}x{width}, {file} is "
                    f"{image.shape[0]}x{image.shape[1]}: set image_size to resize them"
                )
            images.append(image)
        if any(image.ndim == 3 for image in images):
            images = [np.broadcast_to(i[:, :, None], (height, width, 3)) if i.ndim == 2 else i for i in images]
        return np.stack(images)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(block, range(0, len(files), _BLOCK)))


def _read(file: str, image_size: int | None) -> Pixels:
    """Return one image, (H, W) if it is grey, else (H, W, 3)."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file} has more than 8 bits per channel: convert it to 8 bits")
            mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
            flat = image.convert(mode)
            return np.asarray(flat if image_size is None else fit(flat, image_size, image_size))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's readers raise
        raise DataError(f"{file} cannot be read as an image: {error}") from error


def _joined(blocks: list[Pixels], count: int, channels: int) -> Pixels:
    out = np.empty((count, channels, *blocks[0].shape[1:3]), np.uint8)
    start = 0
    for block in blocks:
        out[start : start + len(block)] = block[:, None] if block.ndim == 3 else block.transpose(0, 3, 1, 2)
        start += len(block)
    return out
