"""A spurious feature: a label written into the image, true where one trains and random where one tests.

After the "encoded MNIST" of Nam et al. (arXiv 2410.04264), whose own encoding was not found: this one is our choice.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from featdyn.data.images import Dataset, Images
from featdyn.data.order import key, random_labels, random_order
from featdyn.errors import DataError


def with_shortcut(dataset: Dataset, share: float) -> Dataset:
    """Write a label into the first pixels of every image: all 0, but for that of the label, which is 255.

    Of `share` of the training images it is their own, of the others and of all test images one at random, so that it
    tells nothing of these. Which is which is always the same; images of a smaller share are among those of a larger
    one. Raises DataError where an image has fewer pixels than there are classes.
    """
    classes, pixels = len(dataset.classes), dataset.shape[1] * dataset.shape[2]
    if pixels < classes:
        raise DataError(f"shortcut: {classes} classes need as many pixels, images of {dataset.name} have {pixels}")
    written = random_labels(len(dataset.train), classes, key("shortcut"))
    own = random_order(len(dataset.train), key("shortcut"))[: round(share * len(dataset.train))]
    written[own] = dataset.train.labels[own]
    anything = random_labels(len(dataset.test), classes, key("shortcut"), key("test"))
    train, test = _written(dataset.train, written, classes), _written(dataset.test, anything, classes)
    return replace(dataset, train=train, test=test)


def _written(images: Images, labels: npt.NDArray[np.int64], classes: int) -> Images:
    pixels = images.pixels.copy()
    first = pixels.reshape(*pixels.shape[:2], -1)[:, :, :classes]
    first[:] = 0
    first[np.arange(len(labels)), :, labels] = 255
    return replace(images, pixels=pixels)
