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
from pathlib import Path
from typing import Any, Literal, TypeAlias

from featdyn.errors import StoreError
from featdyn.store import files
from featdyn.store.files import FileRecord

FORMAT = 1
ROOT = "zarr.json"
KEY = "featdyn"  # the root attribute that holds what is below

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

    def files(self, root: Path) -> list[FileRecord]:
        """Return the files of this commit, as its manifest lists them."""
        wrong = files.check(root, self.manifest)
        if wrong:
            raise StoreError(f"{root}: {wrong}; run: featdyn verify {root}")
        listed = json.loads((root / self.manifest.path).read_bytes())
        return [FileRecord(*entry) for entry in listed["files"]]


def write_manifest(root: Path, number: int, kind: Kind, name: str, written: Sequence[FileRecord]) -> Commit:
    """Write the manifest of these files and make all their names durable; after this the commit may be published."""
    ordered = sorted(written, key=lambda record: record.path)
    content = json.dumps({"commit": number, "files": [[r.path, r.size, r.crc32c] for r in ordered]}).encode()
    manifest = files.write(root, f"commits/{number:06d}.json", [content])
    files.sync_folders(root, [r.path for r in ordered] + [manifest.path])
    return Commit(number, kind, name, manifest)


def read_root(root: Path) -> dict[str, Any]:
    """Return the root document of a store, or raise one clear :class:`StoreError`."""
    try:
        content = (root / ROOT).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        hint = (
            "no such folder" if not root.exists() else "not a featdyn store, or one whose first checkpoint never came"
        )
        raise StoreError(f"{root}: {hint}") from None
    except OSError as error:
        raise StoreError(f"{root}: {error.strerror}") from error
    try:
        document = json.loads(content)
        state = document["attributes"][KEY]
        version = state["format"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{root}: not a featdyn store, or its {ROOT} is damaged") from None
    if not isinstance(version, int) or version > FORMAT:
        raise StoreError(f"{root}: store format {version} is newer than this featdyn reads ({FORMAT}): update featdyn")
    parsed: dict[str, Any] = document
    return parsed
