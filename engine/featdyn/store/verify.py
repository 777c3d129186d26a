"""Read a store back against its commit records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featdyn.errors import StoreError
from featdyn.store.locate import Store, locate
from featdyn.store.place import FileRecord
from featdyn.store.root import Root


@dataclass(frozen=True)
class Verdict:
    """What :func:`verify` found."""

    commits: int
    files: int
    bytes: int
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether every committed byte is as it was written."""
        return not self.problems


def verify(store: Store, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Check every file of every commit: there, of the recorded size, and with the recorded crc32c.

    Parameters
    ----------
    store
        Its path or URL.
    progress
        Called with (bytes done, bytes in all) after each file.

    Raises
    ------
    StoreError
        No store, or a root that cannot be read; anything else that is wrong is in the verdict.
    """
    place = locate(store)
    commits = Root.read(place).commits
    problems: list[str] = []
    records: list[FileRecord] = []
    for entry in commits:
        try:
            records += [entry.manifest, *entry.files(place)]
        except StoreError:
            problems.append(place.check(entry.manifest) or f"{entry.manifest.path}: damaged")
    total, done = sum(r.size for r in records), 0
    for record, wrong in zip(records, place.each(place.check, records), strict=True):
        if wrong:
            problems.append(wrong)
        done += record.size
        if progress:
            progress(done, total)
    return Verdict(len(commits), len(records), total, tuple(problems))
