"""The root made anew from what is left: its copies, and the manifests of the commits, which prove themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile

from featdyn.errors import StoreError
from featdyn.store.commit import DROPPED, NOTHING, Commit, Manifest
from featdyn.store.place import Place
from featdyn.store.record import FileRecord, crc32c
from featdyn.store.root import Root
from featdyn.store.salvage import asides, copies, followed

_MANIFEST = re.compile(r"commits/(\d{6,})(\.2)?\.json")


def rebuild(place: Place, content: bytes | None = None) -> tuple[str, Root] | None:
    """Return the root that holds most of what can be proven, and in words from what; None where nothing is left.

    A copy of the root may be of before the last commits, and one that a repair put aside of before many. So each is
    followed by the commits whose manifests prove themselves, and so is none of them. A manifest proves itself by its
    own checksum, and belongs to this run if it names that of the newest checkpoint before it: one that a writer left
    before a repair made it write other checkpoints is passed over. Whether the files that it lists are sound is for the
    repair to check, as always. ``content`` is that of the root's file, see :func:`featdyn.store.salvage.copies`.
    """
    manifests: dict[int, list[str]] = {}  # by number; one that was written later than a compaction comes first
    for path in sorted(path for path, _ in place.walk("commits")):
        if match := _MANIFEST.fullmatch(path):
            manifests.setdefault(int(match[1]), []).append(path)
    for paths in manifests.values():
        paths.sort(key=lambda path: path.endswith(".2.json"))
    left, aside = list(copies(place, content)), set(asides(place))
    found = [(name, _followed(place, root, manifests)) for name, root in left if name not in aside]
    # Those of a compaction stand for the ones of before, unless it was stopped before it had written them all.
    for first in reversed(manifests.get(1, ())):
        anew = _followed(place, None, {**manifests, 1: [first]})
        if anew is not None:
            known = next((root.attributes for _, root in left if root.commits[0] == anew.commits[0]), None)
            found.append((_said(anew, known is not None), anew if known is None else replace(anew, attributes=known)))
    found += [(name, _followed(place, root, manifests)) for name, root in left if name in aside]
    whole = [(name, root) for name, root in found if root is not None]
    return max(whole, key=lambda one: _proven(place, one[1]), default=None)  # of equals the first


def _said(root: Root, known: bool) -> str:
    results = [c.label for c in root.commits if c.kind == "result"]
    said = f"the manifests of {root.checkpoints} checkpoints" + (f" and of {', '.join(results)}" if results else "")
    return said if known else f"{said} (without provenance)"


def _proven(place: Place, root: Root) -> tuple[int, int]:
    """Return how many checkpoints a root has up to the first manifest that is not as it says, and how many commits."""
    held = list(takewhile(lambda c: c.kind == DROPPED or not isinstance(c.listed(place), str), root.commits))
    return sum(c.kind == "checkpoint" for c in held), len(held)


def _followed(place: Place, root: Root | None, manifests: Mapping[int, list[str]]) -> Root | None:
    """Return a root, or none, with the commits after it whose manifests prove themselves."""
    known = 0 if root is None else len(root.commits)
    newest = (c.manifest.crc32c for c in reversed(root.commits) if c.kind == "checkpoint") if root else ()
    last = next(iter(newest), None)
    for number, paths in sorted(manifests.items()):
        for path in paths if number > known else ():
            content = place.read(path)
            try:
                manifest = Manifest.parse(content)
                if manifest is None or (manifest.number, manifest.after) != (number, last):
                    continue
                record = FileRecord(path, len(content), crc32c(content))
                after = _after(place, root, Commit(number, manifest.kind, manifest.name, record), manifest)
                if after is None:
                    continue
                decoded = Root.decode(after.encode(), place)  # checked like any other
                if decoded.commits != after.commits:  # a list in a manifest is of before a repair
                    decoded = replace(after, start=1, since=1)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, StoreError):
                continue  # intact, and not what this version writes
            root, last = decoded, record.crc32c if manifest.kind == "checkpoint" else last
            break
    return root


def _after(place: Place, root: Root | None, entry: Commit, manifest: Manifest) -> Root | None:
    if root is None:
        return None if manifest.run is None else Root.first(entry, manifest.run)
    for number in range(len(root.commits) + 1, entry.number):  # which a repair dropped, or whose manifest is gone
        root = root.after(Commit(number, DROPPED, "", NOTHING), {})
    after = followed(place, root, entry, manifest.files)
    return after and after.told(manifest)
