import numpy as np
import pytest

from featdyn.data import Cifar10C
from featdyn.errors import DataError

ROWS = 50_000


def write_images(file, value=None):
    """Write a sparse array of the published shape, whose row r holds the digits of r in its first pixel."""
    images = np.lib.format.open_memmap(file, "w+", np.uint8, (ROWS, 32, 32, 3))
    rows = np.array([0, 1, 9_999, 10_000, 23_456, 49_999])
    images[rows, 0, 0] = np.stack([rows // 10_000, rows // 100 % 100, rows % 100], axis=1)
    images[rows, 2, 5, 1] = 201
    images.flush()


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "fog.npy")
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10_000) % 10, 5).astype(np.uint8))
    return tmp_path


def test_rows_of_each_severity(folder):
    arrays = Cifar10C(folder)
    assert arrays.corruptions == ("fog",)
    np.testing.assert_array_equal(arrays.labels, np.arange(10_000) % 10)
    for severity, index, first in (
        (1, 0, (0, 0, 0)),
        (1, 9_999, (0, 99, 99)),
        (2, 0, (1, 0, 0)),
        (5, 9_999, (4, 99, 99)),
    ):
        (image,) = arrays.read("fog", severity, np.array([index]))
        np.testing.assert_array_equal(image[:, 0, 0], first)
        assert image[1, 2, 5] == 201  # channel, row, column
    both = arrays.read("fog", 3, np.array([3_456, 7]))
    assert (both.dtype, both.shape) == (np.uint8, (2, 3, 32, 32))
    np.testing.assert_array_equal(both[0, :, 0, 0], [2, 34, 56])


def test_refusals(folder, tmp_path):
    arrays = Cifar10C(folder)
    with pytest.raises(DataError, match="no corruption 'frost': it has fog"):
        arrays.read("frost", 1, np.array([0]))
    with pytest.raises(DataError, match="no corruption 'labels'"):
        arrays.read("labels", 1, np.array([0]))
    for severity in (0, 6):
        with pytest.raises(ValueError, match="severity"):
            arrays.read("fog", severity, np.array([0]))
    for index in (-1, 10_000):
        with pytest.raises(ValueError, match="indices"):
            arrays.read("fog", 1, np.array([index]))

    with pytest.raises(DataError, match=r"labels\.npy is missing"):
        Cifar10C(folder / "elsewhere")
    np.save(folder / "snow.npy", np.zeros((10_000, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"snow\.npy is uint8 \(10000, 32, 32, 3\): CIFAR-10-C has uint8 \(50000"):
        arrays.read("snow", 1, np.array([0]))
    (folder / "snow.npy").write_bytes((folder / "fog.npy").read_bytes()[:5_000])
    with pytest.raises(DataError, match=r"snow\.npy is not a readable NumPy array"):
        arrays.read("snow", 1, np.array([0]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(10_000, np.uint8), r"labels\.npy is uint8 \(10000,\)"),
        (np.zeros(ROWS, np.float32), r"labels\.npy is float32"),
        (np.array([{}] * 3), "not a readable NumPy array"),  # a pickle, which is never loaded
        ((np.arange(ROWS) // 10_000).astype(np.uint8), "differs between severities"),
    ],
)
def test_labels_of_another_form(tmp_path, labels, message):
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(DataError, match=message) as error:
        Cifar10C(tmp_path)
    assert "\n" not in str(error.value)
