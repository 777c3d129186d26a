"""Feature folders of thingsvision: ``features*`` as .npy, .pt, .mat or .hdf5, with ``file_names.txt`` beside or above.

Either a folder is one layer, or each of its folders is, named by its module. Features may be split into files that end
in a number (``features_03.npy``) or in their first and last image (``features_0-512.npy``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from featdyn.capture.foreign.recorded import Layer, Recorded, as_array, load, one_layer, readable, same_samples
from featdyn.capture.foreign.recorded import stored_dtype as stored
from featdyn.errors import DataError
from featdyn.extras import asked_for

NAMES = "file_names.txt"
_IMAGE = re.compile(r"(.eps|.jpg|.jpeg|.png|.PNG|.tif|.tiff)$")
_SPAN = re.compile(r"_(\d+)-(\d+)$")


def is_mine(path: Path) -> bool:
    """Whether a folder holds features, or folders that do."""
    return path.is_dir() and any(_files(folder) for folder in (path, *path.iterdir()) if folder.is_dir())


def opened(path: Path) -> dict[int | None, Recorded]:
    """Return the one checkpoint in a folder; its step is not known."""
    inner = {folder.name: folder for folder in sorted(path.iterdir()) if folder.is_dir() and _files(folder)}
    folders = {path.resolve().name: path} if _files(path) else inner
    names = next((_names(above / NAMES) for above in (path, path.parent) if (above / NAMES).is_file()), None)
    layers, counts = {}, {}
    for name, folder in folders.items():
        parts = [part for file in _ordered(folder) for part in _parts(file, names)]
        layers[name] = one_layer(folder, [layer for layer, _ in parts], [count for _, count in parts])
        counts[name] = sum(count for _, count in parts)
    samples = same_samples(path, counts)
    if names is None:
        return {None: Recorded(layers, samples)}
    if len(names) != samples:
        raise DataError(f"{path}: {NAMES} names {len(names)} images, and there are features of {samples}")
    unique = len(set(names)) == len(names)
    return {None: Recorded(layers, samples, {"sample" if unique else "file": np.array(names, dtype=object)})}


def _names(path: Path) -> list[str]:
    with readable(path):
        return path.read_text().splitlines()


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("features*")) if file.suffix in _READERS]


def _ordered(folder: Path) -> list[Path]:
    """Return the files in the order of their samples, of one type and without a gap."""
    files = _files(folder)
    if len({file.suffix for file in files}) > 1:
        raise DataError(f"{folder}: holds features as {' and '.join(sorted({f.suffix for f in files}))}: keep one")
    spans = {file: _SPAN.search(file.stem) for file in files}
    if len(files) > 1 and all(spans.values()):
        files.sort(key=lambda file: int(spans[file][1]))  # type: ignore[index]
        end = 0
        for file in files:
            first, last = (int(n) for n in spans[file].groups())  # type: ignore[union-attr]
            if first != end:
                raise DataError(f"{folder}: features of images {end} to {first} are missing, or there twice")
            end = last
        return files
    numbers = [re.search(r"_(\d+)$", file.stem) for file in files]
    if len(files) > 1 and not all(numbers):
        raise DataError(f"{folder}: holds {', '.join(f.name for f in files[:3])}, which are not parts of one")
    order = sorted(zip((int(n[1]) if n else 1 for n in numbers), files, strict=True))
    if [n for n, _ in order] != list(range(1, len(files) + 1)) and len(files) > 1:
        raise DataError(f"{folder}: its parts are {', '.join(str(n) for n, _ in order)}: one is missing")
    if len(files) > 1 and files[0].suffix == ".mat" and "features" in _variables(files[0]):
        raise DataError(f"{folder}: thingsvision writes all features into each of several .mat files: keep one")
    return [file for _, file in order]


def _parts(file: Path, names: list[str] | None) -> list[tuple[Layer, int]]:
    """Return the arrays in a file, one behind the other, with their lengths."""
    return _READERS[file.suffix](file, names)


def _layer(file: Path, shape: tuple[int, ...], dtype: object, read: Callable[[int, int], NDArray[Any]]) -> Any:
    if len(shape) < 2:
        raise DataError(f"{file}: holds an array of shape {shape}, not (images, ...)")
    return Layer(tuple(shape[1:]), stored(file, "it", dtype), read), shape[0]


def _npy(file: Path, names: list[str] | None) -> list[tuple[Layer, int]]:
    with readable(file):
        held = np.load(file, mmap_mode="r", allow_pickle=False)
    return [_layer(file, held.shape, held.dtype, lambda start, stop: np.array(held[start:stop]))]


def _pt(file: Path, names: list[str] | None) -> list[tuple[Layer, int]]:
    held = load(file)
    if not isinstance(held, Tensor):
        raise DataError(f"{file}: holds {type(held).__name__}, not one tensor")
    return [_layer(file, tuple(held.shape), held.dtype, lambda start, stop: as_array(held[start:stop]))]


def _hdf5(file: Path, names: list[str] | None) -> list[tuple[Layer, int]]:
    with asked_for():
        import h5py
    with readable(file), h5py.File(file, "r") as held:
        shapes = {name: (held[name].shape, held[name].dtype) for name in sorted(held, key=_place)}
    if not shapes:
        raise DataError(f"{file}: holds no features")

    def read(name: str, start: int, stop: int) -> NDArray[Any]:
        with readable(file), h5py.File(file, "r") as held:
            return np.asarray(held[name][start:stop])

    return [_layer(file, *found, partial(read, name)) for name, found in shapes.items()]


def _place(name: str) -> tuple[int, str]:
    return len(name), name  # features_100 comes behind features_99


def _mat(file: Path, names: list[str] | None) -> list[tuple[Layer, int]]:
    """Return the matrix ``features``, or else the rows that are named by their images."""
    shapes = _variables(file)
    types = {"single": "float32", "double": "float64"}
    if "features" in shapes:
        shape, kind = shapes["features"]
        return [_layer(file, shape, types.get(kind, kind), partial(_of_matrix, file))]
    rows = [name for name in (_IMAGE.sub("", name) for name in names or []) if name in shapes]
    kinds = {shapes[name] for name in rows}
    if not rows or len(rows) < len(shapes) or len(kinds) > 1:
        raise DataError(f"{file}: holds neither features nor one row for each image of {NAMES}")
    ((shape, kind),) = kinds
    flat = shape[1:] if shape[0] == 1 else shape  # a vector is kept as a row

    def images(start: int, stop: int) -> NDArray[Any]:
        held = _loaded(file, rows[start:stop])
        return np.stack([held[name].reshape(flat) for name in rows[start:stop]])

    return [_layer(file, (len(rows), *flat), types.get(kind, kind), images)]


def _of_matrix(file: Path, start: int, stop: int) -> NDArray[Any]:
    return np.ascontiguousarray(_loaded(file, ["features"])["features"][start:stop])


def _loaded(file: Path, names: list[str]) -> dict[str, Any]:
    from scipy.io import loadmat

    with readable(file):
        return dict(loadmat(file, variable_names=names))


def _variables(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    from scipy.io import whosmat

    with readable(file):
        return {name: (shape, kind) for name, shape, kind in whosmat(file)}


_READERS: dict[str, Callable[[Path, list[str] | None], list[tuple[Layer, int]]]] = {
    ".npy": _npy, ".pt": _pt, ".mat": _mat, ".hdf5": _hdf5,
}  # fmt: skip
