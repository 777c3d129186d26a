"""The best that is left of a root which is damaged, gone, or was changed by another program."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count, takewhile

from featdyn.errors import StoreError
from featdyn.store import root as roots
from featdyn.store.change import Change
from featdyn.store.commit import Commit
from featdyn.store.commit_list import ListLostError
from featdyn.store.metadata import Document
from featdyn.store.place import Place
from featdyn.store.record import FileRecord
from featdyn.store.root import COPY, KEY, NAME, Root


def copies(place: Place, content: bytes | None) -> Iterator[tuple[str, Root]]:
    """Yield the whole roots that are left, each with the file that it was taken from, the likely newest first.

    ``content`` is that of the root's file, which is not as it was written; None where there is none.
    """
    for name in (COPY, f".{NAME}.new", *reversed(asides(place))):
        found = place.fetch(name)
        if found is not None and roots.intact(found[0]):
            with suppress(ListLostError):
                root = Root.decode(found[0], place)
                yield name, root if content is None else _with_newer(place, root, content)


def asides(place: Place) -> list[str]:
    """Return the files of the roots that repairs put aside, the oldest first."""
    return list(takewhile(place.exists, (f"commits/root.{number}.json" for number in count(1))))


def _with_newer(place: Place, root: Root, content: bytes) -> Root:
    """Add the commits that a changed root knows and its copy does not, which may be one behind.

    zarr and xarray keep the attributes of a group that they write, and so our list of commits. Nodes of newer results
    are read from their own files.
    """
    if not roots.rewritten(content):  # damage may be anywhere
        return root
    try:
        document = json.loads(content)
        state = document["attributes"][KEY]
        listed = tuple(Commit.parse(entry) for entry in state["commits"])
        takeovers = max(root.takeovers, int(state.get("takeovers", 0)))
        known = len(root.commits)
        first = listed[0].number
        if first > known + 1 or listed[: known + 1 - first] != root.commits[first - 1 :]:
            return root
        grown = replace(root, takeovers=takeovers)
        for entry in listed[known + 1 - first :]:
            found = entry.listed(place)  # an error of the place ends this: nothing is known then
            after = None if isinstance(found, str) else followed(place, grown, entry, found.files)
            if after is None:
                break
            grown = after
        changes = tuple(map(Change.parse, state.get("changes", ())))
        grown = replace(grown, changes=tuple(change for change in changes if change.commit <= len(grown.commits)))
        return Root.decode(grown.encode(), place)  # checked like any other
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, StoreError):
        return root


def followed(place: Place, root: Root, entry: Commit, files: Collection[FileRecord]) -> Root | None:
    """Return the root after one more commit, of these files; the nodes of a result are read from their own files.

    None where its writer was killed before it had described all of them.
    """
    added = _nodes(place, entry.name) if entry.kind == "result" else {}
    arrays = tuple(f"{path}/c" for path in added)
    if entry.kind == "result" and not all(file.path.startswith(arrays) for file in files):
        return None
    return root.after(entry, added)


def _nodes(place: Place, below: str) -> dict[str, Document]:
    """Return the group of a result and its arrays, as far as their own files are there."""
    end = f"/{NAME}"
    files = [path for path, _ in place.walk(below) if path.endswith(end)]
    return {path.removesuffix(end): json.loads(place.read(path)) for path in files}
