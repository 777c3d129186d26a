"""Probe sets: the fixed samples that are recorded at every checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featdyn.data.cifar10c import Cifar10C
from featdyn.data.corruptions import corrupt
from featdyn.data.images import Dataset, Images
from featdyn.data.load import FOLDER, load
from featdyn.data.options import ProbeOptions
from featdyn.data.order import key, stratified_order
from featdyn.data.resize import fit_pixels
from featdyn.data.shift import shared_classes
from featdyn.errors import DataError
from featdyn.validation import validate

Pixels = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

COORDS = ("sample", "dataset", "dataset_index", "origin", "split", "label", "true_label", "corruption", "severity")


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """Fixed samples with what is known of each.

    Attributes
    ----------
    pixels : uint8 array, shape (N, C, H, W); of texts int64, shape (N, position)
    coords : dict of arrays, shape (N,)
        sample : str, unique and the same in every run, such as "cifar10/test/00017" or
        "cifar10/test/00017/gaussian_noise/3";
        dataset : str ("cifar10c" where the image is from the published CIFAR-10-C arrays);
        dataset_index : int64, in the split of that data set;
        origin : str, the image that it was made from, such as "cifar10/test/00017": its corrupted versions share it, so
        it is the unit of resampling (probes of one origin are no independent samples);
        split : str, "train", "test", "corrupted" (made from test images) or "shifted" (another data set's test images);
        label : int64, the label in use, which is the noisy one for train probes of a run with label noise;
        true_label : int64; corruption : str, "" for none; severity : int8, 0 for none.
    """

    pixels: Pixels
    coords: dict[str, npt.NDArray[Any]]

    def __post_init__(self) -> None:
        if set(self.coords) != set(COORDS):
            raise ValueError(f"coords: needs {', '.join(COORDS)}, got {', '.join(self.coords)}")
        for name, values in self.coords.items():
            if values.shape != (len(self),):
                raise ValueError(f"coords: {name} has shape {values.shape} for {len(self)} probes")
        if len(np.unique(self.coords["sample"])) != len(self):
            raise ValueError("coords: sample has duplicates")

    def __len__(self) -> int:
        return len(self.pixels)


def probe_set(
    dataset: Dataset,
    *,
    train_labels: Indices | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    **options: Any,
) -> ProbeSet:
    """Choose the probes of a data set.

    Each kind is chosen by itself from a seeded order in which every prefix is class-balanced (by true labels): growing
    a count keeps the earlier probes, and no count or label noise changes what another kind holds. Corrupted probes are
    made from the first test probes, so the two pair by `origin`.

    Parameters
    ----------
    train_labels : int64 array, shape (len(dataset.train),), optional
        The labels in use, where they are not the true ones.
    data_dir, download
        Where the shifted data set is, as in `load`.
    **options
        The fields of `ProbeOptions`.

    Returns
    -------
    ProbeSet
        Train, test, corrupted (by corruption, then severity), and shifted probes, in this order.

    Raises
    ------
    DataError
        If there are too few samples, or data are missing or do not fit.
    """
    chosen = validate(ProbeOptions, options, "probes")
    kinds = [
        _Kind.of(dataset.train, _choose(dataset.train, chosen.train, chosen.seed, "train"), train_labels),
        _Kind.of(dataset.test, test := _choose(dataset.test, chosen.test, chosen.seed, "test")),
    ]
    if dataset.texts and (chosen.corrupted or chosen.shifted):
        raise DataError(f"{dataset.name}: probes.corrupted and probes.shifted are of images")
    if chosen.corrupted > len(test):
        raise DataError(
            f"corrupted = {chosen.corrupted} probes are made from test probes, of which there are {len(test)}"
        )
    if chosen.corrupted and dataset.symbols:
        raise DataError(f"corrupted = {chosen.corrupted}: {dataset.name} are symbols, not images")
    if chosen.corrupted:
        kinds += _corrupted(dataset, test[: chosen.corrupted], chosen)
    if chosen.shifted is not None and chosen.shifted_count:
        kinds.append(_shifted(dataset, chosen.shifted, chosen, data_dir, download))
    if not any(len(kind.indices) for kind in kinds):
        raise DataError("no probes were asked for: set train, test or shifted_count above 0")
    return _joined(kinds)


@dataclass(frozen=True, eq=False)
class _Kind:
    """Probes that were made in one way."""

    pixels: Pixels
    dataset: str
    part: str  # the split of `dataset` that they come from
    split: str
    indices: Indices
    labels: Indices
    true_labels: Indices
    corruption: str = ""
    severity: int = 0
    images: str = ""  # the data set of the images that they were made from, where it is another

    @staticmethod
    def of(images: Images, indices: Indices, labels: Indices | None = None) -> _Kind:
        if labels is None:
            labels = images.labels
        elif labels.shape != images.labels.shape:
            raise ValueError(f"train_labels: needs shape {images.labels.shape}, got {labels.shape}")
        true_labels = images.labels[indices]
        split = images.split
        numbers = images.numbered(indices)
        return _Kind(images.pixels[indices], images.name, split, split, numbers, labels[indices], true_labels)

    def samples(self) -> list[str]:
        tail = f"/{self.corruption}/{self.severity}" if self.corruption else ""
        return [f"{self.dataset}/{self.part}/{index:05d}{tail}" for index in self.indices]

    def origins(self) -> list[str]:
        return [f"{self.images or self.dataset}/{self.part}/{index:05d}" for index in self.indices]


def _choose(images: Images, count: int, seed: int, kind: str, among: npt.NDArray[np.bool_] | None = None) -> Indices:
    candidates = np.arange(len(images)) if among is None else np.flatnonzero(among)
    if count > len(candidates):
        raise DataError(f"{count} {kind} probes were asked for, but {images.name} has {len(candidates)} {kind} images")
    return candidates[stratified_order(images.labels[candidates], seed, key(kind))[:count]]


def _corrupted(dataset: Dataset, indices: Indices, options: ProbeOptions) -> Iterator[_Kind]:
    clean = _Kind.of(dataset.test, indices)
    published = None if options.cifar10c is None else Cifar10C(options.cifar10c)
    if published is not None and not np.array_equal(published.labels, dataset.test.labels):
        raise DataError(
            f"cifar10c: the labels in {published.folder} are not those of {dataset.name}'s test images in their order: "
            "use it with cifar10"
        )
    for corruption in options.corruptions:
        for severity in options.severities:
            if published is None:
                name = clean.dataset
                pixels = corrupt(clean.pixels, corruption, severity, indices=indices, seed=options.seed)
            else:
                name = "cifar10c"
                pixels = fit_pixels(published.read(corruption, severity, indices), _of_images(dataset))
            labels = clean.labels, clean.true_labels
            yield _Kind(pixels, name, "test", "corrupted", clean.indices, *labels, corruption, severity, clean.dataset)


def _shifted(dataset: Dataset, name: str, options: ProbeOptions, data_dir: str | Path | None, download: bool) -> _Kind:
    _, height, width = shape = _of_images(dataset)
    # Only images of one size can be loaded as they are, and a folder of any others has to be resized on the way in.
    image_size = height if name.startswith(FOLDER) and height == width else None
    other = load(name, data_dir=data_dir, download=download, image_size=image_size)
    if other.name == dataset.name:
        raise DataError(
            f"shifted: {other.name} is the data set itself (image folders must differ in their folder's name)"
        )
    matched = shared_classes(dataset, other)
    labels = matched[other.test.labels]
    indices = _choose(other.test, options.shifted_count, options.seed, "shifted", labels >= 0)
    pixels = fit_pixels(other.test.pixels[indices], shape)
    return _Kind(pixels, other.name, "test", "shifted", indices, labels[indices], labels[indices])


def _of_images(dataset: Dataset) -> tuple[int, int, int]:
    channels, height, width = dataset.shape
    return channels, height, width


def _joined(kinds: list[_Kind]) -> ProbeSet:
    def each(values: list[Any], dtype: type) -> npt.NDArray[Any]:
        return np.repeat(np.array(values, dtype), [len(kind.indices) for kind in kinds])

    return ProbeSet(
        np.concatenate([kind.pixels for kind in kinds]),
        {
            "sample": np.array([sample for kind in kinds for sample in kind.samples()], np.str_),
            "dataset": each([kind.dataset for kind in kinds], np.str_),
            "dataset_index": np.concatenate([kind.indices for kind in kinds]),
            "origin": np.array([origin for kind in kinds for origin in kind.origins()], np.str_),
            "split": each([kind.split for kind in kinds], np.str_),
            "label": np.concatenate([kind.labels for kind in kinds]),
            "true_label": np.concatenate([kind.true_labels for kind in kinds]),
            "corruption": each([kind.corruption for kind in kinds], np.str_),
            "severity": each([kind.severity for kind in kinds], np.int8),
        },
    )
