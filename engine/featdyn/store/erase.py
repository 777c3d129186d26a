"""Remove a whole store, and nothing that is not the store's."""

from __future__ import annotations

from featdyn.errors import StoreError
from featdyn.store import layout, lock
from featdyn.store import root as roots
from featdyn.store.locate import Store, locate
from featdyn.store.place import beside, disk


def erase(store: Store) -> None:
    """Remove all files of a store, but not the folder itself.

    The root goes last: what an interrupted call leaves is a store yet, of which the next call removes the rest.

    Raises
    ------
    StoreError
        No store, or one that is damaged, in use, or among files or links that are not its own. Then nothing is removed.
    """
    place = locate(store)
    roots.Root.read(place)  # a foreign folder is refused before a lock file appears in it
    with place.lock() as held, beside(place, held), disk(place):
        root, content, _ = roots.owned(place, held)
        listing = place.listing()
        files = {name: size for name, size in listing.items() if not lock.is_lock(name)}
        named = {roots.NAME, roots.COPY, *(f"{node}/{roots.NAME}" for node in root.nodes)}
        own = {name for name in files if name in named or layout.is_own(name, root.nodes)}
        foreign = [name for name, size in files.items() if size is None or name not in own]
        if foreign:
            raise StoreError(
                f"{place}: {min(foreign)!r} is not the store's, so nothing was removed: move it away, or choose "
                "another path"
            )
        if roots.read(place) != content:
            raise StoreError(f"{place}: another writer has come meanwhile: nothing was removed, try again")
        for _ in place.each(place.remove, sorted(files.keys() - {roots.NAME})):
            pass
        place.remove(roots.NAME)
