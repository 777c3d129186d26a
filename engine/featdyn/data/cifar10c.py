"""The published CIFAR-10-C arrays (Hendrycks and Dietterich, 2019) as they lie on disk.

One `<corruption>.npy`, uint8 (50000, 32, 32, 3), for each corruption, of which rows (s - 1) * 10000 .. s * 10000 - 1
are the CIFAR-10 test set at severity s in its original order, and one `labels.npy` (50000,) for all.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featdyn.errors import DataError

COUNT = 10_000
_SEVERITIES = 5


class Cifar10C:
    """A folder of CIFAR-10-C arrays, of which only the rows asked for are read.

    Raises :class:`DataError` if the folder or its labels are missing or not of the published form.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        labels = self._open("labels", (_SEVERITIES * COUNT,)).astype(np.int64).reshape(_SEVERITIES, COUNT)
        if (labels != labels[0]).any():
            raise DataError(f"{self.folder / 'labels.npy'} differs between severities: it is not CIFAR-10-C's")
        self.labels: npt.NDArray[np.int64] = labels[0]

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The corruptions that the folder holds, sorted."""
        return tuple(sorted(f.stem for f in self.folder.glob("*.npy") if f.stem != "labels"))

    def read(self, corruption: str, severity: int, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return corrupted test images, uint8 (N, 3, 32, 32), by their indices (N,) in CIFAR-10's test set.

        Severity is 1 to 5. Raises :class:`DataError` if there is no such corruption, or its file is not of the
        published form.
        """
        if not 1 <= severity <= _SEVERITIES:
            raise ValueError(f"severity: must lie in 1..{_SEVERITIES}, got {severity}")
        if len(indices) and not 0 <= indices.min() <= indices.max() < COUNT:
            raise ValueError(f"indices: must lie in 0..{COUNT - 1}, got {indices.min()}..{indices.max()}")
        if corruption not in self.corruptions:
            raise DataError(f"{self.folder} has no corruption {corruption!r}: it has {', '.join(self.corruptions)}")
        images = self._open(corruption, (_SEVERITIES * COUNT, 32, 32, 3))
        rows: npt.NDArray[np.uint8] = images[(severity - 1) * COUNT + indices]
        return np.ascontiguousarray(rows.transpose(0, 3, 1, 2))

    def _open(self, stem: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        file = self.folder / f"{stem}.npy"
        try:
            array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError(f"{file} is missing: cifar10c must be the folder of CIFAR-10-C's .npy files") from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{file} is not a readable NumPy array: {error}") from error
        if array.shape != shape or array.dtype.kind not in "iu" or (len(shape) > 1 and array.dtype != np.uint8):
            raise DataError(f"{file} is {array.dtype} {array.shape}: CIFAR-10-C has uint8 {shape}")
        return array
