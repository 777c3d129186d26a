"""The commit protocol: data first, then one atomic publication.

Every file of a commit is written and synced; then its manifest, the list of these files with size and crc32c; then
the root ``zarr.json`` is replaced, which makes all of it visible at once. The root names each commit's manifest by size
and checksum, so the root stays small at any number of shards (a list of all shards in the root would be rewritten, and
parsed by every reader, at each checkpoint), and a manifest that was damaged is found like any other file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from featdyn.errors import StoreError
from featdyn.store.locate import Store, locate
from featdyn.store.place import FileRecord, Place, crc32c, disk

Kind: TypeAlias = Literal["checkpoint", "result"]  # that are written; readers skip others, "dropped" among them

DROPPED = "dropped"  # the kind of an entry that holds the place of a commit that a repair gave up
_EMPTY = json.dumps({"commit": None, "files": []}).encode()
NOTHING = FileRecord("commits/dropped.json", len(_EMPTY), crc32c(_EMPTY))  # the manifest of all of these
_RESULT = re.compile(r"results/[^/]+/\d{6,}")


@dataclass(frozen=True)
class Commit:
    """One entry of the root's commit list."""

    number: int
    kind: str
    name: str  # the checkpoint's number, or the path of the result
    manifest: FileRecord

    @property
    def label(self) -> str:
        """What people call it."""
        return f"checkpoint {self.name}" if self.kind == "checkpoint" else self.name

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Commit:
        """Return the entry that ``asdict`` made JSON of."""
        number, kind, name, manifest = (document[key] for key in ("number", "kind", "name", "manifest"))
        if not (isinstance(number, int) and isinstance(kind, str) and isinstance(name, str)):
            raise ValueError("no commit")
        if kind == "result" and not _RESULT.fullmatch(name):
            raise ValueError("no result")
        return cls(number, kind, name, FileRecord.parse(manifest["path"], manifest["size"], manifest["crc32c"]))

    def files(self, store: Store) -> list[FileRecord]:
        """Return the files of this commit, as its manifest lists them."""
        place = locate(store)
        wrong = place.check(self.manifest)
        if wrong:
            raise StoreError(f"{place}: {wrong}; run: featdyn verify {place}")
        try:
            with disk(place):
                listed = json.loads(place.read(self.manifest.path))
            return [FileRecord.parse(*entry[:3]) for entry in listed["files"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StoreError(f"{place}: {self.manifest.path} cannot be read; run: featdyn verify {place}") from None


def write_nothing(place: Place) -> None:
    """Write the manifest that lists no files, unless it is there."""
    if place.check(NOTHING):
        place.replace(NOTHING.path, _EMPTY)


def write_manifest(place: Place, number: int, kind: Kind, name: str, written: Sequence[FileRecord]) -> Commit:
    """Write the manifest of these files and make all their names durable; after this the commit may be published."""
    ordered = sorted(written, key=lambda record: record.path)
    content = json.dumps({"commit": number, "files": [[r.path, r.size, r.crc32c] for r in ordered]}).encode()
    manifest = place.write(f"commits/{number:06d}.json", [content])
    place.settle([r.path for r in ordered] + [manifest.path])
    return Commit(number, kind, name, manifest)
