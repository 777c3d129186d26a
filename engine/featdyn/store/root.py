"""The root ``zarr.json``: all that a reader needs to know, in the one file whose replacement is a commit."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from featdyn.errors import StoreError
from featdyn.output import quoted
from featdyn.store import layout, metadata, seal
from featdyn.store.change import Change
from featdyn.store.commit import DROPPED, NOTHING, Commit, Manifest
from featdyn.store.commit_list import list_from, listed, takes_over
from featdyn.store.gathered import Rows
from featdyn.store.locate import Store, locate
from featdyn.store.metadata import Document
from featdyn.store.place import Place, disk
from featdyn.store.record import Version
from featdyn.store.right import Lock
from featdyn.store.schema import Schema

NAME = "zarr.json"
COPY = "commits/root.json"  # the root once more, for a repair; it may be one commit behind
KEY = "featdyn"  # the root attribute that holds what is ours
FORMAT = 3
_SEAL = "root_crc32c"
_FENCE = b'{"takeovers": '
LARGEST = 2**26  # bytes of a chunk that gathers checkpoints: what each reading of it needs
_LOOKED = 10_000  # files at most that are looked at to see whether a folder without a root was a run


@dataclass(frozen=True)
class Root:
    """What the root says of a run."""

    attributes: dict[str, Any]  # of the run, as its writer gave them
    schema: Schema
    nodes: dict[str, Document]  # all groups and arrays below the root: path to zarr.json
    commits: tuple[Commit, ...] = ()  # oldest first
    takeovers: int = 0
    """Of a writer in a bucket from one whose lease ran out; it tells roots apart that are else equal."""
    format: int = FORMAT
    start: int = 1
    """The first commit that it lists itself. The manifest of this one lists those before it, back to ..."""
    since: int = 1
    """... the first of the list that the next such manifest will hold."""
    changes: tuple[Change, ...] = ()  # that were accepted when it was continued, oldest first

    @cached_property
    def checkpoints(self) -> int:
        """Committed checkpoints: not counted, which would grow with them, as they are numbered without gaps from 0."""
        return next((int(c.name) + 1 for c in reversed(self.commits) if c.kind == "checkpoint"), 0)

    def after(self, entry: Commit, added: Mapping[str, Document]) -> Root:
        """Return the root after one more commit, which may add nodes."""
        after = replace(self, commits=(*self.commits, entry), nodes={**self.nodes, **added})
        if self.log(entry.number) and entry.kind != DROPPED:
            after = replace(after, start=entry.number, since=list_from(entry.number, self.since))
        return after.grown()

    def told(self, manifest: Manifest) -> Root:
        """Return the root with what the manifest of its last commit says besides."""
        changes = self.changes if manifest.change is None else (*self.changes, manifest.change)
        return replace(self, format=max(self.format, manifest.format), changes=changes)

    def log(self, number: int) -> tuple[Commit, ...]:
        """Return the commits that the manifest of the next commit, of this number, lists for the root."""
        return self.commits[self.since - 1 :] if self.format > 1 and takes_over(number) else ()

    @classmethod
    def first(cls, entry: Commit, run: Mapping[str, Any]) -> Root:
        """Return the root after the first commit, of what :meth:`description` returned before it."""
        arrays = tuple(metadata.parse_array(path, d) for path, d in run["nodes"].items() if metadata.grows(d))
        schema = Schema(arrays, run["samples"], run["shard_samples"], run["codec"])
        return cls(run["attributes"], schema, {}, format=run.get("format", 1)).after(entry, run["nodes"])

    def description(self) -> dict[str, Any]:
        """Return what it says but for its commits, and for what two equal runs have not in common."""
        schema = self.schema
        return {
            "attributes": {name: value for name, value in self.attributes.items() if name != "provenance"},
            "samples": schema.samples,
            "shard_samples": schema.shard_samples,
            "codec": schema.codec,
            "nodes": {path: self.nodes[path] for path in sorted(self.nodes)},
        } | ({"format": self.format} if self.format > 1 else {})

    def rows(self, place: Place) -> dict[str, Rows]:
        """Return what the newest checkpoint's manifest says of the chunks that it is gathered in, by their paths."""
        if all(spec.span == 1 for spec in self.schema.arrays) or not self.commits:
            return {}
        newest = next(c for c in reversed(self.commits) if c.kind == "checkpoint")
        return {record.path: record for record in newest.listing(place).rows}

    def holds(self, commits: Iterable[Commit]) -> bool:
        """Whether all checkpoints among these commits are in it, byte for byte."""
        mine, theirs = ([c for c in some if c.kind == "checkpoint"] for some in (self.commits, commits))
        return mine[: len(theirs)] == theirs

    def lost(self, damaged: Collection[int]) -> tuple[Commit, ...]:
        """Return the commits that cannot stay when those of these numbers are damaged.

        A checkpoint takes all later ones with it, as training cannot go on across a gap, and what was computed from any
        of them; a result nothing but itself.
        """
        first = min((c.number for c in self.commits if c.kind == "checkpoint" and c.number in damaged), default=None)

        def stands(commit: Commit) -> bool:
            if commit.number in damaged:
                return False
            return first is None or (commit.number if commit.kind == "checkpoint" else self._input(commit)) < first

        return tuple(c for c in self.commits if c.kind != DROPPED and not stands(c))

    def _input(self, commit: Commit) -> int:
        """Return the commit that a result was computed from: the one before it, where it does not say."""
        found = self.nodes.get(commit.name, {}).get("attributes", {}).get("input_commit")
        return found if isinstance(found, int) else commit.number - 1

    def without(self, lost: Collection[Commit]) -> Root:
        """Return the root without these commits, as it was before them.

        What stays keeps its number: an entry that lists no files holds the place of what was dropped before it.
        """
        commits = [replace(c, kind=DROPPED, manifest=NOTHING) if c in lost else c for c in self.commits]
        while commits and commits[-1].kind == DROPPED:
            commits.pop()
        results = [c.name for c in commits if c.kind == "result"]
        kept = {path for name in results for path in ("results", name.rpartition("/")[0], name)}
        nodes = {
            path: document
            for path, document in self.nodes.items()
            if path.split("/")[0] != "results" or "/".join(path.split("/")[:3]) in kept
        }
        stays = self.start <= len(commits) and tuple(commits) == self.commits[: len(commits)]  # what manifests list
        start, since = (self.start, self.since) if stays else (1, 1)
        stand = {c.number for c in commits if c.kind != DROPPED}
        changes = tuple(change for change in self.changes if change.commit in stand)
        after = replace(self, commits=tuple(commits), nodes=nodes, start=start, since=since, changes=changes)
        return after.grown()

    def until(self, number: int) -> Root:
        """Return the root as of the commit of this number."""
        return self.without(self.commits[number:])

    def grown(self) -> Root:
        """Return this root with the groups that lead to its nodes, and arrays as long as it has checkpoints."""
        grown = {spec.path: metadata.array(spec, self.schema, self.checkpoints) for spec in self.schema.arrays}
        return replace(self, nodes=metadata.with_groups({**self.nodes, **grown}))

    def group_attributes(self) -> dict[str, Any]:
        """Return the attributes of the root group: ours, the run's own, and what xarray needs."""
        # xarray makes these variables coordinates; an index variable (named as its own axis) is one anyway.
        loose = sorted(p for p, d in self.nodes.items() if "/" not in p and d.get("dimension_names", [p]) != [p])
        state = {
            "format": self.format,
            "samples": self.schema.samples,
            "shard_samples": self.schema.shard_samples,
            "codec": self.schema.codec,
            "commits": [entry.document for entry in self.commits[self.start - 1 :]],
        }
        if self.takeovers:
            state["takeovers"] = self.takeovers
        if self.changes:
            state["changes"] = [asdict(change) for change in self.changes]
        return {KEY: state, **self.attributes, "coordinates": " ".join(loose)}

    def encode(self) -> bytes:
        """Return the content of the file, with the checksum of its own bytes, those eight digits as zeros."""
        attributes = self.group_attributes()
        attributes[KEY] = {_SEAL: seal.UNSET, **attributes[KEY]}
        return seal.seal(metadata.encode(metadata.root(attributes, self.nodes)), _SEAL)

    @classmethod
    def read(cls, store: Store) -> Root:
        """Return the root of a store."""
        place = locate(store)
        return cls.decode(read(place), place)

    @classmethod
    def decode(cls, content: bytes, store: Store) -> Root:
        """Return what :meth:`encode` wrote, or raise one clear :class:`StoreError`."""
        place = locate(store)
        try:
            document = json.loads(content)
            attributes = document["attributes"]
            state = attributes.pop(KEY)
            version = state["format"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            what = _changed(content, place) or f"not a featdyn store, or its {NAME} is damaged"
            raise StoreError(f"{place}: {what}{_help(place)}") from None
        if not isinstance(version, int) or version > FORMAT:
            raise StoreError(f"{place}: format {version} is newer than this featdyn reads ({FORMAT}): update featdyn")
        try:
            if not intact(content):
                raise ValueError("checksum")
            attributes.pop("coordinates")
            nodes = document["consolidated_metadata"]["metadata"]
            arrays = tuple(metadata.parse_array(p, d) for p, d in nodes.items() if metadata.grows(d))
            schema = Schema(arrays, state["samples"], state["shard_samples"], state["codec"])
            commits, start, since = listed(place, state["commits"])
            _check(schema, nodes, commits)
            changes = tuple(Change.parse(change) for change in state.get("changes", ()))
            takeovers = state.get("takeovers", 0)
            if not isinstance(takeovers, int):
                raise ValueError("takeovers")
            with disk(place):
                for path in nodes:
                    place.inside(path)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            what = _changed(content, place) or f"its {NAME} is damaged"
            raise StoreError(f"{place}: {what}{_help(place)}") from None
        return cls(attributes, schema, nodes, commits, takeovers, version, start, since, changes)


def read(place: Place) -> bytes:
    """Return the content of the root of a store."""
    return fetch(place)[0]


def fetch(place: Place) -> tuple[bytes, Version]:
    """Return the content of the root of a store, and which version of the file that is."""
    with disk(place):
        found = place.fetch(NAME)
        if found is not None and not found[0].startswith(_FENCE):
            return found
        there = place.there()
    if lost(place):
        raise missing(place)
    hint = "not a featdyn store, or one whose first checkpoint never came" if there else place.absent
    hint += f"; there is one inside: {inside}" if there and (inside := _inside(place)) else ""
    raise StoreError(f"{place}: {hint}")


def _inside(place: Place) -> str:
    """Return the stores that lie in a folder, in words, or nothing; in a bucket nobody looks."""
    if not isinstance(place.path, Path) or not place.path.is_dir():
        return ""
    with disk(place):
        within = islice(sorted(path.parent for path in place.path.glob(f"*/{NAME}")), _LOOKED)
        found = [str(path) for path in within if exists(path) and (path / "commits").is_dir()]
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def exists(store: Store) -> bool:
    """Whether there is a store, or something else that has a root ``zarr.json``."""
    place = locate(store)
    with disk(place):
        found = place.fetch(NAME)
    return found is not None and not found[0].startswith(_FENCE)


def lost(place: Place) -> bool:
    """Whether this was a store, and its root is gone: what else it holds tells."""
    with disk(place):
        names = {path for path, _ in islice(place.walk(), _LOOKED)}
    return layout.is_run(names, place.fence) and not exists(place)  # in this order: a first commit may just have come


def missing(place: Place) -> StoreError:
    """Return what to say of a run that has lost its root."""
    return StoreError(f"{place}: its {NAME} is missing; run: featdyn verify {quoted(place)} --repair")


def owned(place: Place, lock: Lock) -> tuple[Root, bytes, Version]:
    """Return the root, its content and its version, for who has just got the lock and will write.

    Where the writer before may be about to replace the root, as it believes that it holds the lock, the root gets
    another version first: what that writer would name may be what is written anew, or removed, from now on.
    """
    content, version = fetch(place)
    root = Root.decode(content, place)
    if lock.taken_over:
        root = replace(root, takeovers=root.takeovers + 1)
        content = root.encode()
        with disk(place, root.checkpoints):
            version = place.publish(NAME, content, version)
    return root, content, version


def repeat(place: Place, content: bytes, nodes: Mapping[str, Document], *, durable: bool = False) -> None:
    """Write what follows from a root of this content: its copy, and these nodes' own zarr.json.

    After a commit, never before: who opens one array by itself must not see a checkpoint that is not committed. No
    commit names these files; a killed writer's are mended on the next open.
    """
    place.publish(COPY, content, place.version(COPY), durable=durable)

    def write(path: str) -> None:
        place.replace(f"{path}/{NAME}", metadata.encode(nodes[path]), durable=False)

    for _ in place.each(write, nodes):
        pass


def fenced(place: Place, lock: Lock) -> tuple[int, Version]:
    """Say where the root will be that no commit has come yet; return takeovers and version, as :func:`owned` does.

    The first commit replaces this, so that without it files are those of a run, whatever has become of its root.
    """
    content, version = place.fetch(place.fence) or (b"", None)
    begun = content.startswith(_FENCE)
    takeovers = (int(content[len(_FENCE) : -1]) if begun else 0) + lock.taken_over
    if lock.taken_over or not begun:  # another version than what the writer before expects, too
        version = place.begin(_FENCE + b"%d}" % takeovers, version)
    return takeovers, version


def intact(content: bytes) -> bool:
    """Whether these are the bytes of a root, as its checksum says."""
    return seal.intact(content, _SEAL)


def _check(schema: Schema, nodes: Mapping[str, Document], commits: tuple[Commit, ...]) -> None:
    """Raise ValueError or TypeError unless commits and arrays go together as SPEC.md says."""
    names = [c.name for c in commits if c.kind == "checkpoint"]
    if [c.number for c in commits] != list(range(1, len(commits) + 1)) or names != [str(t) for t in range(len(names))]:
        raise ValueError("commits out of order")
    if not commits or commits[0].kind != "checkpoint":
        raise ValueError("the first commit is no checkpoint")
    if any(not isinstance(document.get("attributes", {}), dict) for document in nodes.values()):
        raise ValueError("attributes that are none")
    for spec in schema.arrays:
        lengths = (*spec.shape, spec.span, schema.samples, schema.shard_samples, schema.chunk_samples(spec))
        if any(not isinstance(n, int) or n < 1 for n in lengths) or schema.shard_samples % lengths[-1]:
            raise ValueError(f"{spec.path}: lengths that cannot be")
        if spec.span > 1 and spec.span * schema.row_bytes(spec) > LARGEST:
            raise ValueError(f"{spec.path}: gathers too much")
        if nodes[spec.path]["shape"][0] != len(names):
            raise ValueError(f"{spec.path}: another length than commits")


def rewritten(content: bytes) -> bool:
    """Whether another program wrote this: JSON that is not indented by one space, as ours is for all that it begins."""
    try:
        return not content.startswith(b'{\n "') and isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _changed(content: bytes, place: Place) -> str:
    """Return what to say of a root that another program has written, else nothing."""
    if not rewritten(content) or not place.exists(COPY):
        return ""
    return f"another program has changed its {NAME} (as zarr and xarray do when they write there); nothing is lost"


def _help(place: Place) -> str:
    with disk(place):
        proof = place.exists(COPY) or any(place.exists(Manifest.path(1, compacted=new)) for new in (False, True))
    return f"; run: featdyn verify {quoted(place)} --repair" if proof else ""
