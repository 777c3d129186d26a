"""Remove what no commit names: left by killed writers, or dropped by a repair."""

from __future__ import annotations

from dataclasses import dataclass

from featdyn.errors import StoreError
from featdyn.store import layout, lock
from featdyn.store import root as roots
from featdyn.store.locate import Store, locate
from featdyn.store.place import beside, disk


@dataclass(frozen=True)
class Garbage:
    """What :func:`gc` removed, or would."""

    removed: dict[str, int]  # path to size in bytes
    foreign: tuple[str, ...]  # files and links that are none of the store's: never touched

    @property
    def bytes(self) -> int:
        """Bytes in all."""
        return sum(self.removed.values())


def gc(store: Store, *, dry_run: bool = False) -> Garbage:
    """Remove the files that a writer of this store may have made and that no commit names; ``dry_run`` only names them.

    Readers of the newest commit are not disturbed; who still has a commit open that a repair dropped is. The roots that
    repairs put aside go too: what they name is gone then.

    Raises
    ------
    StoreError
        No store, one in use, or one whose root or manifests are damaged: then nothing tells what is garbage.
    """
    place = locate(store)
    roots.read(place)  # a foreign folder is refused before a lock file appears in it
    with place.lock() as held, beside(place, held), disk(place):
        root, content, _ = roots.owned(place, held)
        named = {roots.NAME, roots.COPY, layout.COST, *(f"{node}/{roots.NAME}" for node in root.nodes)}
        for commit in root.commits:
            listing = commit.listing(place)
            named |= {commit.manifest.path, *(record.path for record in (*listing.files, *listing.rows))}
        removed, foreign = {}, []
        for name, size in sorted(place.listing().items()):
            kept = name in named or lock.is_lock(name)
            if size is None or not (kept or layout.is_own(name, root.nodes)):
                foreign.append(name)
            elif not kept:
                removed[name] = size
        if not dry_run:
            if roots.read(place) != content:
                raise StoreError(f"{place}: another writer has come meanwhile: nothing was removed, try again")
            for _ in place.each(place.remove, removed):
                pass
        return Garbage(removed, tuple(foreign))
