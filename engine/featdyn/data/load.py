"""Data sets by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from featdyn.data.docstrings import NAME as DOCSTRINGS
from featdyn.data.docstrings import docstrings
from featdyn.data.imagefolder import load_imagefolder
from featdyn.data.images import Dataset, Images
from featdyn.data.modular import load_modular
from featdyn.data.order import key, stratified_order
from featdyn.data.resize import fit_pixels
from featdyn.data.shortcut import with_shortcut
from featdyn.data.vision import READERS, load_torchvision
from featdyn.errors import DataError
from featdyn.nearest import meant

FOLDER = "imagefolder:"


def names() -> tuple[str, ...]:
    """Return the names that `load` knows, beside "imagefolder:PATH"."""
    return ("digits", *READERS, "mod97", DOCSTRINGS)


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    download: bool = False,
    image_size: int | None = None,
    train_size: int | None = None,
    seed: int = 0,
    shortcut: float | None = None,
) -> Dataset:
    """Load a data set into memory.

    Parameters
    ----------
    name : str
        "digits" (1,797 images of 1 x 8 x 8 that scikit-learn ships), "docstrings" (sentences of the documentation that
        four libraries ship, see :mod:`featdyn.data.docstrings`), "mod97" (sums modulo 97, as symbols), "mnist",
        "cifar10", "cifar100", "svhn" or "stl10" (read through torchvision from `data_dir`), or "imagefolder:PATH" with
        PATH/{train,test}/<class>/<files>.
    download : bool
        Fetch missing files into `data_dir`.
    image_size : int, optional
        Resize all images to this height and width.
    train_size : int, optional
        Keep this many training images: always the same ones of a seed, balanced over classes, and among those of any
        larger size.
    seed : int
        Of that choice.
    shortcut : float, optional
        Write a label into every image, of this share of the training images their own: see
        :func:`featdyn.data.shortcut.with_shortcut`.

    Raises
    ------
    DataError
        If the data set is unknown, missing, unreadable, or smaller than asked for.
    """
    dataset = _whole(name, data_dir, download, image_size)
    if dataset.symbols and (image_size, shortcut) != (None, None):
        raise DataError(f"{dataset.name} are symbols, not images: leave image_size and shortcut out")
    if shortcut is not None:
        dataset = with_shortcut(dataset, shortcut)
    if train_size is None:
        return dataset
    train = dataset.train
    if train_size > len(train):
        raise DataError(f"train_size: {train_size} is more than the {len(train)} training images of {dataset.name}")
    seeds = (key("train_size"), seed) if seed else (key("train_size"),)  # as before there were others
    kept = stratified_order(train.labels, *seeds)[:train_size]
    return replace(dataset, train=train.part(np.sort(kept)))


def _whole(name: str, data_dir: str | Path | None, download: bool, image_size: int | None) -> Dataset:
    if name.startswith(FOLDER):
        return load_imagefolder(Path(name.removeprefix(FOLDER)).expanduser(), image_size)
    if name == DOCSTRINGS:
        if image_size is not None:
            raise DataError(f"{name}: image_size is of images")
        return docstrings()
    if name == "digits":
        dataset = _digits()
    elif name == "mod97":
        return load_modular()
    elif name in READERS:
        dataset = load_torchvision(name, None if data_dir is None else Path(data_dir).expanduser(), download)
    else:
        known = f"{', '.join(names())} or {FOLDER}PATH"
        raise DataError(f"unknown data set {name!r}: {meant(name, names())}there are {known}")
    if image_size is None:
        return dataset
    shape = (dataset.shape[0], image_size, image_size)
    train, test = (
        Images(fit_pixels(i.pixels, shape), i.labels, i.name, i.split) for i in (dataset.train, dataset.test)
    )
    return Dataset(dataset.name, train, test, dataset.classes)


def _digits() -> Dataset:
    """Return scikit-learn's digits, values 0..16 scaled to 0..255; 36 test images of each class, by a fixed seed."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = np.rint(raw.images[:, None] * (255 / 16)).astype(np.uint8)
    labels = raw.target.astype(np.int64)
    order = stratified_order(labels, key("digits"))
    test, train = np.sort(order[:360]), np.sort(order[360:])
    return Dataset(
        "digits",
        Images(pixels[train], labels[train], "digits", "train"),
        Images(pixels[test], labels[test], "digits", "test"),
        tuple(str(c) for c in raw.target_names),
    )
