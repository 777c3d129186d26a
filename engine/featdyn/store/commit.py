"""The commit protocol: data first, then one atomic publication.

Every file of a commit is written and synced; then its manifest, the list of these files with size and crc32c; then
the root ``zarr.json`` is replaced, which makes all of it visible at once. The root names each commit's manifest by size
and checksum, so the root stays small at any number of shards (a list of all shards in the root would be rewritten, and
parsed by every reader, at each checkpoint), and a manifest that was damaged is found like any other file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from featdyn.errors import StoreError
from featdyn.store.locate import Store, locate
from featdyn.store.place import FileRecord, Place, disk

Kind: TypeAlias = Literal["checkpoint", "result"]


@dataclass(frozen=True)
class Commit:
    """One entry of the root's commit list."""

    number: int
    kind: Kind
    name: str  # the checkpoint's number, or the path of the result
    manifest: FileRecord

    def document(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Commit:
        """Return the entry that :meth:`document` wrote."""
        return cls(document["number"], document["kind"], document["name"], FileRecord(**document["manifest"]))

    def files(self, store: Store) -> list[FileRecord]:
        """Return the files of this commit, as its manifest lists them."""
        place = locate(store)
        wrong = place.check(self.manifest)
        if wrong:
            raise StoreError(f"{place}: {wrong}; run: featdyn verify {place}")
        with disk(place):
            listed = json.loads(place.read(self.manifest.path))
        return [FileRecord(*entry) for entry in listed["files"]]


def write_manifest(place: Place, number: int, kind: Kind, name: str, written: Sequence[FileRecord]) -> Commit:
    """Write the manifest of these files and make all their names durable; after this the commit may be published."""
    ordered = sorted(written, key=lambda record: record.path)
    content = json.dumps({"commit": number, "files": [[r.path, r.size, r.crc32c] for r in ordered]}).encode()
    manifest = place.write(f"commits/{number:06d}.json", [content])
    place.settle([r.path for r in ordered] + [manifest.path])
    return Commit(number, kind, name, manifest)
