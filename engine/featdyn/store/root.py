"""The root ``zarr.json``: all that a reader needs to know, in the one file whose replacement is a commit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from featdyn.errors import StoreError
from featdyn.store import metadata
from featdyn.store.commit import Commit
from featdyn.store.locate import Store, locate
from featdyn.store.metadata import Document
from featdyn.store.place import Place, Version, crc32c, disk
from featdyn.store.schema import Schema

NAME = "zarr.json"
KEY = "featdyn"  # the root attribute that holds what is ours
FORMAT = 1
_CHECKSUM = re.compile(rb'"root_crc32c": "([0-9a-f]{8})"')
_UNSET = b'"root_crc32c": "00000000"'
_FENCE = b'{"takeovers": '


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
    takeovers
        How often a writer in a bucket took over from one whose lease ran out; it tells roots apart that are else equal.
    """

    attributes: dict[str, Any]
    schema: Schema
    nodes: dict[str, Document]
    commits: tuple[Commit, ...] = ()
    takeovers: int = 0

    @property
    def checkpoints(self) -> int:
        """Committed checkpoints."""
        return sum(c.kind == "checkpoint" for c in self.commits)

    def after(self, entry: Commit, added: Mapping[str, Document]) -> Root:
        """Return the root after one more commit, which may add nodes."""
        found = replace(self, commits=(*self.commits, entry))
        grown = {spec.path: metadata.array(spec, self.schema, found.checkpoints) for spec in self.schema.arrays}
        return replace(found, nodes=metadata.with_groups({**self.nodes, **added, **grown}))

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
        } | ({"takeovers": self.takeovers} if self.takeovers else {})
        return {KEY: state, **self.attributes, "coordinates": " ".join(loose)}

    def encode(self) -> bytes:
        """Return the content of the file, with the checksum of its own bytes, those eight digits as zeros."""
        attributes = self.group_attributes()
        attributes[KEY] = {"root_crc32c": "00000000", **attributes[KEY]}
        content = metadata.encode(metadata.root(attributes, self.nodes))
        return content.replace(_UNSET, b'"root_crc32c": "%08x"' % crc32c(content), 1)

    @classmethod
    def read(cls, store: Store) -> Root:
        """Return the root of a store."""
        place = locate(store)
        return cls.decode(read(place), place)

    @classmethod
    def decode(cls, content: bytes, store: Store) -> Root:
        """Return what :meth:`encode` wrote, or raise one clear :class:`StoreError`."""
        try:
            document = json.loads(content)
            attributes = document["attributes"]
            state = attributes.pop(KEY)
            version = state["format"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreError(f"{store}: not a featdyn store, or its {NAME} is damaged") from None
        if not isinstance(version, int) or version > FORMAT:
            raise StoreError(f"{store}: format {version} is newer than this featdyn reads ({FORMAT}): update featdyn")
        try:
            if not _intact(content):
                raise ValueError("checksum")
            attributes.pop("coordinates")
            nodes = document["consolidated_metadata"]["metadata"]
            arrays = tuple(metadata.parse_array(p, d) for p, d in nodes.items() if metadata.grows(d))
            schema = Schema(arrays, state["samples"], state["shard_samples"], state["codec"])
            commits = tuple(Commit.parse(entry) for entry in state["commits"])
            if not commits:
                raise ValueError("no commit")
            takeovers = int(state.get("takeovers", 0))
            place = locate(store)
            for path in nodes:
                place.inside(path)
        except (ValueError, KeyError, TypeError, IndexError):
            raise StoreError(f"{store}: its {NAME} is damaged") from None
        return cls(attributes, schema, nodes, commits, takeovers)


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
    hint = "not a featdyn store, or one whose first checkpoint never came" if there else place.absent
    raise StoreError(f"{place}: {hint}")


def exists(store: Store) -> bool:
    """Whether there is a store, or something else that has a root ``zarr.json``."""
    place = locate(store)
    with disk(place):
        found = place.fetch(NAME)
    return found is not None and not found[0].startswith(_FENCE)


def fence(takeovers: int) -> bytes:
    """Return what stands in place of a root while there is no commit, to change the version that a writer expects."""
    return _FENCE + b"%d}" % takeovers


def fenced(place: Place) -> tuple[int, Version]:
    """Return the number in what :func:`fence` returned, 0 when it is not there, and its version."""
    content, version = place.fetch(NAME) or (b"", None)
    return (int(content[len(_FENCE) : -1]) if content.startswith(_FENCE) else 0), version


def _intact(content: bytes) -> bool:
    found = _CHECKSUM.search(content)  # the first: ours is the first attribute
    return found is not None and int(found[1], 16) == crc32c(content.replace(found[0], _UNSET, 1))
