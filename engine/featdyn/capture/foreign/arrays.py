"""Plain arrays: ``.npy``, ``.npz`` or Zarr, whose axes have names, such as ``checkpoint,sample,feature``.

A file of one array is one layer, named by the file; one of several, or a folder of ``.npy`` files, holds a layer in
each. Zarr may name the axes itself, and hold the coordinates ``step`` and ``sample``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featdyn.capture.foreign.npz import Member, Scratch
from featdyn.capture.foreign.recorded import Layer, Recorded, readable, same_samples, stored_dtype
from featdyn.errors import DataError
from featdyn.networks.layer_patterns import matching

SAMPLES = "sample"
_KNOWN = ("step", SAMPLES)


@dataclass(frozen=True)
class _Named:
    """An array that is read when it is indexed, and the names of its axes."""

    values: Any
    axes: tuple[str, ...]


def is_mine(path: Path) -> bool:
    """Whether it is a file of arrays, a folder of .npy files, or Zarr."""
    return path.suffix in (".npy", ".npz") or (path.is_dir() and (_is_zarr(path) or any(path.glob("*.npy"))))


def opened(
    path: Path,
    scratch: Scratch,
    axes: Sequence[str] = (),
    steps: Sequence[int] | None = None,
    layers: Sequence[str] = ("**",),
) -> dict[int | None, Recorded]:
    """Return the checkpoints of an array by their step; of one without such an axis the step is not known.

    Where a file holds several arrays, those that match none of ``layers`` need not have the axes.
    """
    held, coords = _zarr(path) if _is_zarr(path) else (_numpy(path, scratch), {})
    if not held:
        raise DataError(f"{path}: holds no array of more than one axis")
    if len(held) > 1:
        wanted = {name for pattern in layers for name in matching(pattern, held)}
        if not wanted:
            raise DataError(f"{path}: no layer {', '.join(layers)}; there are {', '.join(held)}")
        held = {name: one for name, one in held.items() if name in wanted}
    named = {
        name: _Named(values, _axes(path, name, values, tuple(axes) or own)) for name, (values, own) in held.items()
    }
    grows = {"checkpoint" in array.axes for array in named.values()}
    if len(grows) > 1:
        raise DataError(f"{path}: some of its arrays have the axis checkpoint and others have not")
    lengths = {name: array.values.shape[array.axes.index(SAMPLES)] for name, array in named.items()}
    samples = same_samples(path, lengths)
    known = {name: values for name, values in coords.items() if name != "step"}
    if SAMPLES in known:
        known[SAMPLES] = np.array([str(one) for one in known[SAMPLES].tolist()], dtype=object)
    for name, values in known.items():
        if values.shape != (samples,):
            raise DataError(f"{path}: its coordinate {name} has shape {values.shape}, and there are {samples} samples")

    def at(t: int | None) -> Recorded:
        return Recorded({name: _layer(path, name, array, t) for name, array in named.items()}, samples, known)

    if not grows.pop():
        return {None: at(None)}
    counts = {array.values.shape[array.axes.index("checkpoint")] for array in named.values()}
    if len(counts) > 1:
        raise DataError(f"{path}: its arrays hold {' and '.join(map(str, sorted(counts)))} checkpoints")
    given = list(coords.get("step", ()) if steps is None else steps)
    found = [int(n) for n in given if float(n).is_integer()]
    if len(found) < len(given):
        raise DataError(f"{path}: steps must be whole numbers, got {', '.join(map(str, given[:4]))}: give --steps")
    if len(found) != (count := counts.pop()):
        raise DataError(
            f"{path}: holds {count} checkpoints and {len(found)} steps are known: give --steps, one for each"
        )
    if sorted(set(found)) != found:
        raise DataError(f"{path}: steps must grow from checkpoint to checkpoint, got {found}")
    return {step: at(t) for t, step in enumerate(found)}


def _axes(path: Path, name: str, values: Any, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of an array's axes, or say what is wrong with them."""
    if not axes:
        names = "give their names with --axes, such as checkpoint,sample,feature"
        raise DataError(f"{path}: nothing says what the {values.ndim} axes of {name} are: {names}")
    if len(axes) != values.ndim or len(set(axes)) != len(axes):
        raise DataError(f"{path}: {name} has shape {values.shape}, which the axes {','.join(axes)} do not name")
    if SAMPLES not in axes or len(set(axes) - {SAMPLES, "checkpoint"}) < 1:
        raise DataError(f"{path}: {name} has the axes {','.join(axes)}; it needs sample and one for features at least")
    return axes


def _layer(path: Path, name: str, array: _Named, t: int | None) -> Layer:
    inner = [axis for axis in array.axes if axis not in (SAMPLES, "checkpoint")]
    shape = tuple(int(array.values.shape[array.axes.index(axis)]) for axis in inner)
    dtype = stored_dtype(path, name, array.values.dtype.name)
    return Layer(shape, dtype, partial(_rows, path, array, t), tuple(inner))


def _rows(path: Path, array: _Named, t: int | None, start: int, stop: int) -> NDArray[Any]:
    """Read some samples, with them as the first axis."""
    index = tuple(t if axis == "checkpoint" else slice(start, stop) if axis == SAMPLES else slice(None)
                  for axis in array.axes)  # fmt: skip
    with readable(path):
        found = np.asarray(array.values[index])
    left = [axis for axis in array.axes if axis != "checkpoint"]
    moved = np.moveaxis(found, left.index(SAMPLES), 0)
    return np.array(moved, dtype=moved.dtype.newbyteorder("="), order="C")  # what is mapped may go


def _numpy(path: Path, scratch: Scratch) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Return arrays by name; nothing says their axes."""
    if path.suffix == ".npz":
        with readable(path), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return {name.removesuffix(".npy"): (Member(path, name, scratch), ()) for name in names}
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    return {file.stem: (_mapped(file), ()) for file in files}


def _mapped(file: Path) -> Any:
    with readable(file):
        return np.load(file, mmap_mode="r", allow_pickle=False)


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _zarr(path: Path) -> tuple[dict[str, tuple[Any, tuple[str, ...]]], Mapping[str, NDArray[Any]]]:
    """Return the arrays of a group, or the array that it is, with the axes that it names; and its coordinates."""
    import zarr

    with readable(path):
        node: Any = zarr.open(path, mode="r")
        members = [(path.stem, node)] if isinstance(node, zarr.Array) else node.members(None)
        arrays = {name: one for name, one in members if isinstance(one, zarr.Array)}
        for name, array in arrays.items():
            if "pickle" in repr(array.metadata).lower():
                raise DataError(f"{path}: {name} holds pickled objects, which are not loaded")
        axes = {name: tuple(_dimensions(array)) for name, array in arrays.items()}
        coords = {name: _plain(arrays[name][:]) for name, own in axes.items() if own == (SAMPLES,) or name in _KNOWN}
        several = {name: own for name, own in axes.items() if arrays[name].ndim > 1}
        held = {name: (arrays[name], own) for name, own in several.items() if SAMPLES in own or not own}
        return {name.replace("/", "."): one for name, one in held.items()}, coords


def _plain(values: Any) -> NDArray[Any]:
    """Return a coordinate as it will be stored, text as objects."""
    found = np.asarray(values)
    return found if found.dtype.kind in "biuf" else np.array([str(one) for one in found.tolist()], dtype=object)


def _dimensions(array: Any) -> Sequence[str]:
    """Return the names of the axes: of Zarr 3 in its metadata, of Zarr 2 as xarray writes them."""
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    return [] if any(name is None for name in named) else [str(name) for name in named]
