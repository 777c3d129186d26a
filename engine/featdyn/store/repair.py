"""Drop what is damaged and as little else as possible, by publishing a root that no longer names it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace

from featdyn.errors import StoreError
from featdyn.store import commit, parity
from featdyn.store import root as roots
from featdyn.store.commit_list import ListLostError
from featdyn.store.locate import Store, locate
from featdyn.store.place import Place, beside, disk
from featdyn.store.rebuild import rebuild
from featdyn.store.record import Version
from featdyn.store.right import Lock
from featdyn.store.root import NAME, Root
from featdyn.store.salvage import asides
from featdyn.store.verify import Progress, Verdict, inspect


@dataclass(frozen=True)
class Repair:
    """What :func:`repair` did."""

    verdict: Verdict  # on the files of the root that it started from
    source: str  # that root's file: zarr.json, or what was left of it elsewhere when it was damaged or gone
    aside: str | None  # where the root of before was put; None when there was none
    checkpoints: int  # that the store holds now
    changed: bool  # whether anything had to be done


def repair(store: Store, progress: Progress = None) -> Repair:
    """Check a whole store; drop damaged results, and damaged checkpoints with all that follows from them.

    No file is removed (:func:`~featdyn.store.gc` does that) and the root of before stays aside: putting it back undoes
    this, until the run goes on or is cleared. A root that is damaged or gone is made anew from its copy, or else from
    the manifests of the commits. The store is one that nobody writes; ``progress`` is as for
    :func:`~featdyn.store.verify`.

    Raises
    ------
    StoreError
        No store, or one in use; a file that cannot be read now, so that nobody can say whether it is damaged; damage in
        the first checkpoint, on which all else stands; or a root that nothing is left to make anew from. Nothing is
        changed then.
    """
    place = locate(store)
    if roots.exists(place) or not roots.lost(place):
        roots.read(place)  # what is no store is refused before a lock file appears in it
    with place.lock() as lock, beside(place, lock), disk(place):
        source, root, version = _newest(place, lock)
        verdict = inspect(copy(place), root, progress)  # as who reads: one that writes waits longer
        if verdict.unknown:
            more = f", and {len(verdict.unknown) - 1} more" if len(verdict.unknown) > 1 else ""
            raise StoreError(
                f"{place}: {verdict.unknown[0]}{more}: that is no damage yet, so nothing was changed; try again when "
                "everything can be read"
            )
        if 1 in verdict.damaged:
            raise StoreError(
                f"{place}: the damage reaches the first commit, on which all others stand ({verdict.problems[0]}): "
                "nothing was changed; put this file back from a backup, or record the run again"
            )
        if verdict.sound and source == NAME:
            return Repair(verdict, source, None, root.checkpoints, changed=False)
        after = root.without(root.lost(verdict.damaged))
        _mend(place, after, verdict.mendable, version)
        if not verdict.damaged and source == NAME:
            return Repair(verdict, source, None, root.checkpoints, changed=True)
        before, aside = place.fetch(NAME), None
        if before is not None:
            aside = f"commits/root.{len(asides(place)) + 1}.json"
            place.write(aside, [before[0]])
            place.settle([aside])
        if any(entry.kind == commit.DROPPED for entry in after.commits):
            commit.write_nothing(place)
        _leave_one_manifest(place, after)
        content = after.encode()
        # Before the root: the one whole root that is left may be .zarr.json.new, and nodes must not be ahead of the
        # root, while here they shrink.
        roots.repeat(place, content, after.nodes, durable=True)
        place.publish(NAME, content, version)
        return Repair(verdict, source, aside, after.checkpoints, changed=True)


def _leave_one_manifest(place: Place, root: Root) -> None:
    """Remove other manifests of the root's commits, such as a compaction left: they do not know what was dropped."""
    held = {path for path, _ in place.walk("commits")}  # one listing, not a request for each commit
    named = {entry.manifest.path for entry in root.commits}
    ways = {commit.Manifest.path(c.number, compacted=which) for c in root.commits for which in (False, True)}
    for path in sorted(held & ways - named):
        place.remove(path)


def _mend(place: Place, root: Root, paths: Sequence[str], version: Version) -> None:
    """Make chunks anew that gather checkpoints, as far as these stay; ``version`` is the root's."""
    if paths:
        before = {path: place.version(path) for path in paths}
        if place.version(NAME) != version:
            raise StoreError(f"{place}: another writer has come meanwhile: nothing was changed, try again")
        listed = [c.listing(place).groups for c in root.commits if c.kind == "checkpoint"]
        there = {row.path for groups in listed for group in groups for row in group.rows}
        for path in sorted(there & set(paths)):
            parity.mend(place, root.schema, path, listed, before[path])
        place.settle(list(paths))


def _newest(place: Place, lock: Lock) -> tuple[str, Root, Version]:
    """Return the root, or when it is damaged the best that is left of it; its file, and the version of the root's."""
    found = place.fetch(NAME)
    if found is not None and roots.intact(found[0]):
        with suppress(ListLostError):  # then from the manifests that are left
            root, _, version = roots.owned(place, lock)
            return NAME, root, version
    left = rebuild(place, found and found[0])
    if left is not None:
        name, root = left
        return name, replace(root, takeovers=root.takeovers + lock.taken_over), found and found[1]
    raise StoreError(
        f"{place}: its {NAME} is {'missing' if found is None else 'damaged'}, and there is no whole copy of it, and no "
        "first manifest that proves itself, so nothing was changed: put it back from a backup; each array can still be "
        "opened by its own folder, and checkpoints/*/*.safetensors by torch"
    )
