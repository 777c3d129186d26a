"""The only way to change a store: create, resume, commit a checkpoint, commit a result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featdyn.errors import StoreError
from featdyn.plain import plain
from featdyn.store import datasets, layout, metadata
from featdyn.store import root as roots
from featdyn.store.checkpoint import CheckpointWriter
from featdyn.store.gathered import Gatherer
from featdyn.store.locate import Store, locate
from featdyn.store.lock import is_lock
from featdyn.store.place import Place, beside, disk
from featdyn.store.publish import Publisher, newest
from featdyn.store.record import FileRecord, Version
from featdyn.store.right import WriterLock
from featdyn.store.root import Root
from featdyn.store.schema import Schema

if TYPE_CHECKING:
    import xarray as xr


class RunWriter(Publisher):
    """The one writer of a run, as a context manager; its methods are called from one thread.

    Nothing is visible before the first checkpoint is committed; a run that fails before that leaves no store behind.
    Another process may commit results meanwhile (:func:`commit_result`), between two commits of this one.
    """

    _lock: WriterLock

    def __init__(
        self, place: Place, lock: WriterLock, root: Root, content: bytes = b"", version: Version = None
    ) -> None:
        super().__init__(place, lock, root, content, version)
        rows = root.rows(place)
        self._gatherer = Gatherer(place, root.schema, rows, lambda: place.version(roots.NAME) == self._version)
        self._process = os.getpid()
        self._made = False  # whether the place is ours to remove

    @classmethod
    def create(
        cls, store: Store, schema: Schema, *, static: Mapping[str, xr.Dataset], attributes: Mapping[str, Any]
    ) -> RunWriter:
        """Start a new run.

        Parameters
        ----------
        store
            A folder that does not exist yet, or is empty; or a URL such as ``s3://bucket/run.zarr``.
        static
            Coordinates that do not grow with the checkpoints: group path (``""`` for the root) to a dataset of them.
        attributes
            JSON-like description of the run (recipe, provenance, ...), readable as attributes of the root.

        Raises
        ------
        StoreError
            It holds something already, cannot be written, or another writer has it; or a name that cannot be stored.
        ValueError
            Arrays that do not fit together, or attributes that are not JSON.
        """
        place = locate(store)
        described = _described(attributes)
        _vacant(place)  # before a lock file appears in it
        with disk(place):
            made = place.make()
        writer = cls(place, place.lock(), Root(described, schema, {}))
        writer._made = made
        try:
            writer._lock.acquire()
        except BaseException:
            writer._unmake()
            raise
        try:
            _vacant(place)  # again, now that nobody else can change it
            with disk(place):
                place.clear(lambda path: path != place.fence and layout.is_own(path))
                place.anchor()
                takeovers, writer._version = roots.fenced(place, writer._lock)
                writer._root = replace(writer._root, takeovers=takeovers)
                writer._prepare(static)
        except BaseException:
            writer.close()
            raise
        return writer

    @classmethod
    def open(cls, store: Store) -> RunWriter:
        """Continue a run from its last commit; what a killed writer left beyond it is overwritten."""
        place = locate(store)
        Root.read(place)  # a foreign folder is refused before a lock file appears in it
        lock = place.lock()
        lock.acquire()
        try:
            with beside(place, lock):
                return cls(place, lock, *newest(place, lock))
        except BaseException:
            lock.release()
            raise

    @property
    def schema(self) -> Schema:
        """The arrays that grow with the checkpoints."""
        return self._root.schema

    def checkpoint(self) -> CheckpointWriter:
        """Return a context manager that writes the next checkpoint and commits it when it ends without an error."""
        index = self.checkpoints

        def publish(written: list[FileRecord]) -> None:
            with self._turn():
                self._publish("checkpoint", str(index), written)

        def is_open() -> bool:  # never in a process that was forked from the writer
            return self.checkpoints == index and not self._broken and os.getpid() == self._process

        return CheckpointWriter(self.place, self.schema, index, self._gatherer, publish, is_open)

    def result(self, name: str, dataset: xr.Dataset) -> str:
        """Commit what an analysis returned, at ``results/<name>/<commit>``; return that path.

        Each result is a node of its own and is never overwritten: a reader of an older one is not disturbed, and the
        newest is the last. A result shares no dimension with the root (``checkpoint``, ``sample``): child dimensions
        must equal the root's, which grow, so such a store could not be opened any more.
        """
        with self._turn():
            return self._result(name, dataset)

    def accept(self, what: Mapping[str, tuple[str, str]]) -> None:
        """Put on record, with the next checkpoint, what is no longer as it was: by its name how it was, and how it is.

        A writer that ends before that leaves nothing of it. ``Run.changes`` has it then.
        """
        self._accepted |= {name: list(pair) for name, pair in what.items()}

    def invite(self) -> str:
        """Let other processes write shards too; return the token for their :class:`featdyn.store.RunPart`."""
        self.place.check_several()
        with disk(self.place, self.checkpoints):
            return self._lock.invite()

    def close(self) -> None:
        """Give the lock back; without any commit, remove what was made."""
        try:
            alone = self._lock.alone()  # else another process may be writing yet: its files are for the next writer
            if alone and not self._root.commits and not roots.exists(self.place):
                with suppress(OSError):
                    self.place.clear(layout.is_own)
                    self._lock.remove()
                self._unmake()
        finally:
            self._lock.release()

    def _unmake(self) -> None:
        if self._made:
            with suppress(OSError):
                self.place.unmake()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, static: Mapping[str, xr.Dataset]) -> None:
        nodes = {spec.path: metadata.array(spec, self.schema, 0) for spec in self.schema.arrays}
        if len(nodes) < len(self.schema.arrays):
            raise ValueError("schema has two arrays of the same path")
        contents: dict[str, bytes] = {}
        for path, dataset in static.items():
            documents, chunks = datasets.encode(dataset, path)
            documents.pop("", None)
            twice = sorted(documents.keys() & nodes.keys())
            if twice:
                raise ValueError(f"{twice[0]} is in the schema and in static")
            nodes |= documents
            contents |= chunks
        nodes = metadata.with_groups(nodes)
        for path in nodes:
            if path.split("/")[0] in layout.RESERVED:
                raise StoreError(f"{path!r} cannot be stored: {', '.join(layout.RESERVED)} are taken")
        layout.check(nodes)
        self._root = replace(self._root, nodes=nodes)
        self._root.encode()  # what is not JSON fails here, before anything is written
        self._pending = self._write_all(contents)


def _described(attributes: Mapping[str, Any]) -> dict[str, Any]:
    taken = {roots.KEY, "coordinates"} & attributes.keys()
    if taken:
        raise ValueError(f"attributes may not hold {', '.join(sorted(taken))}: the store does")
    try:
        described: dict[str, Any] = plain(attributes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"attributes must be JSON: {error}") from error
    return described


def _vacant(place: Place) -> None:
    """Raise unless a run can start here: nothing there, or only what a writer killed before its first commit left."""
    with disk(place):  # before the root is looked for: a first commit may just come
        empty, files = place.empty(), place.listing()
    if roots.exists(place):
        raise StoreError(f"{place}: a store is there already")
    if layout.is_run(files, place.fence):
        raise roots.missing(place)
    begun = place.fence in files or (files and all(map(is_lock, files)))
    if not empty and not (begun and layout.foreign(files) is None):
        raise StoreError(f"{place}: not empty and not a featdyn store; choose another path")
