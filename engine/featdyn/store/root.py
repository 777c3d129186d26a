"""The root ``zarr.json``: all that a reader needs to know, in the one file whose replacement is a commit."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featdyn.errors import StoreError
from featdyn.store import files, metadata
from featdyn.store.commit import DROPPED, NOTHING, Commit
from featdyn.store.metadata import Document
from featdyn.store.schema import Schema

NAME = "zarr.json"
COPY = "commits/root.json"  # the root once more, for a repair; it may be one commit behind
KEY = "featdyn"  # the root attribute that holds what is ours
FORMAT = 1
_CHECKSUM = re.compile(rb'"root_crc32c": "([0-9a-f]{8})"')
_UNSET = b'"root_crc32c": "00000000"'


@dataclass(frozen=True)
class Root:
    """What the root says of a run.

    Attributes
    ----------
    attributes
        Of the run, as its writer gave them.
    schema
        The arrays that grow with the checkpoints.
    nodes
        All groups and arrays below the root: path to ``zarr.json``.
    commits
        Oldest first.
    """

    attributes: dict[str, Any]
    schema: Schema
    nodes: dict[str, Document]
    commits: tuple[Commit, ...] = ()

    @property
    def checkpoints(self) -> int:
        """Committed checkpoints."""
        return sum(c.kind == "checkpoint" for c in self.commits)

    def after(self, entry: Commit, added: Mapping[str, Document]) -> Root:
        """Return the root after one more commit, which may add nodes."""
        return replace(self, commits=(*self.commits, entry), nodes={**self.nodes, **added})._grown()

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
        return replace(self, commits=tuple(commits), nodes=nodes)._grown()

    def _grown(self) -> Root:
        """Return this root with the groups that lead to its nodes, and arrays as long as it has checkpoints."""
        grown = {spec.path: metadata.array(spec, self.schema, self.checkpoints) for spec in self.schema.arrays}
        return replace(self, nodes=metadata.with_groups({**self.nodes, **grown}))

    def group_attributes(self) -> dict[str, Any]:
        """Return the attributes of the root group: ours, the run's own, and what xarray needs."""
        # xarray makes these variables coordinates; an index variable (named as its own axis) is one anyway.
        loose = sorted(p for p, d in self.nodes.items() if "/" not in p and d.get("dimension_names", [p]) != [p])
        state = {
            "format": FORMAT,
            "samples": self.schema.samples,
            "shard_samples": self.schema.shard_samples,
            "codec": self.schema.codec,
            "commits": [entry.document() for entry in self.commits],
        }
        return {KEY: state, **self.attributes, "coordinates": " ".join(loose)}

    def encode(self) -> bytes:
        """Return the content of the file, with the checksum of its own bytes, those eight digits as zeros."""
        attributes = self.group_attributes()
        attributes[KEY] = {"root_crc32c": "00000000", **attributes[KEY]}
        content = metadata.encode(metadata.root(attributes, self.nodes))
        return content.replace(_UNSET, b'"root_crc32c": "%08x"' % files.crc32c(content), 1)

    @classmethod
    def read(cls, store: Path) -> Root:
        """Return the root of a store."""
        return cls.decode(read(store), store)

    @classmethod
    def decode(cls, content: bytes, store: Path) -> Root:
        """Return what :meth:`encode` wrote, or raise one clear :class:`StoreError`."""
        try:
            document = json.loads(content)
            attributes = document["attributes"]
            state = attributes.pop(KEY)
            version = state["format"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise StoreError(f"{store}: not a featdyn store, or its {NAME} is damaged{_help(store)}") from None
        if not isinstance(version, int) or version > FORMAT:
            raise StoreError(f"{store}: format {version} is newer than this featdyn reads ({FORMAT}): update featdyn")
        try:
            if not intact(content):
                raise ValueError("checksum")
            attributes.pop("coordinates")
            nodes = document["consolidated_metadata"]["metadata"]
            arrays = tuple(metadata.parse_array(p, d) for p, d in nodes.items() if metadata.grows(d))
            schema = Schema(arrays, state["samples"], state["shard_samples"], state["codec"])
            commits = tuple(Commit.parse(entry) for entry in state["commits"])
            _check(schema, nodes, commits)
            for path in nodes:
                files.inside(store, path)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise StoreError(f"{store}: its {NAME} is damaged{_help(store)}") from None
        return cls(attributes, schema, nodes, commits)


def read(store: Path) -> bytes:
    """Return the content of the root of a store."""
    try:
        return (store / NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if lost(store):
            raise StoreError(f"{store}: its {NAME} is missing{_help(store)}") from None
        hint = "not a featdyn store, or one whose first checkpoint never came" if store.exists() else "no such folder"
        raise StoreError(f"{store}: {hint}") from None
    except OSError as error:
        raise StoreError(f"{store}: {error.strerror}") from error


def lost(store: Path) -> bool:
    """Whether this was a store, and its root is gone: there is a copy, which nobody writes before the first commit."""
    return not files.exists(store, NAME) and files.exists(store, COPY)


def write_leaves(store: Path, nodes: Mapping[str, Document]) -> None:
    """Write nodes' own zarr.json, for readers that open one array by itself.

    After a commit, never before: such a reader must not see a checkpoint that is not committed. They follow from the
    root, so they are not synced and no commit names them; a killed writer's are mended on the next open.
    """
    for path, document in nodes.items():
        files.replace(store, f"{path}/{NAME}", metadata.encode(document), durable=False)


def intact(content: bytes) -> bool:
    """Whether these are the bytes of a root, as its checksum says."""
    found = _CHECKSUM.search(content)  # the first: ours is the first attribute
    return found is not None and int(found[1], 16) == files.crc32c(content.replace(found[0], _UNSET, 1))


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
        lengths = (*spec.shape, schema.samples, schema.shard_samples, schema.chunk_samples(spec))
        if any(not isinstance(n, int) or n < 1 for n in lengths) or schema.shard_samples % lengths[-1]:
            raise ValueError(f"{spec.path}: lengths that cannot be")
        if nodes[spec.path]["shape"][0] != len(names):
            raise ValueError(f"{spec.path}: another length than commits")


def _help(store: Path) -> str:
    return f"; run: featdyn verify {store} --repair" if files.exists(store, COPY) else ""
