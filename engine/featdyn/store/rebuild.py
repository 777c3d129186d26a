"""The root made anew from the manifests of the commits, when it and all its copies are gone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from featdyn.errors import StoreError
from featdyn.store.commit import DROPPED, NOTHING, Commit, Manifest
from featdyn.store.place import FileRecord, Place, crc32c
from featdyn.store.root import Root
from featdyn.store.salvage import followed

_MANIFEST = re.compile(r"commits/(\d{6,})(\.2)?\.json")


def rebuild(place: Place) -> tuple[str, Root] | None:
    """Return the root of all commits whose manifests prove themselves, and in words which; None where there is none.

    A manifest proves itself by its own checksum, and belongs to this run if it names that of the newest checkpoint
    before it: so one that a writer left before a repair made it write other checkpoints is passed over. Whether the
    files that it lists are sound is for the repair to check, as always. Those of a compaction stand for the ones of
    before, unless it was stopped before it had written them all.
    """
    found = [m for p, _ in place.walk("commits") if (m := _MANIFEST.fullmatch(p))]
    old, new = ({int(m[1]): m[0] for m in found if bool(m[2]) is compacted} for compacted in (False, True))
    roots = [_from(place, paths) for paths in ([{**old, **new}] if new else []) + [old]]
    root = max(roots, key=lambda root: 0 if root is None else len(root.commits))  # of equals the first
    if root is None:
        return None
    results = [c.label for c in root.commits if c.kind == "result"]
    said = f"the manifests of {root.checkpoints} checkpoints" + (f" and of {', '.join(results)}" if results else "")
    return f"{said} (without provenance)", root


def _from(place: Place, manifests: Mapping[int, str]) -> Root | None:
    root, last = None, None
    for number, path in sorted(manifests.items()):
        content = place.read(path)
        try:
            manifest = Manifest.parse(content)
            if manifest is None or (manifest.number, manifest.after) != (number, last):
                continue
            record = FileRecord(path, len(content), crc32c(content))
            after = _after(place, root, Commit(number, manifest.kind, manifest.name, record), manifest)
            if after is None:
                continue
            root = Root.decode(after.encode(), place)  # checked like any other
            if root.commits != after.commits:  # a list in a manifest is of before a repair
                root = replace(after, start=1, since=1)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, StoreError):
            continue  # intact, and not what this version writes
        last = record.crc32c if manifest.kind == "checkpoint" else last
    return root


def _after(place: Place, root: Root | None, entry: Commit, manifest: Manifest) -> Root | None:
    if root is None:
        return None if manifest.run is None else Root.first(entry, manifest.run)
    for number in range(len(root.commits) + 1, entry.number):  # which a repair dropped, or whose manifest is gone
        root = root.after(Commit(number, DROPPED, "", NOTHING), {})
    return followed(place, root, entry, manifest.files)
