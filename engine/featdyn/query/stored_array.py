"""What a name such as ``cube.activation_norm`` stands for in a run.

Read from the root's metadata and the store's own blocks, not through xarray: a shard is read in one piece, many times
faster than through zarr's codecs, and a command that only looks something up does not import dask (xarray does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from featdyn.errors import FeatdynError
from featdyn.names import described
from featdyn.nearest import meant
from featdyn.query import derived
from featdyn.query.catalogue import Catalogue, dims_of, kind_of
from featdyn.query.cells import Array, Cells, Read, Region
from featdyn.store import ArraySpec, Run
from featdyn.store.metadata import grows
from featdyn.store.reader import decoded


@dataclass(frozen=True)
class StoredArray:
    """One array of a run with its coordinates."""

    path: str  # in the store
    attributes: Mapping[str, Any]  # of the array, with a long name and units where they are known
    cells: Cells  # its values, not read yet
    coordinates: Mapping[str, str]  # the coordinates along one axis, each with that axis
    _load: Callable[[str], Array]
    _kinds: Mapping[str, np.dtype[Any]]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def logical(self) -> bool:
        """Whether values are true or false; as numbers they are 1 and 0, and NaN where some are missing."""
        return self.cells.dtype.kind == "b" or self.path in derived.LOGICAL

    def coordinate(self, name: str) -> tuple[str, Array]:
        """Return the axis of a coordinate and its values; an axis without coordinate counts from 0."""
        if name in self.coordinates:
            return self.coordinates[name], self._load(name)
        if name in self.cells.dims:
            return name, np.arange(self.cells.shape[self.cells.dims.index(name)])
        raise FeatdynError(f"{self.name} has no coordinate {name!r}" + unknown(name, self.known))

    def kind(self, name: str) -> np.dtype[Any]:
        """Return the type of a coordinate, without reading it; text is an object."""
        return self._kinds.get(name, np.dtype(np.int64))

    @property
    def known(self) -> list[str]:
        """Its axes and coordinates."""
        return list(dict.fromkeys([*self.cells.dims, *self.coordinates]))


def unknown(name: str, known: list[str]) -> str:
    """Return the end of a sentence: what may have been meant, and what there is."""
    return f"; {meant(name, known)}there are {', '.join(known)}" if known else ""


def find(catalogue: Catalogue, name: str) -> StoredArray:
    """Return the variable of this name, or raise :class:`FeatdynError`, whose message lists near names."""
    run, path = catalogue.run, catalogue.path(name)
    document, paths = catalogue.document(path), catalogue.coordinates(path)
    axes = {name: dims_of(run.nodes[p])[0] for name, p in paths.items()}
    names = derived.class_names(run)
    labels = next((n for n in ("label", "class") if n in axes and "int" in run.nodes[paths[n]]["data_type"]), None)
    if names is not None and labels is not None and "class_name" not in axes:
        axes["class_name"] = axes[labels]

    @cache
    def load(name: str) -> Array:
        if name == "class_name" and name not in paths:
            assert names is not None
            assert labels is not None
            return derived.named(load(labels), names)
        held = catalogue.coordinate_values
        if paths[name] not in held:
            held[paths[name]] = stored_cells(run, paths[name]).load()
        return held[paths[name]]

    kinds = {name: kind_of(run.nodes[paths[name]]) if name in paths else np.dtype(object) for name in axes}
    attributes = described(path.rpartition("/")[2], document["attributes"])
    return StoredArray(path, attributes, stored_cells(run, path), axes, load, kinds)


def stored_cells(run: Run, path: str) -> Cells:
    """Return the values of the array at a path, not read yet."""
    if path not in run.nodes:
        return derived.cells(run, path, partial(stored_cells, run))
    document = run.nodes[path]
    dims, everything = dims_of(document), tuple(np.arange(n) for n in document["shape"])
    cell = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
    alone = grows(document) and cell[0] == 1  # else a chunk like any other, of several checkpoints
    dtype, read = (_growing if alone else _whole)(run, path)
    scaled = "scale_factor" in document["attributes"]
    part = partial(_part, run, run.schema[path]) if alone else None
    return Cells(dims, everything, cell, np.result_type(dtype, np.float32) if scaled else dtype, read, part)


def _growing(run: Run, path: str) -> tuple[np.dtype[Any], Read]:
    """Read an array with a checkpoint axis: a cell is a shard."""
    spec = run.schema[path]
    everything = (slice(None),) * (1 + len(spec.dims))
    return np.dtype(spec.dtype), lambda index: _part(run, spec, index, everything)


def _part(run: Run, spec: ArraySpec, index: tuple[int, ...], span: Region) -> Array:
    """Read some samples of a shard, and of these some values."""
    if spec.sample_axis is None:
        return run.block(spec.path, index[0], 0)[None][span]
    axis = 1 + spec.sample_axis
    values = run.block(spec.path, index[0], index[axis], rows=span[axis])[None]
    return values[(*span[:axis], slice(None), *span[axis + 1 :])]


def _whole(run: Run, path: str) -> tuple[np.dtype[Any], Read]:
    """Read a coordinate, an input or a result: a cell is a chunk, decoded by zarr."""
    dtype = kind_of(run.nodes[path])

    def read(index: tuple[int, ...]) -> Array:
        array: Any = run.group[path]
        cell = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, array.chunks, strict=True))
        return decoded(np.asarray(array[cell], dtype), run.nodes[path]["attributes"])

    return dtype, read
