"""Read a run: lazily as xarray, or block by block for analyses."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from featdyn.errors import StoreError
from featdyn.output import quoted
from featdyn.store import gathered, metadata, root, shard, summary
from featdyn.store.commit import DROPPED
from featdyn.store.kept import Kept
from featdyn.store.locate import Store, locate
from featdyn.store.metadata import Document
from featdyn.store.place import Place
from featdyn.store.record import FileRecord, crc32c
from featdyn.store.root import Root
from featdyn.store.schema import ArraySpec, Schema, check_name
from featdyn.store.state_file import StateFile

if TYPE_CHECKING:
    import torch
    import xarray as xr
    import zarr


ALL = slice(None)
CHUNKS = 256  # that gather checkpoints, kept once they were read: 64 KiB each
PARTLY = 2**20  # bytes: of a larger shard only what is asked for is read


class Run:
    """One run, as of the commit that was the newest when it was opened.

    ``run.tree`` is what ``xr.open_datatree(path, engine="zarr")`` gives; everything else here is convenience. While the
    run is being written nothing here changes: open it again to see what was committed since. ``path`` is absolute, or
    a URL, and opens the store again from any folder and process that sees it.

    Parameters
    ----------
    store
        A folder, or a URL such as ``s3://bucket/run.zarr``.
    commit
        Open it as of the commit of this number instead. A run that is sent to another process is opened there as of its
        own last commit, so that both see the same, and refused if it is another store that lies there.

    Raises
    ------
    StoreError
        No store, a foreign or newer one, one without that commit, or one whose last commit is not complete on disk.

    Examples
    --------
    >>> run = featdyn.open_run("run.zarr")
    >>> run.checkpoints, run.layers[:3]
    (5, ['stem', 's1b1', 's1b2'])
    >>> run.values("step")
    array([ 0,  2,  5, 11, 22])
    >>> run.result("consistency").sizes["t1"]
    5
    """

    def __init__(self, store: Store, commit: int | None = None) -> None:
        self.place = locate(store)
        self.path = self.place.path
        self._content = root.read(self.place)
        self._root = Root.decode(self._content, self.place)
        if commit is not None and commit != len(self._root.commits):
            found = self._root.commits
            if not 0 < commit <= len(found) or found[commit - 1].kind == DROPPED:
                raise StoreError(f"{self.path}: there is no commit {commit}, or a repair has dropped it")
            self._root = self._root.until(commit)
            self._content = self._root.encode()
        self.attributes = self._root.group_attributes()
        self.commits = self._root.commits
        self.changes = self._root.changes  # that were accepted when it was continued, oldest first
        self.schema = self._root.schema
        self.nodes: Mapping[str, Document] = self._root.nodes  # all groups and arrays below the root, to its zarr.json
        self.checkpoints = self._root.checkpoints  # that are committed
        self.kept: Kept | None = None  # of blocks, and of what is computed, where several analyses ask in turn
        newest = self.commits[-1].listing(self.place)
        wrong = None if self.place.lasting else self.place.incomplete(newest)
        if wrong:
            raise StoreError(f"{self.path}: {wrong}; run: featdyn verify {quoted(self.path)}")

    def __repr__(self) -> str:
        return summary.text(self)

    def _repr_html_(self) -> str:
        return summary.html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _elsewhere, (self.place, self.commits[-1].number, self.fingerprint)

    @cached_property
    def fingerprint(self) -> int:
        """A checksum of all committed checkpoints and static arrays: equal where every byte of them is."""
        listed = [c.document for c in self.commits if c.kind == "checkpoint"]
        return crc32c(json.dumps(listed).encode())

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.place.name

    @cached_property
    def group(self) -> zarr.Group:
        """The store as zarr opens it, as of this run's commit."""
        import zarr

        with _readable(self.place, root.NAME):
            store = self.place.snapshot(self._content, self.nodes)
            return zarr.open_group(store, mode="r", use_consolidated=True, zarr_format=3)

    @cached_property
    def tree(self) -> xr.DataTree:
        """The whole store as a lazy ``xr.DataTree``."""
        import xarray as xr

        with _readable(self.place, root.NAME):
            return xr.open_datatree(cast("Any", self.group.store), engine="zarr", chunks=None, zarr_format=3)

    @property
    def layers(self) -> list[str]:
        """Recorded layers, in the order of the network; of a store that does not tell the order, by name."""
        if "cube/layer" in self.nodes:
            return [str(name) for name in self.values("cube/layer")]
        return list(dict.fromkeys(a.path.split("/")[1] for a in self.schema.arrays if a.path.startswith("layers/")))

    def described(self, name: str) -> dict[str, Any]:
        """Return an attribute that is a mapping, such as ``capture``; an empty one where another writer has another."""
        found = self.attributes.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The recipe of ``featdyn train``, None where something else made the run."""
        found = self.described("recipe")
        tables = (found.get(name) for name in ("network", "training", "data", "labels"))
        return found if all(isinstance(table, dict) for table in tables) else None

    @cached_property
    def coords(self) -> xr.Dataset:
        """What is known of checkpoints and samples: the root's coordinates, loaded."""
        with _readable(self.place, "coordinates"):
            return self.tree.to_dataset().load()

    def array(self, path: str) -> xr.DataArray:
        """Return one array, lazily, such as ``layers/s1b1/activation``."""
        group, _, name = path.rpartition("/")
        try:
            return self.tree[group or "/"].to_dataset()[name]
        except (KeyError, AttributeError):
            raise StoreError(f"{self.path}: no array {path}") from None

    def values(self, path: str, rows: slice = ALL) -> np.ndarray[Any, Any]:
        """Return an array, or some places of its first axis, loaded, such as ``split`` or ``train_loss``.

        The numbers and texts of :meth:`array`; text that is missing is None. Without xarray, which imports dask where
        that is installed: ``featdyn info`` should not wait for it.
        """
        if path not in self.nodes:
            raise StoreError(f"{self.path}: no array {path}")
        with _readable(self.place, path):
            array = cast("zarr.Array[Any]", self.group[path])
            stored = np.asarray(array[rows] if array.ndim else array[...])
            return decoded(stored, self.nodes[path].get("attributes", {}))

    def paths(self, *dims: str) -> list[str]:
        """Return the root's arrays with exactly these dimensions, such as the coordinates of ``checkpoint``."""
        return [p for p, d in self.nodes.items() if "/" not in p and d.get("dimension_names") == list(dims)]

    def block(
        self, path: str, checkpoint: int, block: int, *, stored: bool = False, rows: slice = ALL
    ) -> np.ndarray[Any, Any]:
        """Return one shard's samples at one checkpoint, or some in a row, read-only.

        ``stored`` returns them as they are on disk, without ``scale_factor``: for who scales what follows from them.
        """
        if path not in self.nodes or not metadata.grows(self.nodes[path]):
            raise StoreError(f"{self.path}: no array {path} that grows with the checkpoints")
        self._require(checkpoint)
        spec = self.schema[path]
        if spec.span == 1:
            found = self._whole_or_rows(path, checkpoint, block, rows)
        else:
            found = _of_chunk(
                self._chunk(path, checkpoint // spec.span, block), spec, self.schema, checkpoint, block, rows
            )
        with _readable(self.place, path):
            return found if stored else decoded(found, spec.attrs)

    def _whole_or_rows(self, path: str, checkpoint: int, block: int, rows: slice) -> np.ndarray[Any, Any]:
        """Read a block, or some of its rows; whole ones are kept where blocks are."""
        if self.kept is None or rows != ALL:
            return read_block(self.place, self.schema, path, checkpoint, block, rows)
        found: np.ndarray[Any, Any] | None = self.kept.get(key := (path, checkpoint, block))
        if found is None:
            found = read_block(self.place, self.schema, path, checkpoint, block, rows)
            self.kept.put(key, found)
        return found

    @cached_property
    def _chunk(self) -> Callable[[str, int, int], np.ndarray[Any, Any]]:
        """Read a chunk that gathers checkpoints, once: who asks for one of them will ask for the next."""
        return lru_cache(CHUNKS)(partial(_read_chunk, self.place, self.schema))

    def announce(self, path: str, checkpoint: int, block: int) -> None:
        """Ask the system to read a shard ahead, which :meth:`block` will be asked for soon."""
        self.place.announce(metadata.chunk_key(self.schema[path], checkpoint, block))

    @property
    def analyses(self) -> list[str]:
        """Names of the analyses that have results, in the order of their first ones."""
        return list(dict.fromkeys(c.name.split("/")[1] for c in self.commits if c.kind == "result"))

    def results(self, name: str) -> list[str]:
        """Return the paths of an analysis's results, oldest first."""
        return [c.name for c in self.commits if c.kind == "result" and c.name.split("/")[1] == name]

    def result(self, name: str, path: str | None = None) -> xr.Dataset:
        """Return the newest result of an analysis, or the one at a path of :meth:`results`."""
        found = self.results(name)
        if not found:
            raise StoreError(f"{self.path}: no result of {name} yet; run: featdyn analyze {quoted(self.path)} {name}")
        return cast("xr.DataTree", self.tree[path or found[-1]]).to_dataset(inherit=False)

    def state(self, checkpoint: int, kind: str = "model") -> dict[str, torch.Tensor]:
        """Return the tensors of ``checkpoints/<checkpoint>/<kind>.safetensors``: parameters and buffers by name."""
        path = state_path(checkpoint, check_name(kind, "state"))
        record = self._state_record(checkpoint, path)
        if record is None:
            raise StoreError(f"{self.path}: {path} was not recorded")
        with _readable(self.place, path):
            return self.place.tensors(record)  # checked: a flipped bit would be taken for a weight, and trained on

    def state_file(self, checkpoint: int, kind: str = "model", *, checked: bool = True) -> StateFile:
        """Return the file of :meth:`state`, whose tensors are read one by one; without ``checked`` for its header."""
        path = state_path(checkpoint, check_name(kind, "state"))
        record = self._state_record(checkpoint, path)
        if record is None:
            raise StoreError(f"{self.path}: {path} was not recorded")
        with _readable(self.place, path):
            return StateFile(self.place, record, checked=checked)

    def has_state(self, checkpoint: int, kind: str = "model") -> bool:
        """Whether :meth:`state` has these tensors; a recording of another tool may have no weights."""
        return self._state_record(checkpoint, state_path(checkpoint, kind)) is not None

    def _state_record(self, checkpoint: int, path: str) -> FileRecord | None:
        self._require(checkpoint)
        commit = next(c for c in self.commits if c.kind == "checkpoint" and c.name == str(checkpoint))
        return next((record for record in commit.files(self.place) if record.path == path), None)

    def _require(self, checkpoint: int) -> None:
        if not 0 <= checkpoint < self.checkpoints:  # beyond lies what a writer may be writing now
            raise StoreError(f"{self.path}: no checkpoint {checkpoint}, there are {self.checkpoints}")


def _elsewhere(place: Place, commit: int, fingerprint: int) -> Run:
    """Open a run in the process that it was sent to."""
    where = f"process {os.getpid()} on {socket.gethostname()}"
    try:
        run = Run(place, commit)
    except StoreError as error:
        raise StoreError(f"{where} does not see the store that it was sent: {error}") from error
    if run.fingerprint != fingerprint:
        raise StoreError(f"{where} sees another store at {place}: all workers need the same files under the same path")
    return run


def decoded(values: np.ndarray[Any, Any], attributes: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return stored values of an array with these attributes as what they mean.

    Those with a ``scale_factor`` are multiplied by it, in float32 where that is as wide; of text, what equals the
    ``missing_value`` is None, as it was missing.
    """
    scale, mark = attributes.get("scale_factor"), attributes.get("missing_value")
    if scale is not None:
        wide = np.result_type(values.dtype, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # of values that are not finite, and of any scale
            return np.asarray(np.multiply(values, wide.type(scale), dtype=wide))
    if mark is not None and values.dtype.kind in "OTU":
        found = values.astype(object)
        found[values == mark] = None
        return found
    return values


def read_block(
    store: Store, schema: Schema, path: str, checkpoint: int, block: int, rows: slice = ALL
) -> np.ndarray[Any, Any]:
    """Return one shard's samples at one checkpoint, as stored: a ``scale_factor`` attribute is not applied.

    It is copied, not mapped: where a disk fails, or a file is cut short, under a map, the process dies without a word.
    What that costs is small beside whatever is done with the values: float16 to float32 takes 6 % longer in shards of
    8 MiB, 30 % in those of 32 (page cache). Of a few samples of a large shard only their chunks are read.
    """
    place, spec = locate(store), schema[path]
    if spec.span > 1:
        chunk = _read_chunk(place, schema, path, checkpoint // spec.span, block)
        return _of_chunk(chunk, spec, schema, checkpoint, block, rows)
    key, samples = _key(schema, path, checkpoint, block), schema.block_slice(block)
    count = samples.stop - samples.start
    start, stop, step = rows.indices(count)
    with _readable(place, key):
        if spec.sample_axis is None or (start, stop, step) == (0, count, 1):
            return shard.decode(place.view(key), spec, schema, count)
        if count * spec.sample_bytes <= PARTLY or step != 1:
            found = shard.decode(place.view(key), spec, schema, count)
            return found[(slice(None),) * spec.sample_axis + (rows,)]
        return shard.select(partial(place.part, key), place.size(key), spec, schema, slice(start, max(start, stop)))


def _key(schema: Schema, path: str, checkpoint: int, block: int) -> str:
    """Return the file of a block at one checkpoint; raise ValueError where the array has no such block."""
    spec = schema[path]
    blocks = 1 if spec.sample_axis is None else schema.blocks
    if not 0 <= block < blocks:
        raise ValueError(f"{path}: block must be below {blocks}, got {block}")
    return metadata.chunk_key(spec, checkpoint, block)


def _read_chunk(place: Place, schema: Schema, path: str, index: int, block: int) -> np.ndarray[Any, Any]:
    """Return the chunk of this index along the checkpoints, as :func:`gathered.decode` does."""
    spec = schema[path]
    key = _key(schema, path, index * spec.span, block)
    with _readable(place, key):
        return gathered.decode(place.read(key), spec, schema)


def _of_chunk(
    chunk: np.ndarray[Any, Any], spec: ArraySpec, schema: Schema, checkpoint: int, block: int, rows: slice
) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = chunk[checkpoint % spec.span]
    if spec.sample_axis is None:
        return found
    samples = schema.block_slice(block)
    before = (slice(None),) * spec.sample_axis
    return found[(*before, slice(samples.stop - samples.start))][(*before, rows)]


def state_path(checkpoint: int, kind: str) -> str:
    """Return where the tensors of one checkpoint lie below the store."""
    return f"checkpoints/{checkpoint:06d}/{kind}.safetensors"


@contextmanager
def _readable(place: Place, path: str) -> Iterator[None]:
    """Turn whatever a library raises about damaged content, which is of any kind, into one line."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise StoreError(f"{place}: {path} cannot be read ({reason}); run: featdyn verify {quoted(place)}") from error
