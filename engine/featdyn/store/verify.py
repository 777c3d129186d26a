"""Read a store back against its commit records."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from featdyn.store import gathered, parity
from featdyn.store.commit import Commit, Listing
from featdyn.store.gathered import Rows
from featdyn.store.locate import Store, locate
from featdyn.store.parity import Group
from featdyn.store.place import Place
from featdyn.store.record import FileRecord
from featdyn.store.root import Root

Progress: TypeAlias = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Verdict:
    """What :func:`verify` found."""

    commits: int
    files: int  # that were checked, manifests included
    bytes: int  # likewise
    problems: tuple[str, ...]  # a line for each file that is not as it was written
    unknown: tuple[str, ...]  # a line for each that cannot be read now, of which nothing is known
    mendable: tuple[str, ...]  # of these files, those that a repair makes anew from what the manifests hold
    damaged: tuple[int, ...]  # numbers of the commits that have such files, in order
    lost: tuple[str, ...]  # what :func:`~featdyn.store.repair` would drop for that: checkpoints and results
    of: int  # files in all
    seed: int | None  # of the sample; None where every file was checked

    @property
    def sound(self) -> bool:
        """Whether every byte is as it was written, of what was to be checked."""
        return not self.problems and not self.unknown


def verify(store: Store, progress: Progress = None, *, sample: float | None = None, seed: int | None = None) -> Verdict:
    """Check the files of every commit: there, of the recorded size, and with the recorded crc32c.

    Parameters
    ----------
    progress
        Called with (bytes done, bytes in all) after each file.
    sample, seed
        Check only this fraction of the files (above 0, at most 1), drawn at random; root and manifests always. By
        default each draw is another, whose seed the verdict says.

    Raises
    ------
    StoreError
        No store, or a root that cannot be read; anything else that is wrong is in the verdict.
    """
    place = locate(store)
    return inspect(place, Root.read(place), progress, sample=sample, seed=seed)


def inspect(
    place: Place, root: Root, progress: Progress = None, *, sample: float | None = None, seed: int | None = None
) -> Verdict:
    """Check what a root names, as :func:`verify` does."""
    problems: dict[str, int] = {}  # to the number of the commit
    unknown: list[str] = []
    records: list[tuple[FileRecord, int]] = []
    chunks: dict[str, tuple[FileRecord, int]] = {}  # what their newest checkpoint says is true of those before, too
    groups: dict[int, list[Group]] = {}  # of the rows of such chunks, by the commits' numbers

    def manifest(entry: Commit) -> tuple[Listing | str | None, str | None]:
        try:
            return entry.listed(place), None
        except OSError as error:
            return None, _unread(entry.manifest, error)

    for entry, (listed, unread) in zip(root.commits, place.each(manifest, root.commits), strict=True):
        if unread:
            unknown.append(unread)
        elif isinstance(listed, str):
            problems[listed] = entry.number
        elif listed is not None:
            records += [(record, entry.number) for record in listed.files]
            chunks |= {record.path: (record, 0) for record in listed.rows}
            groups[entry.number] = listed.groups
    records += chunks.values()
    of = len(root.commits) + len(records)
    if sample is not None:
        if not 0 < sample <= 1:
            raise ValueError(f"sample must be above 0 and at most 1, got {sample}")
        seed = random.randrange(2**32) if seed is None else seed
        records = random.Random(seed).sample(records, math.ceil(sample * len(records)))
    done = sum(entry.manifest.size for entry in root.commits)
    total = done + sum(record.size for record, _ in records)

    def look(item: tuple[FileRecord, int]) -> tuple[str | None, str | None]:
        try:
            record, _ = item
            if isinstance(record, Rows):
                return gathered.check(place, record, root.schema), None
            return place.check(record), None
        except OSError as error:
            return None, _unread(item[0], error)

    broken: dict[str, str] = {}  # chunks that gather checkpoints, and what is wrong with them
    for (record, number), (wrong, unread) in zip(records, place.each(look, records), strict=True):
        if unread:
            unknown.append(unread)
        if wrong:
            problems[wrong] = number
            if isinstance(record, Rows):
                broken[record.path] = wrong
        done += record.size
        if progress:
            progress(done, total)
    mendable = [path for path in broken if parity.mendable(groups.values(), path, broken)]
    for path in broken.keys() - set(mendable):  # lost, from its first row on
        problems[broken[path]] = min(n for n, some in groups.items() if parity.group_of(some, path))
    damaged = sorted(set(problems.values()) - {0})
    lost, commits = tuple(c.label for c in root.lost(damaged)), len(root.commits)
    drawn = seed if sample is not None else None
    files = commits + len(records)
    found = tuple(problems), tuple(unknown), tuple(mendable), tuple(damaged)
    return Verdict(commits, files, total, *found, lost, of, drawn)


def _unread(record: FileRecord, error: OSError) -> str:
    return f"{record.path}: cannot be read now ({error.strerror or error})"
