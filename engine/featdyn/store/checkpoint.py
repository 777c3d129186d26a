"""The files of one checkpoint, written shard by shard and then committed as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from featdyn.errors import StoreError
from featdyn.store import metadata, shard
from featdyn.store.gathered import Gatherer
from featdyn.store.place import Place, disk
from featdyn.store.record import FileRecord
from featdyn.store.schema import Schema, check_name


class CheckpointFiles:
    """Writes files of one checkpoint, the one of number ``index``; methods may be called from several threads.

    ``is_open`` says whether none of its files is published yet for certain: published ones are never touched again.
    """

    def __init__(
        self, place: Place, schema: Schema, index: int, gatherer: Gatherer, is_open: Callable[[], bool]
    ) -> None:
        self.index = index
        self._place, self._schema, self._gatherer, self._is_open = place, schema, gatherer, is_open
        self._guard = threading.Lock()
        self._written: dict[str, FileRecord] = {}

    def write(self, path: str, values: np.ndarray[Any, Any], block: int = 0) -> None:
        """Write one shard: a block of samples with the axes of the array's ``dims``, in the array's dtype.

        Arrays without a sample axis have block 0 alone.
        """
        schema = self._schema
        spec = schema[path]
        blocks = schema.blocks if spec.sample_axis is not None else 1
        if not 0 <= block < blocks:
            raise ValueError(f"{path}: block must be below {blocks}, got {block}")
        expected = list(spec.shape)
        if spec.sample_axis is not None:
            samples = schema.block_slice(block)
            expected[spec.sample_axis] = samples.stop - samples.start
        if list(values.shape) != expected or values.dtype != np.dtype(spec.dtype):
            raise ValueError(
                f"{path}: block {block} must be {spec.dtype} of shape {tuple(expected)}, "
                f"got {values.dtype} of shape {values.shape}"
            )
        if spec.span == 1:
            self._put(metadata.chunk_key(spec, self.index, block), shard.encode(values, spec, schema))
            return
        self._check_open()
        with disk(self._place, self.index):
            record = self._gatherer.add(spec, self.index, block, values)
            self._gatherer.write(spec, block)
        with self._guard:
            self._written[record.path] = record

    def put(self, path: str, pieces: Iterable[bytes]) -> None:
        """Write a file that is no array: tensors, as ``checkpoints/<index>/<kind>.safetensors``."""
        folder, _, name = path.rpartition("/")
        if folder != f"checkpoints/{self.index:06d}" or not check_name(name, "file").endswith(".safetensors"):
            raise ValueError(f"path must be checkpoints/{self.index:06d}/<kind>.safetensors, got {path}")
        self._put(path, pieces)

    def _check_open(self) -> None:
        if not self._is_open():
            raise StoreError(f"{self._place}: checkpoint {self.index} is committed, or its commit failed")

    def _put(self, path: str, pieces: Iterable[bytes]) -> None:
        self._check_open()
        with disk(self._place, self.index):
            record = self._place.write(path, pieces)
        with self._guard:
            self._written[path] = record

    def hand_over(self) -> list[FileRecord]:
        """Return what was written; what becomes of it is for the one who commits it."""
        return list(self._written.values())

    def discard(self) -> None:
        """Give up what was written, unless it may be published: for its room, on a full disk above all."""
        self._give_up(self._written)

    def _give_up(self, paths: Iterable[str]) -> None:
        kept = _keys(self._schema, self.index, begun=True)  # chunks that hold other checkpoints, too
        for path in set(paths) - kept if self._is_open() else ():
            with suppress(OSError, StoreError):
                self._place.give_up(path)


class CheckpointWriter(CheckpointFiles):
    """Writes one checkpoint and, as a context manager, commits it at the end or, after an error, gives it up.

    ``publish`` commits the files that were written.
    """

    def __init__(
        self,
        place: Place,
        schema: Schema,
        index: int,
        gatherer: Gatherer,
        publish: Callable[[list[FileRecord]], None],
        is_open: Callable[[], bool],
    ) -> None:
        super().__init__(place, schema, index, gatherer, is_open)
        self._publish = publish

    def commit(self, handed: Iterable[FileRecord] = ()) -> None:
        """Publish the checkpoint: what was written here, and what other processes wrote and handed over."""
        self._written |= {record.path: record for record in handed}
        missing = sorted(_keys(self._schema, self.index) - set(self._written))
        if missing:
            self.discard()
            raise ValueError(f"checkpoint {self.index} is not complete: {missing[0]} was not written")
        try:
            with disk(self._place, self.index):
                self._publish(list(self._written.values()))
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Give up what was written for this checkpoint, here or by processes that have ended or handed it over."""
        self._give_up(_keys(self._schema, self.index) | self._written.keys())

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.commit()
        else:
            self.discard()


def _keys(schema: Schema, checkpoint: int, *, begun: bool = False) -> set[str]:
    """Return the files of a checkpoint, or those that were begun by an earlier one."""
    return {
        metadata.chunk_key(spec, checkpoint, block)
        for spec in schema.arrays
        if not begun or checkpoint % spec.span
        for block in range(schema.blocks if spec.sample_axis is not None else 1)
    }
