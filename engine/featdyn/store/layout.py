"""What may lie where: names that every file system can hold, dimensions that xarray can align, files that are ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from featdyn.errors import StoreError
from featdyn.store import lock
from featdyn.store.metadata import Document
from featdyn.store.place import Place
from featdyn.store.schema import check_name

RESERVED = ("results", "checkpoints", "commits")  # top-level names that no array or coordinate may take

# Names of the files that a writer makes, chunks of both key encodings among them.
_OWN = re.compile(
    r"((?P<node>.+)/)?(\.zarr\.json\.new|zarr\.json)|(?P<array>.+)/c([./]\d+)*"
    r"|commits/(\d{6,}|dropped|root|root\.\d+)\.json|commits/\.(dropped|root)\.json\.new"
    r"|checkpoints/\d{6,}/[^/]+\.safetensors"
)


def check(nodes: Mapping[str, Document]) -> None:
    """Raise when arrays could not be stored side by side, or not be opened by xarray as one tree.

    That is :class:`StoreError` for a name that cannot be stored, two that differ in case only, or an array inside
    another; ValueError for a dimension with different lengths in one group, or in a group and one above it.
    """
    seen: dict[str, str] = {}
    for path, document in nodes.items():
        for part in path.split("/"):
            check_name(part, document["node_type"])
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            raise StoreError(f"{path!r} and {other!r} differ in case only: some file systems cannot hold both")
        above = path.rpartition("/")[0]
        if above in nodes and nodes[above]["node_type"] == "array":
            raise StoreError(f"{path!r} lies inside the array {above!r}: rename one of them")
    sizes: dict[tuple[str, str], int] = {}
    for path, name, length in _dims(nodes):
        if sizes.setdefault((path.rpartition("/")[0], name), length) != length:
            raise ValueError(f"{path}: {name} has length {length}, elsewhere in its group another")
    for path, name, length in _dims(nodes):
        group = path.rpartition("/")[0]
        while group:
            group = group.rpartition("/")[0]
            if sizes.get((group, name), length) != length:
                raise ValueError(
                    f"{path}: {name} has length {length}, but {sizes[group, name]} in {group or 'the root'}"
                )


def _dims(nodes: Mapping[str, Document]) -> Iterator[tuple[str, str, int]]:
    for path, document in nodes.items():
        for name, length in zip(document.get("dimension_names") or (), document.get("shape", ()), strict=False):
            if name is not None:
                yield path, name, length


def foreign(place: Place) -> str | None:
    """Return a file or link of a place that no writer of ours made before its first commit, if there is one."""
    files = place.listing().items()
    return next((path for path, size in files if path not in lock.NAMES and (size is None or not is_own(path))), None)


def is_own(path: str, nodes: Mapping[str, Document] | None = None) -> bool:
    """Whether a file may be a writer's of ours, by its name: at one of these nodes or among results, or at any node."""
    match = _OWN.fullmatch(path)
    if match is None:
        return False
    node = match["node"] or match["array"]
    return nodes is None or node is None or node in nodes or node.split("/")[0] == "results"
