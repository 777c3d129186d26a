"""The list of all commits, of which the root holds the newest: each 64th manifest holds the list of those before it.

So the root does not grow, and a commit writes no more late than early. Lists begin anew every 2048 commits, with the
manifest that holds the list before: to read all of them takes one request for each 2048.
"""

from __future__ import annotations

from typing import Any

from featdyn.errors import StoreError
from featdyn.output import quoted
from featdyn.store.commit import Commit
from featdyn.store.place import Place, disk

LISTED = 64  # commits that the root lists before a manifest takes over the list
CHAINED = 32 * LISTED  # commits that the list in a manifest holds at most, unless a repair has been there


class ListLostError(StoreError):
    """A manifest is damaged that the root needs, as it lists commits."""


def takes_over(number: int) -> bool:
    """Whether the manifest of this commit holds the list of those before it."""
    return number > 1 and number % LISTED == 1


def list_from(start: int, before: int) -> int:
    """Return from where on the next list goes that a manifest holds, when this one's goes from ``before``."""
    return start if start % CHAINED == 1 else before


def listed(place: Place, entries: list[dict[str, Any]]) -> tuple[tuple[Commit, ...], int, int]:
    """Return all commits, the first of them that the root lists itself, and ``since``.

    Raises ValueError, or StoreError where a manifest that lists the ones before cannot be read.
    """
    commits = tuple(Commit.parse(entry) for entry in entries)
    start = commits[0].number
    since = start
    while commits[0].number > 1:
        with disk(place):
            found = commits[0].listed(place)
        if isinstance(found, str):
            raise ListLostError(f"{place}: {found}; run: featdyn verify {quoted(place)} --repair")
        log = tuple(found.log)
        if not log or log[-1].number + 1 != commits[0].number:
            raise ValueError("commits out of order")
        since = list_from(start, log[0].number) if commits[0].number == start else since
        commits = log + commits
    return commits, start, since
