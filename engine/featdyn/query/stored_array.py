"""What a name such as ``cube.activation_norm`` stands for in a run.

Read from the root's metadata and the store's own blocks, not through xarray: a shard is read in one piece, many times
faster than through zarr's codecs, and a command that only looks something up does not import dask (xarray does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from featdyn.errors import FeatdynError
from featdyn.query.cells import Array, Cells, Read, Region
from featdyn.store import ArraySpec, Run
from featdyn.store.metadata import Document, grows
from featdyn.store.reader import decoded


@dataclass(frozen=True)
class StoredArray:
    """One array of a run with its coordinates."""

    path: str  # in the store
    attributes: Mapping[str, Any]  # of the array
    cells: Cells  # its values, not read yet
    coordinates: Mapping[str, str]  # the coordinates along one axis, each with that axis
    _load: Callable[[str], Array]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    def coordinate(self, name: str) -> tuple[str, Array]:
        """Return the axis of a coordinate and its values; an axis without coordinate counts from 0."""
        if name in self.coordinates:
            return self.coordinates[name], self._load(name)
        if name in self.cells.dims:
            return name, np.arange(self.cells.shape[self.cells.dims.index(name)])
        known = ", ".join(dict.fromkeys([*self.cells.dims, *self.coordinates]))
        raise FeatdynError(f"{self.name} has no coordinate {name!r}" + (f"; there are {known}" if known else ""))


def find(run: Run, name: str) -> StoredArray:
    """Return the variable of this name, or raise :class:`FeatdynError`, whose message lists near names."""
    catalogue = _Catalogue(run)
    path = catalogue.paths.get(name.replace("/", "."))
    if path is None:
        raise FeatdynError(f"{run.path}: no variable {name!r}{catalogue.near(name)}")
    paths = catalogue.coordinates(path)
    axes = {name: _dims(run.nodes[p])[0] for name, p in paths.items()}
    load = cache(lambda name: stored_cells(run, paths[name]).load())
    return StoredArray(path, run.nodes[path]["attributes"], stored_cells(run, path), axes, load)


class _Catalogue:
    """All arrays of a run by their dotted names."""

    def __init__(self, run: Run) -> None:
        self.nodes = run.nodes
        arrays = [path for path, document in run.nodes.items() if document["node_type"] == "array"]
        # Layer names hold dots themselves: the whole dotted name is looked up, never split.
        self.paths = {path.replace("/", "."): path for path in arrays}
        for newest in (run.results(name)[-1] for name in run.analyses):
            alias = newest.rpartition("/")[0].replace("/", ".")
            within = [path for path in arrays if path.startswith(f"{newest}/")]
            self.paths |= {f"{alias}.{path.removeprefix(newest + '/')}": path for path in within}

    @cached_property
    def names(self) -> list[str]:
        """What to offer: numbered results are left out, they have a name without the number."""
        return sorted(n for n, p in self.paths.items() if not p.startswith("results/") or n != p.replace("/", "."))

    def near(self, name: str) -> str:
        """Return the end of a sentence that lists what may have been meant."""
        dotted = name.replace("/", ".").rstrip(".")
        inside = [n for n in self.names if n.startswith(f"{dotted}.")]
        last = [n for n in self.names if n.rpartition(".")[2] == dotted]
        found = inside or last or get_close_matches(dotted, self.names, 6, 0.5)
        if not found:
            found = list(dict.fromkeys(n.partition(".")[0] + (".*" if "." in n else "") for n in self.names))
        more = f" and {len(found) - 12} more" if len(found) > 12 else ""
        return f"; did you mean {', '.join(found[:12])}{more}?" if found else ""

    def coordinates(self, path: str) -> dict[str, str]:
        """Return the paths of the coordinates along one axis of an array, from its own group and from the root."""
        dims, found = _dims(self.nodes[path]), {}
        for candidate in self.paths.values():
            group, _, name = candidate.rpartition("/")
            axes = _dims(self.nodes[candidate])
            if len(axes) != 1 or axes[0] not in dims or group not in ("", path.rpartition("/")[0]):
                continue
            named = self.nodes[path]["attributes"].get("coordinates", "").split()
            if group in self.nodes:
                named += self.nodes[group]["attributes"].get("coordinates", "").split()
            if candidate != path and (not group or name == axes[0] or name in named):
                found[name] = candidate
        return found


def _dims(document: Document) -> tuple[str, ...]:
    names = document.get("dimension_names") or [None] * len(document["shape"])
    return tuple(name or f"axis{axis}" for axis, name in enumerate(names))


def stored_cells(run: Run, path: str) -> Cells:
    """Return the values of the array at a path, not read yet."""
    document = run.nodes[path]
    dims, everything = _dims(document), tuple(np.arange(n) for n in document["shape"])
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
    array: Any = run.group[path]
    dtype = array.dtype if array.dtype.kind in "biufc" else np.dtype(object)

    def read(index: tuple[int, ...]) -> Array:
        cell = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, array.chunks, strict=True))
        return decoded(np.asarray(array[cell], dtype), run.nodes[path]["attributes"])

    return dtype, read
