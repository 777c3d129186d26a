"""The only way to change a store: create, resume, commit a checkpoint, commit a result."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from featdyn.errors import StoreError
from featdyn.store import commit, datasets, files, metadata, shard
from featdyn.store.files import FileRecord
from featdyn.store.lock import NAME as LOCK
from featdyn.store.lock import WriterLock
from featdyn.store.metadata import Document
from featdyn.store.schema import Schema, check_name

if TYPE_CHECKING:
    import xarray as xr


class RunWriter:
    """The one writer of a run, as a context manager.

    Nothing is visible before the first checkpoint is committed; a run that fails before that leaves no store behind.
    """

    def __init__(self, path: Path, lock: WriterLock, schema: Schema, attributes: dict[str, Any]) -> None:
        self.path = path
        self.schema = schema
        self.attributes = attributes  # of the root group, without featdyn's own entry
        self.commits: list[commit.Commit] = []
        self._lock = lock
        self._nodes: dict[str, Document] = {}
        self._pending: list[FileRecord] = []  # static files, published by the first commit

    @classmethod
    def create(
        cls,
        path: str | Path,
        schema: Schema,
        *,
        static: Mapping[str, xr.Dataset],
        attributes: Mapping[str, Any],
    ) -> RunWriter:
        """Start a new run.

        Parameters
        ----------
        path
            A folder that does not exist yet, or is empty.
        schema
            The arrays that grow with the checkpoints.
        static
            Coordinates that do not: group path (``""`` for the root) to a dataset of them.
        attributes
            JSON-like description of the run (recipe, provenance, ...), readable as attributes of the root.

        Raises
        ------
        StoreError
            The folder holds something already, cannot be written, or another writer has it.
        """
        root = Path(path)
        if (root / commit.ROOT).exists():
            raise StoreError(f"{root}: a store is there already")
        if root.exists() and (
            not root.is_dir() or (any(p.name != LOCK for p in root.iterdir()) and not _left_over(root))
        ):
            raise StoreError(f"{root}: not empty and not a featdyn store; choose another path")
        with _disk(root):
            root.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(root)
        lock.acquire()
        writer = cls(root, lock, schema, dict(attributes))
        try:
            with _disk(root):
                writer._clear()
                writer._prepare(static)
        except BaseException:
            writer.close()
            raise
        return writer

    @classmethod
    def open(cls, path: str | Path) -> RunWriter:
        """Continue a run from its last commit; what a killed writer left beyond it is overwritten."""
        root = Path(path)
        commit.read_root(root)  # a foreign folder is refused before a lock file appears in it
        lock = WriterLock(root)
        lock.acquire()
        try:
            document = commit.read_root(root)
            attributes = document["attributes"]
            state = attributes.pop(commit.KEY)
            nodes: dict[str, Document] = document["consolidated_metadata"]["metadata"]
            arrays = tuple(metadata.parse_array(p, d) for p, d in nodes.items() if metadata.grows(d))
            schema = Schema(arrays, state["samples"], state["shard_samples"], state["codec"])
            attributes.pop("coordinates", None)
            writer = cls(root, lock, schema, attributes)
            writer.commits = [commit.Commit.parse(entry) for entry in state["commits"]]
            writer._nodes = nodes
            for last in writer.commits[-1:]:
                for record in last.files(root):
                    wrong = files.check(root, record, content=False)
                    if wrong:
                        raise StoreError(f"{root}: {wrong}; run: featdyn verify {root}")
            writer._write_leaves()
        except BaseException:
            lock.release()
            raise
        return writer

    @property
    def checkpoints(self) -> int:
        """Committed checkpoints."""
        return sum(c.kind == "checkpoint" for c in self.commits)

    def checkpoint(self) -> CheckpointWriter:
        """Return a context manager that writes the next checkpoint and commits it when it ends without an error."""
        return CheckpointWriter(self)

    def result(self, name: str, dataset: xr.Dataset) -> str:
        """Commit what an analysis returned, at ``results/<name>/<commit>``; return that path.

        Each result is a node of its own and is never overwritten: a reader of an older one is not disturbed, and the
        newest is the last. A result shares no dimension with the root (``checkpoint``, ``sample``): child dimensions
        must equal the root's, which grow, so such a store could not be opened any more.
        """
        shared = {"checkpoint", "sample"} & {str(d) for d in dataset.dims}
        if shared:
            raise ValueError(f"a result may not have the root's dimensions, got {', '.join(sorted(shared))}")
        path = f"results/{check_name(name, 'result')}/{len(self.commits) + 1:06d}"
        documents, chunks = datasets.encode(dataset, path)
        with _disk(self.path, self.checkpoints):
            written = [files.write(self.path, key, [content]) for key, content in chunks.items()]
            self._publish("result", path, written, documents)
        return path

    def close(self) -> None:
        """Give the lock back; without any commit, remove what was made."""
        if not self.commits:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _clear(self) -> None:
        """Remove what a writer left that was killed before its first commit."""
        for entry in self.path.iterdir():
            if entry.name != LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def _prepare(self, static: Mapping[str, xr.Dataset]) -> None:
        for spec in self.schema.arrays:
            for part in spec.path.split("/"):
                check_name(part, "array")
            self._nodes[spec.path] = metadata.array(spec, self.schema, 0)
        for path, dataset in static.items():
            documents, chunks = datasets.encode(dataset, path)
            documents.pop("", None)
            self._nodes.update(documents)
            self._pending += [files.write(self.path, key, [content]) for key, content in chunks.items()]
        self._nodes = metadata.with_groups(self._nodes)

    def _publish(
        self, kind: commit.Kind, name: str, written: list[FileRecord], added: Mapping[str, Document] | None = None
    ) -> None:
        number = len(self.commits) + 1
        entry = commit.write_manifest(self.path, number, kind, name, [*self._pending, *written])
        commits = [*self.commits, entry]
        checkpoints = sum(c.kind == "checkpoint" for c in commits)
        nodes = metadata.with_groups({**self._nodes, **(added or {})})
        for spec in self.schema.arrays:
            nodes[spec.path] = metadata.array(spec, self.schema, checkpoints)
        files.replace(self.path, commit.ROOT, metadata.encode(metadata.root(self._attributes(nodes, commits), nodes)))
        self.commits, self._nodes, self._pending = commits, nodes, []
        self._write_leaves(None if number == 1 else {*(s.path for s in self.schema.arrays), *(added or {})})

    def _attributes(self, nodes: Mapping[str, Document], commits: list[commit.Commit]) -> dict[str, Any]:
        # xarray makes these variables coordinates; an index variable (named as its own axis) is one anyway.
        coordinates = sorted(p for p, d in nodes.items() if "/" not in p and d.get("dimension_names", [p]) != [p])
        state = {
            "format": commit.FORMAT,
            "samples": self.schema.samples,
            "shard_samples": self.schema.shard_samples,
            "codec": self.schema.codec,
            "commits": [entry.document() for entry in commits],
        }
        return {**self.attributes, "coordinates": " ".join(coordinates), commit.KEY: state}

    def _write_leaves(self, paths: set[str] | None = None) -> None:
        """Write each node's own zarr.json, for readers that open one array by itself.

        After the commit, never before: such a reader must not see a checkpoint that is not committed. They follow from
        the root, so they are not synced and no commit names them; a killed writer's are mended on the next open.
        """
        for path, document in self._nodes.items():
            if paths is None or path in paths:
                files.replace(self.path, f"{path}/{commit.ROOT}", metadata.encode(document), durable=False)


class CheckpointWriter:
    """Writes one checkpoint; methods may be called from several threads."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._guard = threading.Lock()
        self._written: dict[str, FileRecord] = {}
        self.index = writer.checkpoints

    def write(self, path: str, values: np.ndarray[Any, Any], block: int = 0) -> None:
        """Write one shard.

        Parameters
        ----------
        path
            The array, as in the schema.
        values
            One block of samples with the axes of the array's ``dims``, in the array's dtype.
        block
            Which block of samples: 0 for arrays without a sample axis.
        """
        schema = self._writer.schema
        spec = schema[path]
        expected = list(spec.shape)
        if spec.sample_axis is not None:
            samples = schema.block_slice(block)
            expected[spec.sample_axis] = samples.stop - samples.start
        if list(values.shape) != expected or values.dtype != np.dtype(spec.dtype):
            raise ValueError(
                f"{path}: block {block} must be {spec.dtype} of shape {tuple(expected)}, "
                f"got {values.dtype} of shape {values.shape}"
            )
        self.put(metadata.chunk_key(spec, self.index, block), shard.encode(values, spec, schema))

    def put(self, path: str, pieces: Iterable[bytes]) -> None:
        """Write a file that is no array, such as weights, below ``checkpoints/<index>``."""
        with _disk(self._writer.path, self._writer.checkpoints):
            record = files.write(self._writer.path, path, pieces)
        with self._guard:
            self._written[path] = record

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        writer = self._writer
        if error is None:
            missing = sorted(_keys(writer.schema, self.index) - set(self._written))
            if missing:
                raise ValueError(f"checkpoint {self.index} is not complete: {missing[0]} was not written")
            with _disk(writer.path, writer.checkpoints):
                writer._publish("checkpoint", str(self.index), list(self._written.values()))
        else:
            for path in self._written:  # give the room back, on a full disk above all
                with suppress(OSError):
                    (writer.path / path).unlink()


def _keys(schema: Schema, checkpoint: int) -> set[str]:
    return {
        metadata.chunk_key(spec, checkpoint, block)
        for spec in schema.arrays
        for block in range(schema.blocks if spec.sample_axis is not None else 1)
    }


def _left_over(root: Path) -> bool:
    """Whether a folder is what our own writer leaves when it is killed before its first commit."""
    names = {p.name for p in root.iterdir()}
    return LOCK in names and commit.ROOT not in names


@contextmanager
def _disk(root: Path, checkpoints: int = 0) -> Iterator[None]:
    """Turn errors of the file system into one line that says what is safe."""
    try:
        yield
    except OSError as error:
        kept = f"; its {checkpoints} committed checkpoints are safe" if checkpoints else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{root}: the disk is full{kept}: free some room and run the same command again"
            ) from error
        raise StoreError(f"{root}: {error.strerror or error}{kept}") from error
