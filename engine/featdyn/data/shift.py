"""A second data set that shares classes with the first, such as STL-10 for CIFAR-10."""

import numpy as np
import numpy.typing as npt

from featdyn.data.images import Dataset
from featdyn.errors import DataError

_SYNONYMS = {"car": "automobile"}  # STL-10's name and CIFAR-10's


def shared_classes(dataset: Dataset, shifted: Dataset) -> npt.NDArray[np.int64]:
    """Return the label in `dataset` of each class of `shifted` by its name, or -1: int64 (len(shifted.classes),).

    CIFAR-10 and STL-10 share nine: "car" is "automobile", and frog and monkey stay without a partner. Raises
    :class:`DataError` if no class is shared.
    """
    labels = {_canonical(name): label for label, name in enumerate(dataset.classes)}
    matched = np.array([labels.get(_canonical(name), -1) for name in shifted.classes], np.int64)
    if (matched < 0).all():
        raise DataError(
            f"{shifted.name} shares no class name with {dataset.name}: "
            f"{', '.join(shifted.classes[:10])} against {', '.join(dataset.classes[:10])}"
        )
    return matched


def _canonical(name: str) -> str:
    name = name.strip().lower()
    return _SYNONYMS.get(name, name)
