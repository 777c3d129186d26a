"""Rewrite a store of an older format in place: what is small is gathered, then one new root replaces the old one."""

from __future__ import annotations

from dataclasses import replace

from featdyn.errors import StoreError
from featdyn.output import quoted
from featdyn.store import metadata, shard
from featdyn.store import root as roots
from featdyn.store.commit import Commit, Manifest, write_manifest
from featdyn.store.gathered import Gatherer, WrittenRow
from featdyn.store.locate import Store, locate
from featdyn.store.parity import grouped
from featdyn.store.place import Place, beside, disk
from featdyn.store.record import FileRecord
from featdyn.store.root import FORMAT, NAME, Root
from featdyn.store.schema import Schema


def compact(store: Store) -> bool:
    """Rewrite a store of format 1 as one of the newest; return False where what is small is gathered already.

    Every value stays bit for bit, and so do results, attributes, and the numbers of commits. Nothing is visible before
    the new root is there: who is stopped leaves the old store. The files that no commit names any more stay until
    :func:`~featdyn.store.gc`, for those who have the store open.

    Raises
    ------
    StoreError
        No store, one in use, or one that is damaged.
    """
    place = locate(store)
    roots.read(place)  # what is no store is refused before a lock file appears in it
    with place.lock() as lock, beside(place, lock), disk(place):
        root, _, version = roots.owned(place, lock)
        if root.format > 1:
            return False
        after = _compacted(place, root)
        content = after.encode()
        place.publish(NAME, content, version)
        roots.repeat(place, content, after.nodes)
        return True


def _compacted(place: Place, root: Root) -> Root:
    """Write manifests, and chunks that gather checkpoints; return the root that names them."""
    schema, last = root.schema.gathered(), None
    gatherer = Gatherer(place, schema, {})
    after = replace(root, schema=schema, commits=(), format=FORMAT)
    run = replace(root.until(1), schema=schema, format=FORMAT).grown().description()
    for entry in root.commits:
        if entry.kind not in ("checkpoint", "result"):
            after = after.after(entry, {})
            continue
        files, rows = _gather(place, root, entry, schema, gatherer)
        about = entry.number, entry.kind, entry.name, last, tuple(files), grouped(rows)
        first = run if entry.number == 1 else None
        manifest = Manifest(*about, after.log(entry.number), first, format=FORMAT)
        written = write_manifest(place, manifest, compacted=True)
        after = after.after(written, {})
        last = written.manifest.crc32c if entry.kind == "checkpoint" else last
    return after


def _gather(
    place: Place, root: Root, entry: Commit, schema: Schema, gatherer: Gatherer
) -> tuple[list[FileRecord], list[WrittenRow]]:
    """Put what is small in a checkpoint into chunks; return its other files, and its rows."""
    files, rows = {record.path: record for record in entry.files(place)}, []
    if entry.kind != "checkpoint":
        return list(files.values()), []
    t = int(entry.name)
    small = [(s, b) for s in schema.arrays if s.span > 1 for b in range(schema.blocks if "sample" in s.dims else 1)]
    old = [files.pop(metadata.chunk_key(root.schema[spec.path], t, block)) for spec, block in small]
    for (spec, block), (content, wrong) in zip(small, place.each(place.whole, old), strict=True):
        if wrong:
            raise StoreError(f"{place}: {wrong}; run: featdyn verify {quoted(place)}")
        samples = schema.block_slice(block)
        values = shard.decode(content, root.schema[spec.path], root.schema, samples.stop - samples.start)
        rows.append(gatherer.add(spec, t, block, values))
        if (t + 1) % spec.span == 0 or t + 1 == root.checkpoints:
            gatherer.write(spec, block)
    return list(files.values()), rows
