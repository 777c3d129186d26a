"""What may lie where: names that every file system can hold, dimensions that xarray can align, files that are ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from featdyn.errors import StoreError
from featdyn.store import lock
from featdyn.store.metadata import Document
from featdyn.store.schema import check_name

COST = ".featdyn.cost"  # what recording has taken of the run's time: no commit names what tells the time
RESERVED = ("results", "checkpoints", "commits")  # top-level names that no array or coordinate may take

# Names of the files that a writer makes, chunks of all three key encodings among them.
_KEY = r"(c([./]\d+)*|\d+(\.\d+)*|\.\d+(\.\d+)*\.new)"
_OWN = re.compile(
    rf"((?P<node>.+)/)?(\.zarr\.json\.new|zarr\.json)|(?P<array>.+)/{_KEY}"
    r"|commits/(\d{6,}(\.2)?|dropped|root|root\.\d+)\.json|commits/\.(dropped|root)\.json\.new"
    r"|checkpoints/\d{6,}/[^/]+\.safetensors|\.featdyn\.cost|\.\.featdyn\.cost\.new"
)
_BELOW = re.compile(rf"\.zarr\.json\.new|zarr\.json|{_KEY}")

# Of these, what no writer makes before its first commit; and what a run keeps: manifests, results, tensors, shards.
_COMMITTED = re.compile(r"commits/(?!000001\.json)(\d{6,}(\.2)?|dropped|root|root\.\d+)\.json|results/[^/]+/\d{6,}/.+")
_DATA = re.compile(
    rf"{_COMMITTED.pattern}|commits/000001\.json|checkpoints/\d{{6,}}/[^/]+\.safetensors|.+/(c\.)?\d+(\.\d+)*"
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


def foreign(files: Mapping[str, int | None]) -> str | None:
    """Return one of these files or links that no writer of ours made before its first commit, if there is one."""
    others = ((path, size) for path, size in files.items() if not lock.is_lock(path))
    return next((path for path, size in others if size is None or not is_own(path)), None)


def is_run(names: Collection[str], fence: str) -> bool:
    """Whether files are those of a run, however much of its head is missing.

    A place says with the file ``fence`` that no commit has come yet; what lies there then is nothing to keep, as long
    as nothing speaks against that. A run in a folder below is another one.
    """
    proof = _COMMITTED if fence in names else _DATA
    inner = tuple(f"{folder}/" for name in names for folder, found, _ in [name.partition("/commits/")] if found)
    return any(proof.fullmatch(name) and not name.startswith(inner) for name in names)


def is_own(path: str, nodes: Mapping[str, Document] | None = None) -> bool:
    """Whether a file may be a writer's of ours, by its name: at one of these nodes or among results, or at any node."""
    match = _OWN.fullmatch(path)
    if match is None:
        return False
    parts = path.split("/")
    if nodes is None or not (match["node"] or match["array"]) or parts[0] == "results":
        return True
    above = (("/".join(parts[:n]), "/".join(parts[n:])) for n in range(1, len(parts)))  # a key may be c/0
    return any(node in nodes and _BELOW.fullmatch(rest) for node, rest in above)
