"""The commit protocol: data first, then one atomic publication.

Every file of a commit is written and synced; then its manifest, the list of these files with size and crc32c; then
the root ``zarr.json`` is replaced, which makes all of it visible at once. The root names each commit's manifest by size
and checksum, so the root stays small at any number of shards (a list of all shards in the root would be rewritten, and
parsed by every reader, at each checkpoint), and a manifest that was damaged is found like any other file. It stays so
at any number of commits: each 64th manifest holds the list of those before it, and the root the list from there.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

from featdyn.errors import StoreError
from featdyn.output import quoted
from featdyn.store import seal, zstd
from featdyn.store.change import Change
from featdyn.store.gathered import Rows
from featdyn.store.locate import Store, locate
from featdyn.store.parity import Group
from featdyn.store.place import DOCUMENT, Place, disk
from featdyn.store.record import FileRecord, crc32c

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

    @property
    def document(self) -> dict[str, Any]:
        """The entry as it goes into JSON."""
        return {**vars(self), "manifest": vars(self.manifest)}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Commit:
        """Return the entry that :attr:`document` is of."""
        number, kind, name, manifest = (document[key] for key in ("number", "kind", "name", "manifest"))
        if not (isinstance(number, int) and isinstance(kind, str) and isinstance(name, str)):
            raise ValueError("no commit")
        if kind == "result" and not _RESULT.fullmatch(name):
            raise ValueError("no result")
        return cls(number, kind, name, FileRecord.parse(manifest["path"], manifest["size"], manifest["crc32c"]))

    def files(self, store: Store) -> list[FileRecord]:
        """Return the files that this commit made, as its manifest lists them."""
        return self.listing(store).files

    def listing(self, store: Store) -> Listing:
        """Return what its manifest lists."""
        place = locate(store)
        with disk(place):
            found = self.listed(place)
        if isinstance(found, str):
            raise StoreError(f"{place}: {found}; run: featdyn verify {quoted(place)}")
        return found

    def listed(self, place: Place) -> Listing | str:
        """Return the same, or what is wrong with the manifest; raises OSError where nobody can say now."""
        if self.manifest.size > DOCUMENT:
            return f"{self.manifest.path}: too large for a manifest"
        content, wrong = place.whole(self.manifest)
        if wrong:
            return wrong
        try:
            return Listing.parse(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
            return f"{self.manifest.path}: no manifest"


class Listing(NamedTuple):
    """What a manifest lists."""

    files: list[FileRecord]  # that the commit made
    groups: list[Group]  # rows of the chunks that gather checkpoints
    log: list[Commit]  # the commits before, where the root lists them no more

    @property
    def rows(self) -> list[Rows]:
        """The rows of all groups."""
        return [row for group in self.groups for row in group.rows]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Listing:
        """Return what is in a manifest, or raise ValueError, KeyError, TypeError or RuntimeError."""
        files = [FileRecord.parse(*entry[:3]) for entry in document["files"]]
        log = [Commit.parse(entry) for entry in _unpacked(document.get("log", []))]
        return cls(files, _groups(document), log)


def _groups(document: Mapping[str, Any]) -> list[Group]:
    """Return the rows that a manifest lists, group by group, with the parities that it holds one behind the other."""
    entries = [(FileRecord.parse(*entry[:3]), entry[3]) for entry in _unpacked(document.get("rows", []))]
    size = document.get("group", 1)  # format 2: each row by itself
    if not (isinstance(size, int) and size > 0):
        raise ValueError("no groups")
    if not all(isinstance(length, int) and 0 < length <= record.size for record, length in entries):
        raise ValueError("no rows")
    rows = [Rows(record.path, record.size, record.crc32c, length) for record, length in entries]
    some = [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]
    ends = [0, *accumulate(max(row.length for row in group) for group in some)]
    held = zstd.expand(base64.b64decode(document["content"]), ends[-1]).tobytes() if rows else b""
    return [Group(group, held[start:end]) for group, (start, end) in zip(some, pairwise(ends), strict=True)]


def _packed(table: Any) -> str:
    """Return a table that repeats itself much as text that is short."""
    return base64.b64encode(zstd.compress(json.dumps(table).encode())).decode()


def _unpacked(table: Any) -> Any:
    """Return what :func:`_packed` made text of; format 2 has the table itself."""
    if not isinstance(table, str):
        return table
    frame = base64.b64decode(table)
    size = zstd.declared(frame)
    if size is None or size > DOCUMENT:
        raise ValueError("too large for a manifest")
    return json.loads(zstd.expand(frame, size).tobytes())


@dataclass(frozen=True)
class Manifest:
    """A commit's files and rows, and what the root says of it, so that the root can be made anew from these.

    Equal runs have equal manifests, whoever made them and when.
    """

    number: int
    kind: str
    name: str
    after: int | None  # the checksum of the manifest of the newest checkpoint before: it tells whose commit this is
    files: tuple[FileRecord, ...]
    groups: tuple[Group, ...] = ()
    log: tuple[Commit, ...] = ()
    run: Mapping[str, Any] | None = None  # of the first commit: what the root says but for its commits
    change: Change | None = None  # that somebody accepted before this commit
    format: int = 1  # of the root that names it first

    _SEAL = "manifest_crc32c"

    @staticmethod
    def path(number: int, *, compacted: bool = False) -> str:
        """Return where the manifest of a commit lies, or the one that stands for it since the store was compacted."""
        return f"commits/{number:06d}.2.json" if compacted else f"commits/{number:06d}.json"

    def encode(self) -> bytes:
        """Return the content of its file."""
        document = {
            self._SEAL: seal.UNSET,
            "commit": self.number,
            "kind": self.kind,
            "name": self.name,
            "after": self.after,
            "files": [[r.path, r.size, r.crc32c] for r in sorted(self.files, key=lambda record: record.path)],
        }
        if self.groups:
            rows = [[r.path, r.size, r.crc32c, r.length] for group in self.groups for r in group.rows]
            content = b"".join(group.parity for group in self.groups)
            document["group"], document["rows"] = len(self.groups[0].rows), _packed(rows)
            document["content"] = base64.b64encode(zstd.compress(content)).decode()
        if self.log:
            document["log"] = _packed([entry.document for entry in self.log])
        if self.run is not None:
            document["run"] = self.run
        if self.change is not None:
            document["change"] = asdict(self.change)
        if self.format > 2:
            document["format"] = self.format
        return seal.seal(json.dumps(document).encode(), self._SEAL)

    @classmethod
    def parse(cls, content: bytes) -> Manifest | None:
        """Return what :meth:`encode` wrote; None unless its checksum proves that it is this."""
        if not seal.intact(content, cls._SEAL):
            return None
        d = json.loads(content)
        listed = Listing.parse(d)
        change = Change.parse(d["change"]) if "change" in d else None
        about = d["commit"], d["kind"], d["name"], d["after"], tuple(listed.files), tuple(listed.groups)
        return cls(*about, tuple(listed.log), d.get("run"), change, d.get("format", 1))


def write_nothing(place: Place) -> None:
    """Write the manifest that lists no files, unless it is there."""
    if place.check(NOTHING):
        place.replace(NOTHING.path, _EMPTY)


def write_manifest(place: Place, manifest: Manifest, *, compacted: bool = False) -> Commit:
    """Write a manifest and make the names of all its files durable; after this the commit may be published."""
    content = manifest.encode()
    if len(content) > DOCUMENT:
        raise StoreError(f"{place}: more small arrays than a commit can hold: record fewer layers, or fewer samples")
    record = place.write(Manifest.path(manifest.number, compacted=compacted), [content])
    rows = [row for group in manifest.groups for row in group.rows]
    place.settle([r.path for r in (*manifest.files, *rows, record)])
    return Commit(manifest.number, manifest.kind, manifest.name, record)
