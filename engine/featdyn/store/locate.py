"""From what a user gives to the place that holds the store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

from featdyn.errors import StoreError
from featdyn.store.files import Folder
from featdyn.store.place import Place

Store: TypeAlias = str | Path | Place

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters at least, as drives have one
SCHEMES = ("s3", "gs", "az", "memory")


def locate(store: Store) -> Place:
    """Return the place of a store: of a path a folder, of ``s3://bucket/path``, ``gs://`` or ``az://`` a bucket.

    Raises :class:`StoreError` for a URL that is none of these or incomplete, or where what buckets need is not
    installed.
    """
    if isinstance(store, Place):
        return store
    found = _URL.match(str(store))
    if found is None:
        return Folder(store)
    if isinstance(store, Path):
        raise StoreError(f"{store}: give a URL as text, not as a Path, which drops one of its slashes")
    if found[1] not in SCHEMES or not store.startswith(f"{found[1]}://"):
        raise StoreError(f"{store}: stores are folders, or {', '.join(f'{s}://' for s in SCHEMES[:-1])} URLs")
    from featdyn.store.bucket import Bucket

    return Bucket(store)


def below(folder: str | Path, name: str) -> str | Path:
    """Return the path of what is called ``name`` in a folder of stores, which may be a URL."""
    return f"{str(folder).rstrip('/')}/{name}" if _URL.match(str(folder)) else Path(folder) / name
