"""Publish a commit in one's turn, from the root as it is by then: a writer's checkpoints, and anybody's results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from featdyn.errors import StoreError
from featdyn.output import quoted
from featdyn.store import commit, datasets, layout, metadata
from featdyn.store import root as roots
from featdyn.store.change import Change
from featdyn.store.gathered import WrittenRow
from featdyn.store.locate import Store
from featdyn.store.metadata import Document
from featdyn.store.parity import grouped
from featdyn.store.place import Place, beside, disk
from featdyn.store.reader import Run
from featdyn.store.record import FileRecord, Version
from featdyn.store.right import Lock
from featdyn.store.root import FORMAT, Root
from featdyn.store.salvage import copies
from featdyn.store.schema import check_name

if TYPE_CHECKING:
    import xarray as xr

LOG = logging.getLogger("featdyn")
RESULT_WAITS = 60.0  # seconds, for who publishes, before the commit of a result is given up


class Publisher:
    """Who has a lock (the writer's, or the turn itself), the root that it was last seen to have, and what it adds.

    ``root``, ``content`` and ``version`` are what :func:`newest` returned.
    """

    def __init__(self, place: Place, lock: Lock, root: Root, content: bytes = b"", version: Version = None) -> None:
        self.place = place
        self.path = place.path
        self._lock = lock
        self._root, self._content, self._version = root, content, version
        self._pending: list[FileRecord] = []  # static files, published by the first commit
        self._accepted: dict[str, list[str]] = {}  # changes that the next checkpoint's commit puts on record
        self._behind: dict[str, Document] = {}  # nodes whose own files may not have followed the root
        self._broken = False  # whether a commit failed half-way, so that only the place knows if it was published

    @property
    def checkpoints(self) -> int:
        """Committed checkpoints."""
        return self._root.checkpoints

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the right to publish, and go on from the root as it is now: others may have committed results."""
        with disk(self.place, self.checkpoints), beside(self.place, self._lock) as others:
            if self._broken:
                raise StoreError(f"{self.path}: the commit before failed: open the store again")
            if others and self._root.commits:
                self._catch_up()
            if self._behind:
                self._repeat()
            yield

    def _catch_up(self) -> None:
        found = self.place.fetch(roots.NAME)
        if found is not None and found[0] == self._content:
            return
        if found is not None and roots.intact(found[0]):
            root = Root.decode(found[0], self.place)
        else:  # another program changed it, or removed it: what we know, or more, is in its copy
            _, root = next(copies(self.place, found and found[0]), ("", self._root))
            if len(root.commits) < len(self._root.commits):
                root = self._root
        mine = self._root.commits
        if root.commits[: len(mine)] != mine or root.checkpoints != self.checkpoints:
            raise StoreError(f"{self.path}: another writer has changed it meanwhile: open the store again")
        self._behind |= {path: d for path, d in root.nodes.items() if self._root.nodes.get(path) != d}
        self._root, self._content = root, root.encode()

    def _result(self, name: str, dataset: xr.Dataset) -> str:
        """Write and publish a result in one's turn; see :meth:`result`."""
        shared = {"checkpoint", "sample"} & {str(d) for d in dataset.dims}
        if shared:
            raise ValueError(f"a result may not have the root's dimensions, got {', '.join(sorted(shared))}")
        if not self._root.commits:
            raise ValueError("a run without checkpoints has no results")
        path = f"results/{check_name(name, 'result')}/{len(self._root.commits) + 1:06d}"
        documents, chunks = datasets.encode(dataset, path)
        layout.check({**self._root.nodes, **documents})
        for document in documents.values():
            metadata.encode(document)  # attributes that are not JSON fail here, before anything is written
        with disk(self.place, self.checkpoints):
            self._publish("result", path, self._write_all(chunks), documents)
        return path

    def _publish(
        self, kind: commit.Kind, name: str, written: list[FileRecord], added: Mapping[str, Document] | None = None
    ) -> None:
        self._broken = True
        number = len(self._root.commits) + 1
        last = next((c.manifest.crc32c for c in reversed(self._root.commits) if c.kind == "checkpoint"), None)
        run = self._root.description() if number == 1 else None
        rows = tuple(record for record in written if isinstance(record, WrittenRow))
        written = [record for record in written if not isinstance(record, WrittenRow)]
        what, files = self._accepted if kind == "checkpoint" else {}, (*self._pending, *written)
        manifest = commit.Manifest(
            number, kind, name, last, files, grouped(rows), self._root.log(number), run,
            change=Change(number, _now(), what) if what else None,
            format=FORMAT if self._root.format > 1 else 1,
        )  # fmt: skip
        entry = commit.write_manifest(self.place, manifest)
        before, after = self._root.nodes if number > 1 else {}, self._root.after(entry, added or {}).told(manifest)
        content = after.encode()
        try:
            self._version = self.place.publish(roots.NAME, content, self._version, label=entry.label)
        except OSError:
            begun = [record for record in rows if record.size == record.length]  # chunks of this checkpoint alone
            self._give_up([*written, *begun, entry.manifest], content)
            raise
        self._root, self._content, self._pending, self._broken = after, content, [], False
        self._accepted = {} if what else self._accepted
        self._behind |= {path: d for path, d in after.nodes.items() if before.get(path) != d}
        try:
            self._repeat()
        except (OSError, StoreError) as error:  # it is committed: what only follows is written before the next one
            why = getattr(error, "strerror", None) or error
            LOG.warning("%s: %s is committed; its copies could not be written yet (%s)", self.path, entry.label, why)

    def _give_up(self, written: list[FileRecord], content: bytes) -> None:
        """Give the room of these files back, if the root is not what would name them; a bucket keeps them anyway."""
        with suppress(OSError, StoreError):
            found = self.place.fetch(roots.NAME)
            for record in written if found is None or found[0] != content else ():
                self.place.give_up(record.path)

    def _repeat(self) -> None:
        roots.repeat(self.place, self._content, self._behind)
        self._behind = {}

    def _write_all(self, contents: Mapping[str, bytes]) -> list[FileRecord]:
        return list(self.place.each(lambda item: self.place.write(item[0], [item[1]]), contents.items()))


def commit_result(run: Run | Store, name: str, dataset: xr.Dataset, patience: float = RESULT_WAITS) -> str:
    """Commit what anybody made of a run, also while a training goes on with it; return the result's path.

    As :meth:`RunWriter.result`, but nothing is held before or after: in a folder two analyses that end at once, or one
    and a training's checkpoint, follow each other. A writer in a bucket holds its lease to its end.

    Parameters
    ----------
    run
        The run that it was made of, whose last commit's number becomes the attribute ``input_commit``; or a store,
        which is opened for it: then it was made of all that the store holds now.
    name
        Of the analysis: the result lies at ``results/<name>/<commit>``, and ``featdyn query`` and :meth:`Run.result`
        find it.
    dataset
        Of any dimensions but ``checkpoint`` and ``sample``, which are the run's and grow: call pairs of checkpoints
        ``t1`` and ``t2``, samples ``probe``.

    Raises
    ------
    StoreError
        No store, another process keeps the right to publish for ``patience`` seconds, the store cannot be written, or
        it does not hold the checkpoints of ``run`` any more; or a name that cannot be stored.
    ValueError
        A dataset with one of these dimensions, or attributes that are not JSON.

    Examples
    --------
    >>> dataset = xr.Dataset({"margin": ("t", [0.1, 0.2])})
    >>> featdyn.commit_result("run.zarr", "margins", dataset)  # doctest: +ELLIPSIS
    'results/margins/...'
    >>> featdyn.open_run("run.zarr").result("margins")["margin"].values
    array([0.1, 0.2])
    """
    run = run if isinstance(run, Run) else Run(run)
    place = copy(run.place)
    Root.read(place)  # what is no store is refused before a lock file appears in it
    turn = place.turn()
    turn.acquire(patience)
    try:
        root, content, version = newest(place, turn)
        if not root.holds(run.commits):
            raise StoreError(f"{place}: its checkpoints were replaced while {name} was computed: run it again")
        publisher = Publisher(place, turn, root, content, version)
        return publisher._result(name, dataset.assign_attrs(input_commit=run.commits[-1].number))
    finally:
        turn.release()


def newest(place: Place, lock: Lock) -> tuple[Root, bytes, Version]:
    """Return the root, its content and version, for who has just got a lock; mend what a killed writer left behind."""
    root, content, version = roots.owned(place, lock)
    with disk(place, root.checkpoints):
        wrong = place.incomplete(root.commits[-1].listing(place))
        if wrong:
            raise StoreError(f"{place}: {wrong}; run: featdyn verify {quoted(place)}")
        roots.repeat(place, content, root.nodes)
    return root, content, version


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
